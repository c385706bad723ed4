#include "server/tensor/tensor.h"

#include <cstring>
#include <limits>

#include "server/base/check.h"

namespace hearth {

std::string ToString(const Shape& shape) {
  std::string out = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) {
    if (i > 0) out += ',';
    out += std::to_string(shape[i]);
  }
  return out + "]";
}

std::optional<std::int64_t> ElementCount(const Shape& shape) {
  // A zero anywhere makes the tensor empty, but the other dimensions must still be sane.
  std::int64_t count = 1;
  bool empty = false;
  for (const std::int64_t dim : shape) {
    if (dim < 0) return std::nullopt;
    if (dim == 0) {
      empty = true;
    } else if (__builtin_mul_overflow(count, dim, &count)) {
      return std::nullopt;
    }
  }
  return empty ? 0 : count;
}

std::optional<std::size_t> ByteSize(DType dtype, const Shape& shape) {
  const auto count = ElementCount(shape);
  const std::size_t size = SizeOf(dtype);
  std::size_t bytes = 0;
  if (!count || size == 0 ||
      __builtin_mul_overflow(static_cast<std::size_t>(*count), size, &bytes)) {
    return std::nullopt;
  }
  return bytes;
}

const Tensor* Find(const TensorList& tensors, std::string_view name) {
  for (const NamedTensor& named : tensors) {
    if (named.name == name) return &named.tensor;
  }
  return nullptr;
}

absl::StatusOr<std::vector<std::string_view>> UnpackBytes(const Tensor& tensor) {
  const auto expected = ElementCount(tensor.shape);
  if (!expected) return absl::InvalidArgumentError(StrCat("bad shape ", ToString(tensor.shape)));
  std::vector<std::string_view> elements;
  const char* at = reinterpret_cast<const char*>(tensor.data.data());
  std::size_t left = tensor.data.size();
  while (left > 0) {
    std::uint32_t length = 0;
    if (left < sizeof length) {
      return absl::InvalidArgumentError(
          StrCat("incomplete string length indicator: ", left, " bytes left, expected 4"));
    }
    std::memcpy(&length, at, sizeof length);
    at += sizeof length;
    left -= sizeof length;
    if (length > left) {
      return absl::InvalidArgumentError(
          StrCat("incomplete string data: expected ", length, " bytes, ", left, " are left"));
    }
    elements.emplace_back(at, length);
    at += length;
    left -= length;
    if (elements.size() > static_cast<std::size_t>(*expected)) {
      return absl::InvalidArgumentError(StrCat("unexpected number of string elements ",
                                               elements.size(), ", expecting ", *expected));
    }
  }
  if (elements.size() != static_cast<std::size_t>(*expected)) {
    return absl::InvalidArgumentError(
        StrCat("expected ", *expected, " string elements, got ", elements.size()));
  }
  return elements;
}

Tensor PackBytes(std::span<const std::string_view> elements, Shape shape) {
  HEARTH_CHECK(ElementCount(shape) == static_cast<std::int64_t>(elements.size()));
  std::size_t total = 0;
  for (const auto element : elements) total += sizeof(std::uint32_t) + element.size();
  auto storage = std::make_shared<std::vector<std::byte>>(total);
  std::byte* at = storage->data();
  for (const auto element : elements) {
    HEARTH_CHECK(element.size() <= std::numeric_limits<std::uint32_t>::max());
    const auto length = static_cast<std::uint32_t>(element.size());
    std::memcpy(at, &length, sizeof length);
    at += sizeof length;
    if (!element.empty()) std::memcpy(at, element.data(), element.size());
    at += element.size();
  }
  const std::span<const std::byte> data(*storage);
  return {DType::kBytes, std::move(shape), data, std::move(storage)};
}

}  // namespace hearth
