// Any text as what hearth-hdf5-list says, up to the first zero byte, and what follows as the file that it
// speaks of. Whatever passes lies inside that file and unpacks into exactly its size, or fails to.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "server/storage/hdf5.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  constexpr std::uint64_t kMaxUnpacked = 1 << 20;
  const auto length = static_cast<std::size_t>(std::find(data, data + size, 0) - data);
  const std::size_t begin = std::min(length + 1, size);
  const std::span file(reinterpret_cast<const std::byte*>(data) + begin, size - begin);
  const auto weights =
      hearth::hdf5_internal::ParseListing({reinterpret_cast<const char*>(data), length}, file);
  if (!weights.ok()) return 0;
  for (const hearth::WeightTensor& tensor : weights->tensors) {
    const hearth::WeightStorage& storage = weights->storages[tensor.storage];
    std::uint64_t bytes = tensor.type->size;
    for (const std::int64_t dimension : tensor.sizes) bytes *= static_cast<std::uint64_t>(dimension);
    if (bytes != storage.size) std::abort();
    if (!storage.unpack) {
      if (storage.offset > file.size() || storage.size > file.size() - storage.offset) std::abort();
    } else if (storage.size <= kMaxUnpacked) {
      std::vector<std::byte> out(storage.size);
      (void)UnpackAll(storage, out);
    }
  }
  return 0;
}
