#include "server/torch_backend/script_source.h"

#include <map>
#include <utility>

#include "server/storage/weights_file.h"
#include "server/torch_backend/weights_binder.h"

namespace hearth {
namespace {

using FilePtr = std::shared_ptr<const MappedFile>;

// What every file has mapped.
std::vector<SourceFile> FilesOf(const ScriptArchive& program, const Weights& weights) {
  std::vector<SourceFile> files = {{program.file, program.populate_begin, program.populate_end}};
  files.front().cached = program.file->CachedBytes(program.populate_begin, files.front().mapped());
  AddFilesOf(weights, files);
  return files;
}

}  // namespace

std::uint64_t ScriptSource::weight_bytes() const {
  if (has_weights()) return weights.mapped_bytes() + weights.copied_bytes();
  return program.mapped_bytes + program.copied_bytes;
}

std::uint64_t ScriptSource::copied_bytes() const { return program.copied_bytes + weights.copied_bytes(); }

std::uint64_t ScriptSource::mapped_bytes() const {
  return MappedBytes(files);
}

std::uint64_t ScriptSource::cached_bytes() const {
  return CachedBytes(files);
}

std::vector<Extent> ScriptSource::extents() const {
  std::vector<Extent> extents = {program.file->extent(0, program.file->size())};
  for (const SourceFile& file : files) {
    if (file.file != program.file && file.mapped() > 0) {
      extents.push_back(file.file->extent(file.begin, file.mapped()));
    }
  }
  return extents;
}

absl::Status ScriptSource::Intact() const {
  for (const SourceFile& file : files) HEARTH_RETURN_IF_ERROR(file.file->Intact());
  return absl::OkStatus();
}

absl::StatusOr<ScriptSource> OpenScriptSource(const ModelSpec& spec) {
  HEARTH_ASSIGN_OR_RETURN(ScriptArchive program, OpenScriptArchive(spec.file));
  HEARTH_ASSIGN_OR_RETURN(Weights weights, ReadAllWeights(spec.weights));
  std::vector<SourceFile> files = FilesOf(program, weights);
  return ScriptSource{std::move(program), std::move(weights), std::move(files)};
}

absl::StatusOr<ScriptSource> MapAgain(const ScriptSource& source) {
  HEARTH_ASSIGN_OR_RETURN(FilePtr program, source.program.file->MapAgain());
  HEARTH_ASSIGN_OR_RETURN(ScriptArchive archive, OpenScriptArchive(std::move(program)));
  ScriptSource again{std::move(archive), source.weights, {}};
  std::map<FilePtr, FilePtr> fresh;
  for (WeightStorage& storage : again.weights.storages) {
    if (storage.unpack) continue;  // is unpacked anew from pages that nobody writes to
    FilePtr& file = fresh[storage.file];
    if (file == nullptr) {
      HEARTH_ASSIGN_OR_RETURN(file, storage.file->MapAgain());
    }
    storage.file = file;
  }
  again.files = FilesOf(again.program, again.weights);
  return again;
}

absl::StatusOr<BoundModule> BindSource(ScriptProgram& program, const ScriptSource& source,
                                       LoadReport& report) {
  HEARTH_ASSIGN_OR_RETURN(BoundModule bound, program.Bind(source.program, report));
  if (source.has_weights()) {
    report.weight_bytes = 0;  // the program's own are replaced
    HEARTH_RETURN_IF_ERROR(BindWeights(bound.module, source.weights, report));
  }
  return bound;
}

absl::Status Populate(const ScriptSource& source, const std::stop_token& stop) {
  return Populate(source.files, stop);
}

}  // namespace hearth
