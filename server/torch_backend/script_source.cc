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

using FilePtr = MappedFiles::FilePtr;

constexpr std::uint64_t kPage = 4096;

// Sorted; those that meet, or are less than a page apart, as one.
std::vector<ByteRange> Joined(std::vector<ByteRange> ranges) {
  std::sort(ranges.begin(), ranges.end(), [](const ByteRange& a, const ByteRange& b) { return a.begin < b.begin; });
  std::vector<ByteRange> joined;
  for (const ByteRange& range : ranges) {
    if (!joined.empty() && range.begin < joined.back().end + kPage) {
      joined.back().end = std::max(joined.back().end, range.end);
    } else {
      joined.push_back(range);
    }
  }
  return joined;
}

// What every file has mapped.
std::vector<SourceFile> FilesOf(const ScriptArchive& program, const Weights& weights) {
  std::vector<SourceFile> files = {{program.file}};
  if (program.populate_begin < program.populate_end) {
    files[0].ranges.push_back({program.populate_begin, program.populate_end});
  }
  std::map<FilePtr, std::size_t> places;
  for (const WeightStorage& storage : weights.storages) {
    const auto [place, is_new] = places.try_emplace(storage.file, files.size());
    if (is_new) files.push_back({storage.file});
    if (!storage.mappable() || storage.size == 0) continue;
    files[place->second].ranges.push_back({storage.offset, storage.offset + storage.size});
  }
  for (SourceFile& file : files) file.ranges = Joined(std::move(file.ranges));
  return files;
}

std::uint64_t SizeOf(const std::vector<ByteRange>& ranges) {
  std::uint64_t sum = 0;
  for (const ByteRange& range : ranges) sum += range.size();
  return sum;
}

absl::StatusOr<Weights> OpenWeights(const std::vector<std::filesystem::path>& named, MappedFiles& mapped) {
  std::vector<std::filesystem::path> files;
  for (const std::filesystem::path& path : named) {
    HEARTH_ASSIGN_OR_RETURN(const std::vector<std::filesystem::path> shards, WeightFiles(path));
    files.insert(files.end(), shards.begin(), shards.end());
  }
  std::vector<Weights> shards(files.size());
  HEARTH_RETURN_IF_ERROR(
      ParallelFor(files.size(), std::thread::hardware_concurrency(), [&](std::size_t i) -> absl::Status {
        HEARTH_ASSIGN_OR_RETURN(const FilePtr file, mapped.Open(files[i]));
        HEARTH_ASSIGN_OR_RETURN(shards[i], ReadWeights(file));
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
  std::uint64_t sum = 0;
  for (const SourceFile& file : files) sum += SizeOf(file.ranges);
  return sum;
}

std::vector<Extent> ScriptSource::extents() const {
  std::vector<Extent> extents = {program.file->extent(0, program.file->size())};
  for (const SourceFile& file : files) {
    if (file.file == program.file) continue;
    for (const ByteRange& range : file.ranges) extents.push_back(file.file->extent(range.begin, range.size()));
  }
  return extents;
}

absl::Status ScriptSource::Intact() const {
  for (const SourceFile& file : files) HEARTH_RETURN_IF_ERROR(file.file->Intact());
  return absl::OkStatus();
}

bool ScriptSource::written() const {
  return std::any_of(files.begin(), files.end(), [](const SourceFile& file) { return file.file->written(); });
}

absl::StatusOr<ScriptSource> OpenScriptSource(const ModelSpec& spec, MappedFiles& files, MappedFiles::Own own) {
  HEARTH_ASSIGN_OR_RETURN(FilePtr file, files.Open(spec.file));
  HEARTH_ASSIGN_OR_RETURN(ScriptArchive program, OpenScriptArchive(std::move(file)));
  HEARTH_ASSIGN_OR_RETURN(Weights weights, OpenWeights(spec.weights, files));
  files.Share(weights, own);
  std::vector<SourceFile> parts = FilesOf(program, weights);
  return ScriptSource{std::move(program), std::move(weights), std::move(parts)};
}

absl::StatusOr<ScriptSource> MapAgain(const ScriptSource& source, MappedFiles* files) {
  std::map<FilePtr, FilePtr> fresh;
  for (const SourceFile& old : source.files) {
    HEARTH_ASSIGN_OR_RETURN(fresh[old.file], files != nullptr ? files->Untouched(old.file)
                                                              : old.file->MapAgain(MappedFile::Access::kOwn));
  }
  HEARTH_ASSIGN_OR_RETURN(ScriptArchive archive, OpenScriptArchive(fresh[source.program.file]));
  ScriptSource again{std::move(archive), source.weights, {}};
  for (WeightStorage& storage : again.weights.storages) {
    storage.file = fresh[storage.file];  // what is packed is still unpacked from where it was: no tensor is there
  }
  again.files = FilesOf(again.program, again.weights);
  return again;
}

SourceUse::SourceUse(const ScriptSource& source) {
  for (const SourceFile& file : source.files) {
    const MappedFile::Use& part = parts_.emplace_back(file.file, file.ranges);
    for (const ByteRange& range : part.first()) {
      first_bytes_ += range.size();
      cached_bytes_ += file.file->CachedBytes(range.begin, range.size());
    }
  }
  shared_bytes_ = source.mapped_bytes() - first_bytes_;
  cached_bytes_ += shared_bytes_;
}

absl::Status SourceUse::Populate(const std::stop_token& stop) const {
  const auto ahead = cached_bytes_ < first_bytes_ + shared_bytes_ ? MappedFile::ReadAhead::kYes
                                                                  : MappedFile::ReadAhead::kNo;
  for (const MappedFile::Use& part : parts_) {
    for (const ByteRange& range : part.first()) {
      HEARTH_RETURN_IF_ERROR(part.file().Populate(range.begin, range.size(), stop, ahead));
    }
  }
  return absl::OkStatus();
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

}  // namespace hearth
