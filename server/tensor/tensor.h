// A tensor as the server passes it around: type, shape, and bytes with an owner. No arithmetic.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "server/base/status.h"
#include "server/tensor/dtype.h"

namespace hearth {

using Shape = std::vector<std::int64_t>;  // -1 in a signature: any size

std::string ToString(const Shape& shape);  // "[-1,16]", as Triton prints it

// The product of the dimensions (1 for a scalar); nothing when a dimension is negative or the
// product does not fit into an int64.
std::optional<std::int64_t> ElementCount(const Shape& shape);

// Bytes of a dense tensor; nothing on overflow or for kBytes and kUnknown.
std::optional<std::size_t> ByteSize(DType dtype, const Shape& shape);

// Contiguous, row-major, little-endian. `owner` keeps `data` alive and may be anything: a pooled
// buffer, an at::Tensor, a mapped file. Immutable by convention: whoever made the bytes may still
// be reading them.
//
// kBytes: each element is a 4-byte little-endian length and that many bytes, one after the other,
// which is also how it travels.
struct Tensor {
  DType dtype = DType::kUnknown;
  Shape shape;
  std::span<const std::byte> data;
  std::shared_ptr<const void> owner;
};

struct NamedTensor {
  std::string name;
  Tensor tensor;
};

// A handful of tensors in a fixed order, found by a linear walk.
using TensorList = std::vector<NamedTensor>;

const Tensor* Find(const TensorList& tensors, std::string_view name);

// BYTES elements out of their wire form. Views into `tensor.data`.
// INVALID_ARGUMENT when lengths and bytes do not add up or the count is not ElementCount(shape).
absl::StatusOr<std::vector<std::string_view>> UnpackBytes(const Tensor& tensor);

// And back: an owning kBytes tensor. REQUIRES: elements.size() == ElementCount(shape).
Tensor PackBytes(std::span<const std::string_view> elements, Shape shape);

}  // namespace hearth
