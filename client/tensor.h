// A tensor as it travels: element type, shape and dense, little-endian, row-major bytes.
//
// Public header of the client library: depends on Abseil and the standard library only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace hearth::client {

// Element types of the Open Inference Protocol.
enum class DataType : std::uint8_t {
  kBool, kUInt8, kUInt16, kUInt32, kUInt64, kInt8, kInt16, kInt32, kInt64,
  kFp16, kBf16, kFp32, kFp64, kBytes,
};

inline constexpr std::size_t kDataTypeCount = 14;

// The protocol's spelling: "FP32", "BYTES", ...
std::string_view ToString(DataType type);
// Nothing for a name that the protocol does not know, "" included.
std::optional<DataType> ParseDataType(std::string_view name);
// Bytes per element; 0 for kBytes, whose elements have a length each.
std::size_t SizeOf(DataType type);

using Shape = std::vector<std::int64_t>;

// "[1, 512]"; a scalar is "[]".
std::string ToString(const Shape& shape);
// The product of the dimensions (1 for a scalar). Nothing when one is negative or the product does
// not fit 63 bits.
std::optional<std::uint64_t> ElementCount(const Shape& shape);

// A plain value: thread-compatible, copied and moved freely.
struct Tensor {
  DataType datatype = DataType::kFp32;
  Shape shape;
  // kBytes: each element is a four-byte little-endian length and that many bytes.
  std::string bytes;
};

struct NamedTensor {
  std::string name;
  Tensor tensor;
};

// Do the bytes hold exactly the elements that type and shape promise? Everything below checks this
// for itself; INVALID_ARGUMENT says what is wrong.
absl::Status Validate(const Tensor& tensor);

// The element type that a C++ type is sent as; vectors of anything else do not compile.
template <typename T>
constexpr DataType DataTypeOf() {
  if constexpr (std::is_same_v<T, std::uint8_t>) return DataType::kUInt8;
  else if constexpr (std::is_same_v<T, std::uint16_t>) return DataType::kUInt16;
  else if constexpr (std::is_same_v<T, std::uint32_t>) return DataType::kUInt32;
  else if constexpr (std::is_same_v<T, std::uint64_t>) return DataType::kUInt64;
  else if constexpr (std::is_same_v<T, std::int8_t>) return DataType::kInt8;
  else if constexpr (std::is_same_v<T, std::int16_t>) return DataType::kInt16;
  else if constexpr (std::is_same_v<T, std::int32_t>) return DataType::kInt32;
  else if constexpr (std::is_same_v<T, std::int64_t>) return DataType::kInt64;
  else if constexpr (std::is_same_v<T, float>) return DataType::kFp32;
  else {
    static_assert(std::is_same_v<T, double>, "no protocol type for this C++ type");
    return DataType::kFp64;
  }
}

// A tensor of `values` in row-major order. Whether they fill `shape` is checked when it is sent.
template <typename T>
Tensor MakeTensor(Shape shape, const std::vector<T>& values) {
  Tensor tensor{DataTypeOf<T>(), std::move(shape), {}};
  tensor.bytes.assign(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
  return tensor;
}
// A BYTES tensor.
Tensor MakeBytesTensor(Shape shape, const std::vector<std::string>& elements);

// The elements in row-major order. INVALID_ARGUMENT when T is not the tensor's own type: see Convert.
template <typename T>
absl::StatusOr<std::vector<T>> Values(const Tensor& tensor) {
  if (absl::Status status = Validate(tensor); !status.ok()) return status;
  if (tensor.datatype != DataTypeOf<T>()) {
    return absl::InvalidArgumentError("the tensor's element type is " +
                                      std::string(ToString(tensor.datatype)) + ", not " +
                                      std::string(ToString(DataTypeOf<T>())));
  }
  std::vector<T> values(tensor.bytes.size() / sizeof(T));
  if (!values.empty()) std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
  return values;
}
// The elements of a BYTES tensor. The views point into `tensor`.
absl::StatusOr<std::vector<std::string_view>> BytesElements(const Tensor& tensor);

// The same elements as another type. INVALID_ARGUMENT when one does not fit: a fraction or a number
// out of range for an integer type, anything but 0 and 1 for BOOL, anything from or to BYTES. Floating
// point rounds to nearest, and what is too large for the narrower type is refused, not made infinite.
absl::StatusOr<Tensor> Convert(const Tensor& tensor, DataType to);

}  // namespace hearth::client
