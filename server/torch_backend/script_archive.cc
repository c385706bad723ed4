#include "server/torch_backend/script_archive.h"

#include <algorithm>
#include <utility>

#include "server/storage/weights.h"

namespace hearth {
namespace {

// Adds up the records that the storages of one pickle live in.
void CountRecords(std::string_view folder, const PickleSummary& pickle, ScriptArchive& script) {
  for (const PickledStorage& storage : pickle.storages) {
    const Archive::Record* record = script.archive.Find(StrCat(folder, "/", storage.key));
    if (record == nullptr || record->size == 0) continue;
    if (CanMap(*record)) {
      script.mapped_bytes += record->size;
      script.populate_begin = std::min(script.populate_begin, record->data_offset);
      script.populate_end = std::max(script.populate_end, record->data_offset + record->size);
    } else {
      script.copied_bytes += record->size;
    }
  }
}

// storage/ words its refusals as sentences that begin with the file.
absl::Status About(const std::string& file, const absl::Status& status) {
  return absl::Status(status.code(), StrCat("'", file, "' ", FromAbsl(status.message())));
}

}  // namespace

bool CanMap(const Archive::Record& record) {
  return record.method == Archive::Method::kStored && record.data_offset % kWeightAlignment == 0;
}

absl::StatusOr<ScriptArchive> OpenScriptArchive(const std::filesystem::path& path) {
  HEARTH_ASSIGN_OR_RETURN(std::shared_ptr<const MappedFile> file, MappedFile::Open(path));
  return OpenScriptArchive(std::move(file));
}

absl::StatusOr<ScriptArchive> OpenScriptArchive(std::shared_ptr<const MappedFile> file) {
  const std::string name = ShortName(file->path());
  absl::StatusOr<Archive> opened = Archive::Open(file->bytes());
  if (!opened.ok()) return About(name, opened.status());
  absl::StatusOr<TorchScriptContents> contents = ReadTorchScript(*opened);
  if (!contents.ok()) return About(name, contents.status());
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
