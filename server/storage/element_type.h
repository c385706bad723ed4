// Element types as PyTorch names them in its files.
#pragma once

#include <cstdint>
#include <string_view>

#include "server/tensor/dtype.h"

namespace hearth {

struct ElementType {
  std::string_view name;          // "Float", "QInt8"
  std::uint32_t size = 0;         // bytes per element
  DType dtype = DType::kUnknown;  // kUnknown: the protocol has no such type
  bool quantized = false;
};

// By the name of its storage class: "FloatStorage". Null: unknown. The result lives for ever.
const ElementType* FindStorageType(std::string_view class_name);

}  // namespace hearth
