// Any bytes as a data.pkl. Whatever passes must keep what the walker promises.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "server/storage/pickle_walker.h"

namespace {

void Walk(const std::uint8_t* data, std::size_t size, hearth::PickleDialect dialect,
          hearth::TensorNames names = hearth::TensorNames::kNo) {
  constexpr std::uint64_t kRecord = 4096;
  const auto summary = hearth::WalkPickle({reinterpret_cast<const std::byte*>(data), size},
                                          [](std::string_view) { return kRecord; }, {}, dialect, names);
  if (!summary.ok()) return;
  for (const hearth::StateDictItem& item : summary->state_dict) {
    if (item.tensor >= summary->tensors.size()) std::abort();
  }
  for (const hearth::PickledStorage& storage : summary->storages) {
    if (storage.bytes() > kRecord) std::abort();
  }
  for (const hearth::PickledTensor& tensor : summary->tensors) {
    std::uint64_t last = static_cast<std::uint64_t>(tensor.offset);
    bool empty = false;
    for (std::size_t i = 0; i < tensor.sizes.size(); ++i) {
      if (tensor.sizes[i] == 0)
        empty = true;
      else
        last += static_cast<std::uint64_t>(tensor.sizes[i] - 1) *
                static_cast<std::uint64_t>(tensor.strides[i]);
    }
    if (!empty && last >= summary->storages[tensor.storage].bytes() / tensor.type->size) std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Walk(data, size, hearth::PickleDialect::kTorchScript, hearth::TensorNames::kYes);
  Walk(data, size, hearth::PickleDialect::kTorchSave);
  return 0;
}
