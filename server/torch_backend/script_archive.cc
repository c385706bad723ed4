#include "server/torch_backend/script_archive.h"

#include <algorithm>
#include <utility>

namespace hearth {
namespace {

// Adds up the records that the storages of one pickle live in.
void CountRecords(std::string_view folder, const PickleSummary& pickle, ScriptArchive& script) {
  for (const PickledStorage& storage : pickle.storages) {
    const Archive::Record* record = script.archive.Find(StrCat(folder, "/", storage.key));
    if (record == nullptr || record->size == 0) continue;
    if (record->mappable()) {
      script.mapped_bytes += record->size;
      script.populate_begin = std::min(script.populate_begin, record->data_offset);
      script.populate_end = std::max(script.populate_end, record->data_offset + record->size);
    } else {
      script.copied_bytes += record->size;
    }
  }
}

}  // namespace

absl::StatusOr<ScriptArchive> OpenScriptArchive(const std::filesystem::path& path) {
  HEARTH_ASSIGN_OR_RETURN(std::shared_ptr<const MappedFile> file, MappedFile::Open(path));
  return OpenScriptArchive(std::move(file));
}

absl::StatusOr<ScriptArchive> OpenScriptArchive(std::shared_ptr<const MappedFile> file) {
  const MappedFile::Scattered scattered(*file);
  absl::StatusOr<Archive> opened = Archive::Open(file->bytes());
  if (!opened.ok()) return AboutFile(file->path(), opened.status());
  absl::StatusOr<TorchScriptContents> contents = ReadTorchScript(*opened);
  if (!contents.ok()) return AboutFile(file->path(), contents.status());
  ScriptArchive checked{std::move(file), *std::move(opened), *std::move(contents)};
  checked.populate_begin = checked.file->size();
  CountRecords("constants", checked.contents.constants, checked);
  CountRecords("data", checked.contents.data, checked);
  checked.populate_begin = std::min(checked.populate_begin, checked.populate_end);
  for (const Archive::Record& record : checked.archive.records()) {
    if (record.name.starts_with("code/") && record.name.ends_with(".py")) checked.code_bytes += record.size;
  }
  return checked;
}

}  // namespace hearth
