// Element types of the Open Inference Protocol.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace hearth {

// kUnknown: a program's schema says "Tensor" and nobody has said more; accepts any of the others.
enum class DType : std::uint8_t {
  kUnknown,
  kBool,
  kUInt8,
  kUInt16,
  kUInt32,
  kUInt64,
  kInt8,
  kInt16,
  kInt32,
  kInt64,
  kFp16,
  kBf16,
  kFp32,
  kFp64,
  kBytes,
};

inline constexpr std::size_t kDTypeCount = 15;

// The protocol's spelling. kUnknown is the empty string.
constexpr std::string_view ToString(DType dtype) {
  constexpr std::array<std::string_view, kDTypeCount> kNames = {
      "",      "BOOL",  "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16",
      "INT32", "INT64", "FP16",  "BF16",   "FP32",   "FP64",   "BYTES"};
  return kNames[static_cast<std::size_t>(dtype)];
}

// Nothing for a name that is not one of the protocol's.
constexpr std::optional<DType> ParseDType(std::string_view name) {
  for (std::size_t i = 1; i < kDTypeCount; ++i) {
    if (ToString(static_cast<DType>(i)) == name) return static_cast<DType>(i);
  }
  return std::nullopt;
}

// Bytes per element; 0 for kBytes (each element has a length of its own) and kUnknown.
constexpr std::size_t SizeOf(DType dtype) {
  constexpr std::array<std::size_t, kDTypeCount> kSizes = {0, 1, 1, 2, 4, 8, 1, 2,
                                                           4, 8, 2, 2, 4, 8, 0};
  return kSizes[static_cast<std::size_t>(dtype)];
}

}  // namespace hearth
