// Any bytes as a safetensors file and as an index of shards. Whatever passes lies inside the file and
// names no other folder.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "server/storage/safetensors.h"
#include "server/storage/weights_file.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto weights =
      hearth::safetensors_internal::Parse({reinterpret_cast<const std::byte*>(data), size});
  if (weights.ok()) {
    for (const hearth::WeightTensor& tensor : weights->tensors) {
      const hearth::WeightStorage& storage = weights->storages[tensor.storage];
      if (storage.offset > size || storage.size > size - storage.offset) std::abort();
      std::uint64_t bytes = tensor.type->size;
      for (const std::int64_t dimension : tensor.sizes) bytes *= static_cast<std::uint64_t>(dimension);
      if (bytes != storage.size) std::abort();
    }
  }
  const auto names =
      hearth::weights_internal::ParseIndex({reinterpret_cast<const char*>(data), size});
  if (names.ok()) {
    for (const std::string& name : *names) {
      if (name.find('/') != std::string::npos || name.starts_with('.')) std::abort();
    }
  }
  return 0;
}
