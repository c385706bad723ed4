#include "server/torch_backend/source_file.h"

#include <algorithm>
#include <map>

namespace hearth {
namespace {

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

}  // namespace

std::uint64_t SourceFile::mapped() const {
  std::uint64_t sum = 0;
  for (const ByteRange& range : ranges) sum += range.size();
  return sum;
}

void AddFilesOf(const Weights& weights, std::vector<SourceFile>& files) {
  const std::size_t first = files.size();
  std::map<std::shared_ptr<const MappedFile>, std::size_t> places;
  for (const WeightStorage& storage : weights.storages) {
    const auto [place, is_new] = places.try_emplace(storage.file, files.size());
    if (is_new) files.push_back({storage.file});
    if (!storage.mappable() || storage.size == 0) continue;
    files[place->second].ranges.push_back({storage.offset, storage.offset + storage.size});
  }
  for (std::size_t i = first; i < files.size(); ++i) files[i].ranges = Joined(std::move(files[i].ranges));
}

std::uint64_t MappedBytes(const std::vector<SourceFile>& files) {
  std::uint64_t sum = 0;
  for (const SourceFile& file : files) sum += file.mapped();
  return sum;
}

std::vector<Extent> Extents(const SourceFile& file) {
  std::vector<Extent> extents;
  for (const ByteRange& range : file.ranges) extents.push_back(file.file->extent(range.begin, range.size()));
  return extents;
}

absl::Status Intact(const std::vector<SourceFile>& files) {
  for (const SourceFile& file : files) HEARTH_RETURN_IF_ERROR(file.file->Intact());
  return absl::OkStatus();
}

bool Written(const std::vector<SourceFile>& files) {
  return std::any_of(files.begin(), files.end(), [](const SourceFile& file) { return file.file->written(); });
}

SourceUse::SourceUse(const std::vector<SourceFile>& files) {
  for (const SourceFile& file : files) {
    const MappedFile::Use& part = parts_.emplace_back(file.file, file.ranges);
    for (const ByteRange& range : part.first()) {
      first_bytes_ += range.size();
      cached_bytes_ += file.file->CachedBytes(range.begin, range.size());
    }
  }
  shared_bytes_ = MappedBytes(files) - first_bytes_;
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

}  // namespace hearth
