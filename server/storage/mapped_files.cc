#include "server/storage/mapped_files.h"

#include <algorithm>

namespace hearth {
namespace {

bool Usable(const MappedFile& file) { return !file.written() && file.Intact().ok(); }

bool CanBeShared(const WeightStorage& storage) {
  return storage.checksum && storage.mappable() && storage.size > 0;
}

}  // namespace

absl::StatusOr<MappedFiles::FilePtr> MappedFiles::Open(const std::filesystem::path& path) {
  // Only an open file says which one it is. To map it and to let go of that again costs microseconds.
  HEARTH_ASSIGN_OR_RETURN(FilePtr fresh, MappedFile::Open(path, after_use_));
  return Unite(std::move(fresh));
}

absl::StatusOr<MappedFiles::FilePtr> MappedFiles::Untouched(const FilePtr& file) {
  if (Usable(*file)) return file;
  HEARTH_ASSIGN_OR_RETURN(FilePtr fresh, file->MapAgain(MappedFile::Access::kShared));
  return Unite(std::move(fresh));
}

MappedFiles::FilePtr MappedFiles::Unite(FilePtr fresh) {
  FilePtr known, newer;  // outlive the locks: no mapping ends under one
  {
    MutexLock lock(mu_);
    ForgetUnmapped();
    std::weak_ptr<const MappedFile>& entry = files_[fresh->id()];
    known = entry.lock();
    if (known == nullptr) {
      entry = fresh;
      return fresh;
    }
  }
  if (Usable(*known)) return known;
  MutexLock lock(mu_);
  std::weak_ptr<const MappedFile>& entry = files_[fresh->id()];
  newer = entry.lock();
  if (newer != nullptr && newer != known) return newer;  // somebody else has just replaced it
  entry = fresh;
  return fresh;
}

void MappedFiles::Share(Weights& weights, Own own) {
  FileSet unusable, seen;
  while (true) {
    std::vector<WeightStorage> storages = weights.storages;
    FileSet taken;
    {
      MutexLock lock(mu_);
      taken = TakePlaces(storages, unusable, seen);
      if (own == Own::kOffer) OfferPlaces(storages);
    }
    const std::size_t known_unusable = unusable.size();
    for (const FilePtr& file : taken) {
      if (!Usable(*file)) unusable.insert(file);
    }
    if (unusable.size() == known_unusable) {
      weights.storages = std::move(storages);
      return;
    }
  }
}

bool MappedFiles::Distrust(const FileId& id) {
  FilePtr mapped;  // outlives the lock
  MutexLock lock(mu_);
  if (const auto known = files_.find(id); known != files_.end()) mapped = known->second.lock();
  if (mapped != nullptr) mapped->SetDamaged();
  return distrusted_.insert(id).second;
}

MappedFiles::FileSet MappedFiles::TakePlaces(std::vector<WeightStorage>& storages, const FileSet& unusable,
                                             FileSet& seen) {
  std::set<Place> spoken_for;
  for (const WeightStorage& storage : storages) {
    if (CanBeShared(storage)) spoken_for.insert({storage.file->id(), storage.offset});
  }
  FileSet taken;
  for (WeightStorage& storage : storages) {
    if (!CanBeShared(storage)) continue;
    const auto places = places_.find({*storage.checksum, storage.size});
    if (places == places_.end()) continue;
    for (const Place& place : places->second) {
      if (place == Place{storage.file->id(), storage.offset}) break;  // where others look first, too
      const auto known = files_.find(place.file);
      const FilePtr file = known == files_.end() ? nullptr : known->second.lock();
      if (file == nullptr) continue;
      seen.insert(file);
      if (file->written() || unusable.contains(file) || distrusted_.contains(place.file)) continue;
      if (!spoken_for.insert(place).second) continue;
      storage.file = file;
      storage.offset = place.offset;
      taken.insert(file);
      break;
    }
  }
  return taken;
}

void MappedFiles::OfferPlaces(const std::vector<WeightStorage>& storages) {
  ForgetUnmapped();
  for (const WeightStorage& storage : storages) {
    if (!CanBeShared(storage)) continue;
    const Place place{storage.file->id(), storage.offset};
    std::vector<Place>& places = places_[{*storage.checksum, storage.size}];
    if (std::find(places.begin(), places.end(), place) == places.end()) places.push_back(place);
  }
}

// Looks through all when there are twice as many as were worth keeping the last time.
void MappedFiles::ForgetUnmapped() {
  if (files_.size() + places_.size() < forget_at_) return;
  std::erase_if(files_, [](const auto& entry) { return entry.second.expired(); });
  for (auto& [content, places] : places_) {
    std::erase_if(places, [this](const Place& place) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
      return !files_.contains(place.file);
    });
  }
  std::erase_if(places_, [](const auto& entry) { return entry.second.empty(); });
  forget_at_ = std::max<std::size_t>(64, 2 * (files_.size() + places_.size()));
}

}  // namespace hearth
