#include "server/torch_backend/script_source.h"

#include <map>
#include <utility>

#include "server/storage/weights_file.h"
#include "server/torch_backend/weights_binder.h"

namespace hearth {
namespace {

using FilePtr = MappedFiles::FilePtr;

// What every file has mapped.
std::vector<SourceFile> FilesOf(const ScriptArchive& program, const Weights& weights) {
  std::vector<SourceFile> files = {{program.file}};
  if (program.populate_begin < program.populate_end) {
    files[0].ranges.push_back({program.populate_begin, program.populate_end});
  }
  AddFilesOf(weights, files);
  return files;
}

}  // namespace

std::uint64_t ScriptSource::weight_bytes() const {
  if (has_weights) return weights.mapped_bytes() + weights.copied_bytes();
  return program.mapped_bytes + program.copied_bytes;
}

std::uint64_t ScriptSource::copied_bytes() const { return program.copied_bytes + weights.copied_bytes(); }

std::uint64_t ScriptSource::sealed_bytes() const { return sealed ? FileBytes(files) : 0; }

std::vector<Extent> ScriptSource::extents() const {
  if (sealed) return {};
  std::vector<Extent> extents = {program.file->extent(0, program.file->size())};
  for (const SourceFile& file : files) {
    if (file.file == program.file) continue;
    for (const Extent& extent : Extents(file)) extents.push_back(extent);
  }
  return extents;
}

absl::StatusOr<ScriptSource> OpenScriptSource(const ModelSpec& spec, MappedFiles& files, bool seal,
                                              std::stop_token stop) {
  const bool sealed = spec.options.residency == Residency::kSealed;
  const OpenWeights open = Opener(files, sealed && seal, std::move(stop));
  HEARTH_ASSIGN_OR_RETURN(FilePtr file, open(spec.file));
  HEARTH_ASSIGN_OR_RETURN(ScriptArchive program, OpenScriptArchive(std::move(file)));
  HEARTH_ASSIGN_OR_RETURN(Weights weights, ReadAllWeights(spec.weights, open));
  std::vector<SourceFile> parts = FilesOf(program, weights);
  return ScriptSource{std::move(program), std::move(weights), !spec.weights.empty(), std::move(parts), sealed};
}

ScriptSource Shared(ScriptSource source, MappedFiles& files, MappedFiles::Own own) {
  if (source.sealed || source.weights.storages.empty()) return source;
  files.Share(source.weights, own);
  source.files = FilesOf(source.program, source.weights);
  return source;
}

absl::StatusOr<ScriptSource> MapAgain(const ScriptSource& source, MappedFiles* files) {
  std::map<FilePtr, FilePtr> fresh;
  for (const SourceFile& old : source.files) {
    HEARTH_ASSIGN_OR_RETURN(fresh[old.file], files != nullptr ? files->Untouched(old.file)
                                                              : old.file->MapAgain(MappedFile::Access::kOwn));
  }
  HEARTH_ASSIGN_OR_RETURN(ScriptArchive archive, OpenScriptArchive(fresh[source.program.file]));
  ScriptSource again{std::move(archive), source.weights, source.has_weights, {}, source.sealed};
  for (WeightStorage& storage : again.weights.storages) {
    storage.file = fresh[storage.file];  // what is packed is still unpacked from where it was: no tensor is there
  }
  again.files = FilesOf(again.program, again.weights);
  return again;
}

absl::StatusOr<BoundModule> BindSource(ScriptProgram& program, const ScriptSource& source, Device& device,
                                       LoadReport& report, const std::stop_token& stop) {
  HEARTH_ASSIGN_OR_RETURN(BoundModule bound, program.Bind(source.program, device, report, stop));
  if (source.has_weights) {
    report.weight_bytes = 0;  // the program's own are replaced
    HEARTH_RETURN_IF_ERROR(BindWeights(bound.module, source.weights, device, stop, report));
  }
  return bound;
}

}  // namespace hearth
