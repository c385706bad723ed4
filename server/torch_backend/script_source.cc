#include "server/torch_backend/script_source.h"

#include <algorithm>
#include <map>
#include <thread>
#include <utility>

#include "server/base/parallel.h"
#include "server/storage/weights_file.h"
#include "server/torch_backend/weights_binder.h"

namespace hearth {
namespace {

using FilePtr = std::shared_ptr<const MappedFile>;

// The part of each file that holds mapped weights.
struct Range {
  std::uint64_t begin = 0, end = 0;
};
std::map<FilePtr, Range> MappedRanges(const Weights& weights) {
  std::map<FilePtr, Range> ranges;
  for (const WeightStorage& storage : weights.storages) {
    if (!storage.mappable() || storage.size == 0) continue;
    const auto [at, is_new] = ranges.try_emplace(storage.file, Range{storage.offset, 0});
    at->second.begin = std::min(at->second.begin, storage.offset);
    at->second.end = std::max(at->second.end, storage.offset + storage.size);
  }
  return ranges;
}

std::vector<FilePtr> FilesOf(const Weights& weights) {
  std::vector<FilePtr> files;
  for (const WeightStorage& storage : weights.storages) files.push_back(storage.file);
  std::sort(files.begin(), files.end());
  files.erase(std::unique(files.begin(), files.end()), files.end());
  return files;
}

absl::StatusOr<Weights> OpenWeights(const std::vector<std::filesystem::path>& named) {
  std::vector<std::filesystem::path> files;
  for (const std::filesystem::path& path : named) {
    HEARTH_ASSIGN_OR_RETURN(const std::vector<std::filesystem::path> shards, WeightFiles(path));
    files.insert(files.end(), shards.begin(), shards.end());
  }
  std::vector<Weights> shards(files.size());
  HEARTH_RETURN_IF_ERROR(
      ParallelFor(files.size(), std::thread::hardware_concurrency(), [&](std::size_t i) -> absl::Status {
        HEARTH_ASSIGN_OR_RETURN(shards[i], ReadWeights(files[i]));
        return absl::OkStatus();
      }));
  return JoinWeights(std::move(shards));
}

}  // namespace

std::uint64_t ScriptSource::weight_bytes() const {
  if (has_weights()) return weights.mapped_bytes() + weights.copied_bytes();
  return program.mapped_bytes + program.copied_bytes;
}

std::uint64_t ScriptSource::copied_bytes() const { return program.copied_bytes + weights.copied_bytes(); }

std::uint64_t ScriptSource::mapped_bytes() const {
  std::uint64_t sum = program.populate_end - program.populate_begin;
  for (const auto& [file, range] : MappedRanges(weights)) sum += range.end - range.begin;
  return sum;
}

std::uint64_t ScriptSource::CachedBytes() const {
  std::uint64_t sum =
      program.file->CachedBytes(program.populate_begin, program.populate_end - program.populate_begin);
  for (const auto& [file, range] : MappedRanges(weights)) {
    sum += file->CachedBytes(range.begin, range.end - range.begin);
  }
  return sum;
}

std::vector<Extent> ScriptSource::extents() const {
  std::vector<Extent> extents = {program.file->extent(0, program.file->size())};
  for (const auto& [file, range] : MappedRanges(weights)) {
    extents.push_back(file->extent(range.begin, range.end - range.begin));
  }
  return extents;
}

absl::Status ScriptSource::Intact() const {
  HEARTH_RETURN_IF_ERROR(program.file->Intact());
  for (const FilePtr& file : weight_files) HEARTH_RETURN_IF_ERROR(file->Intact());
  return absl::OkStatus();
}

absl::StatusOr<ScriptSource> OpenScriptSource(const ModelSpec& spec) {
  HEARTH_ASSIGN_OR_RETURN(ScriptArchive program, OpenScriptArchive(spec.file));
  HEARTH_ASSIGN_OR_RETURN(Weights weights, OpenWeights(spec.weights));
  std::vector<FilePtr> files = FilesOf(weights);
  return ScriptSource{std::move(program), std::move(weights), std::move(files)};
}

absl::StatusOr<ScriptSource> MapAgain(const ScriptSource& source) {
  HEARTH_ASSIGN_OR_RETURN(FilePtr program, source.program.file->MapAgain());
  HEARTH_ASSIGN_OR_RETURN(ScriptArchive archive, OpenScriptArchive(std::move(program)));
  ScriptSource again{std::move(archive), source.weights};
  std::map<FilePtr, FilePtr> fresh;
  for (WeightStorage& storage : again.weights.storages) {
    if (storage.unpack) continue;  // is unpacked anew from pages that nobody writes to
    FilePtr& file = fresh[storage.file];
    if (file == nullptr) {
      HEARTH_ASSIGN_OR_RETURN(file, storage.file->MapAgain());
    }
    storage.file = file;
  }
  again.weight_files = FilesOf(again.weights);
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
  const ScriptArchive& program = source.program;
  HEARTH_RETURN_IF_ERROR(program.file->Populate(program.populate_begin,
                                                program.populate_end - program.populate_begin, stop));
  for (const auto& [file, range] : MappedRanges(source.weights)) {
    HEARTH_RETURN_IF_ERROR(file->Populate(range.begin, range.end - range.begin, stop));
  }
  return absl::OkStatus();
}

}  // namespace hearth
