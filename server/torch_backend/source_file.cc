#include "server/torch_backend/source_file.h"

#include <algorithm>
#include <map>

namespace hearth {

void AddFilesOf(const Weights& weights, std::vector<SourceFile>& files) {
  const std::size_t first = files.size();
  std::map<std::shared_ptr<const MappedFile>, std::size_t> places;
  for (const WeightStorage& storage : weights.storages) {
    const auto [place, is_new] = places.try_emplace(storage.file, files.size());
    if (is_new) files.push_back({storage.file});
    if (!storage.mappable() || storage.size == 0) continue;
    SourceFile& file = files[place->second];
    file.begin = file.mapped() == 0 ? storage.offset : std::min(file.begin, storage.offset);
    file.end = std::max(file.end, storage.offset + storage.size);
  }
  for (std::size_t i = first; i < files.size(); ++i) {
    files[i].cached = files[i].file->CachedBytes(files[i].begin, files[i].mapped());
  }
}

std::uint64_t MappedBytes(const std::vector<SourceFile>& files) {
  std::uint64_t sum = 0;
  for (const SourceFile& file : files) sum += file.mapped();
  return sum;
}

std::uint64_t CachedBytes(const std::vector<SourceFile>& files) {
  std::uint64_t sum = 0;
  for (const SourceFile& file : files) sum += file.cached;
  return sum;
}

absl::Status Populate(const std::vector<SourceFile>& files, const std::stop_token& stop) {
  for (const SourceFile& file : files) {
    const bool cold = file.cached < file.mapped();
    HEARTH_RETURN_IF_ERROR(file.file->Populate(
        file.begin, file.mapped(), stop, cold ? MappedFile::ReadAhead::kYes : MappedFile::ReadAhead::kNo));
  }
  return absl::OkStatus();
}

}  // namespace hearth
