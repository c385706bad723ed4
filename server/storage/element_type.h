// Element types as PyTorch and safetensors name them in their files.
#pragma once

#include <cstdint>
#include <string_view>

#include "server/tensor/dtype.h"

namespace hearth {

struct ElementType {
  std::string_view name;          // "Float", "QInt8"
  std::uint32_t size = 0;         // bytes per element
  std::string_view torch;         // "float32"; empty: torch.save has it only as a storage class
  std::string_view safetensors;   // "F32"; empty: safetensors has no such type
  DType dtype = DType::kUnknown;  // kUnknown: the protocol has no such type
  bool quantized = false;
};

// By the name of its storage class: "FloatStorage". Null: unknown. The result lives for ever.
const ElementType* FindStorageType(std::string_view class_name);
// By torch's name, "float32", or that of safetensors, "F32".
const ElementType* FindTorchType(std::string_view name);
const ElementType* FindSafetensorsType(std::string_view name);

}  // namespace hearth
