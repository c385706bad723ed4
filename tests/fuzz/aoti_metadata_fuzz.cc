// Any text as the metadata of an AOTInductor package. Whatever passes has a name, or none, for each
// dimension of each tensor.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "server/storage/aoti_metadata.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto metadata = hearth::ParseAotiMetadata({reinterpret_cast<const char*>(data), size});
  if (!metadata.ok()) return 0;
  for (const auto* tensors : {&metadata->inputs, &metadata->outputs}) {
    for (const hearth::AotiTensor& tensor : *tensors) {
      if (!tensor.info.shape || tensor.info.shape->size() != tensor.dimensions.size()) std::abort();
      for (const std::int64_t dimension : *tensor.info.shape) {
        if (dimension < -1) std::abort();
      }
    }
  }
  return 0;
}
