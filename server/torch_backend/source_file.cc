#include "server/torch_backend/source_file.h"

#include <algorithm>
#include <map>
#include <system_error>
#include <utility>

#include "server/base/log.h"
#include "server/model/phase_timer.h"

namespace hearth {
namespace {

constexpr std::uint64_t kPage = 4096;

// While pages come, whoever else maps or allocates waits for the process's memory map. For more than this that costs a
// load more than it gains beside a program's parsing.
constexpr std::uint64_t kAheadAtMost = 32ULL << 20;

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

std::uint64_t FileBytes(const std::vector<SourceFile>& files) {
  std::uint64_t sum = 0;
  for (const SourceFile& file : files) sum += file.file->size();
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

bool AnyIs(const std::vector<SourceFile>& files, const FileId& id) {
  return std::any_of(files.begin(), files.end(), [&](const SourceFile& file) { return file.file->id() == id; });
}

bool AsOpened(const std::vector<SourceFile>& files) {
  return !Written(files) && std::all_of(files.begin(), files.end(),
                                        [](const SourceFile& file) { return file.file->Unchanged().ok(); });
}

SourceUse::SourceUse(const std::vector<SourceFile>& files) {
  std::uint64_t coming = 0;
  for (const SourceFile& file : files) {
    const MappedFile::Use& part = parts_.emplace_back(file.file, file.ranges);
    coming += file.file->TakeSoon();
    for (const ByteRange& range : part.first()) {
      first_bytes_ += range.size();
      cached_bytes_ += file.file->CachedBytes(range.begin, range.size());
    }
  }
  cached_bytes_ -= std::min(cached_bytes_, coming);
  shared_bytes_ = MappedBytes(files) - first_bytes_;
  cached_bytes_ += shared_bytes_;
}

void SourceUse::Report(bool sealed, LoadReport& report) const {
  report.mapped_bytes = sealed ? 0 : first_bytes_ + shared_bytes_;
  report.cached_bytes = sealed ? 0 : cached_bytes_;
  report.shared_bytes = sealed ? 0 : shared_bytes_;
}

SourceUse::FirstPages SourceUse::first_pages() const {
  FirstPages pages;
  pages.cold_ = cold();
  for (const MappedFile::Use& part : parts_) {
    for (const ByteRange& range : part.first()) pages.ranges_.emplace_back(&part.file(), range);
  }
  return pages;
}

absl::Status SourceUse::FirstPages::Populate(const std::stop_token& stop) const {
  std::vector<ReadAhead::Part> all;
  for (const auto& [file, range] : ranges_) all.push_back({file->descriptor(), range});
  ReadAhead ahead(std::move(all));
  for (const auto& [file, range] : ranges_) {
    HEARTH_RETURN_IF_ERROR(file->Populate(range.begin, range.size(), stop, cold_ ? &ahead : nullptr));
  }
  return absl::OkStatus();
}

void SourceUse::Lock() {
  for (MappedFile::Use& part : parts_) {
    const absl::Status locked = part.Lock();
    if (locked.ok()) continue;
    for (MappedFile::Use& other : parts_) other.Unlock();
    log::Warning("residency: locked is not possible; served as populated", {{"error", FromAbsl(locked.message())}});
    return;
  }
  locked_ = true;
}

absl::StatusOr<std::unique_ptr<const Rest::Pages>> HoldPages(const std::vector<SourceFile>& files,
                                                             const std::stop_token& stop) {
  class Held final : public Rest::Pages {
   public:
    explicit Held(const std::vector<SourceFile>& of) : use(of) {}
    const SourceUse use;
  };
  auto held = std::make_unique<const Held>(files);
  HEARTH_RETURN_IF_ERROR(held->use.first_pages().Populate(stop));
  return held;
}

PagesAhead::PagesAhead(const SourceUse& use, Which which, const std::stop_token& stop)
    : load_stopped_(stop, [this] { stop_.request_stop(); }) {
  if (which == Which::kNone || (which == Which::kCold && !use.cold())) return;
  pages_ = use.first_pages();
  is_left_ = which == Which::kAll && use.first_bytes() > kAheadAtMost;
  if (is_left_) return;
  try {
    // What goes wrong with a file that is copied shows where that is done.
    thread_ = std::jthread([this] { status_ = Populate(); });
  } catch (const std::system_error&) {
    is_left_ = which == Which::kAll;
  }
}

absl::Status PagesAhead::Wait() {
  if (thread_.joinable()) thread_.join();
  return is_left_ ? Populate() : status_;
}

Residency ResidencyOf(const ModelOptions& options, bool populate) {
  return options.residency.value_or(populate ? Residency::kPopulated : Residency::kMapped);
}

std::vector<MappedFiles::FilePtr> BeginReading(const ModelSpec& spec, bool populate, MappedFiles& files) {
  std::vector<MappedFiles::FilePtr> begun;
  const Residency residency = ResidencyOf(spec.options, populate);
  if (residency != Residency::kPopulated && residency != Residency::kLocked) return begun;
  for (const std::filesystem::path& path : spec.weights) {
    if (path.extension() == ".json") continue;  // an index
    absl::StatusOr<MappedFiles::FilePtr> file = files.Open(path);
    if (!file.ok()) continue;
    (*file)->ReadSoon();
    begun.push_back(*std::move(file));
  }
  return begun;
}

OpenWeights Opener(MappedFiles& files, bool sealed, std::stop_token stop) {
  if (!sealed) return [&files](const std::filesystem::path& path) { return files.Open(path); };
  return [stop = std::move(stop)](const std::filesystem::path& path) { return MappedFile::OpenSealed(path, stop); };
}

absl::Status MakeResident(SourceUse& use, PagesAhead& pages, Residency residency, LoadReport& report) {
  if (residency == Residency::kMapped) return absl::OkStatus();
  {
    PhaseTimer timer(report, LoadPhase::kPopulate);
    timer.AddBytes(use.first_bytes());
    HEARTH_RETURN_IF_ERROR(pages.Wait());
  }
  if (residency != Residency::kLocked) return absl::OkStatus();
  use.Lock();
  if (use.locked()) report.locked_bytes = use.first_bytes() + use.shared_bytes();
  return absl::OkStatus();
}

}  // namespace hearth
