#include "client/tensor.h"

#include <array>
#include <bit>

#include "client/elements.h"
#include "client/status_macros.h"
#include "client/strings.h"

namespace hearth::client {
namespace {

static_assert(std::endian::native == std::endian::little, "tensors are sent as they lie in memory");

struct TypeInfo {
  std::string_view name;
  std::size_t size;
};
constexpr std::array<TypeInfo, kDataTypeCount> kTypes = {{{"BOOL", 1}, {"UINT8", 1}, {"UINT16", 2},
    {"UINT32", 4}, {"UINT64", 8}, {"INT8", 1}, {"INT16", 2}, {"INT32", 4}, {"INT64", 8}, {"FP16", 2},
    {"BF16", 2}, {"FP32", 4}, {"FP64", 8}, {"BYTES", 0}}};

const TypeInfo& Info(DataType type) { return kTypes[static_cast<std::size_t>(type)]; }

// Walks the length-prefixed elements; false when they do not end where the bytes end.
template <typename Fn>
bool ForEachBytesElement(std::string_view bytes, Fn&& fn) {
  while (!bytes.empty()) {
    std::uint32_t length = 0;
    if (bytes.size() < sizeof(length)) return false;
    std::memcpy(&length, bytes.data(), sizeof(length));
    bytes.remove_prefix(sizeof(length));
    if (bytes.size() < length) return false;
    fn(bytes.substr(0, length));
    bytes.remove_prefix(length);
  }
  return true;
}

}  // namespace

std::string_view ToString(DataType type) { return Info(type).name; }

std::optional<DataType> ParseDataType(std::string_view name) {
  for (std::size_t i = 0; i < kDataTypeCount; ++i) {
    if (kTypes[i].name == name) return static_cast<DataType>(i);
  }
  return std::nullopt;
}

std::size_t SizeOf(DataType type) { return Info(type).size; }

std::string ToString(const Shape& shape) {
  std::string out = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) out += Cat(i == 0 ? "" : ", ", shape[i]);
  return out + "]";
}

std::optional<std::uint64_t> ElementCount(const Shape& shape) {
  bool empty = false;
  for (const std::int64_t dim : shape) {
    if (dim < 0) return std::nullopt;
    if (dim == 0) empty = true;
  }
  if (empty) return 0;
  std::int64_t count = 1;
  for (const std::int64_t dim : shape) {
    if (__builtin_mul_overflow(count, dim, &count)) return std::nullopt;
  }
  return static_cast<std::uint64_t>(count);
}

absl::Status Validate(const Tensor& tensor) {
  const std::optional<std::uint64_t> count = ElementCount(tensor.shape);
  if (!count) {
    return absl::InvalidArgumentError(Cat("shape ", ToString(tensor.shape), " is not a size"));
  }
  if (tensor.datatype == DataType::kBytes) {
    std::uint64_t found = 0;
    if (!ForEachBytesElement(tensor.bytes, [&](std::string_view) { ++found; })) {
      return absl::InvalidArgumentError("the last BYTES element is cut short");
    }
    if (found == *count) return absl::OkStatus();
    return absl::InvalidArgumentError(Cat("shape ", ToString(tensor.shape), " has ", *count,
                                          " elements, but there are ", found));
  }
  const std::size_t size = SizeOf(tensor.datatype);
  if (tensor.bytes.size() % size == 0 && tensor.bytes.size() / size == *count) return absl::OkStatus();
  return absl::InvalidArgumentError(Cat("shape ", ToString(tensor.shape), " of ",
                                        ToString(tensor.datatype), " has ", *count, " elements of ",
                                        size, " bytes, but there are ", tensor.bytes.size(), " bytes"));
}

Tensor MakeBytesTensor(Shape shape, const std::vector<std::string>& elements) {
  Tensor tensor{DataType::kBytes, std::move(shape), {}};
  for (const std::string& element : elements) AppendBytesElement(element, tensor.bytes);
  return tensor;
}

absl::StatusOr<std::vector<std::string_view>> BytesElements(const Tensor& tensor) {
  CLIENT_RETURN_IF_ERROR(Validate(tensor));
  if (tensor.datatype != DataType::kBytes) {
    return absl::InvalidArgumentError(
        Cat("the tensor's element type is ", ToString(tensor.datatype), ", not BYTES"));
  }
  std::vector<std::string_view> elements;
  ForEachBytesElement(tensor.bytes, [&](std::string_view element) { elements.push_back(element); });
  return elements;
}

absl::StatusOr<Tensor> Convert(const Tensor& tensor, DataType to) {
  CLIENT_RETURN_IF_ERROR(Validate(tensor));
  if (tensor.datatype == to) return tensor;
  if (tensor.datatype == DataType::kBytes || to == DataType::kBytes) {
    return absl::InvalidArgumentError(
        Cat(ToString(tensor.datatype), " cannot be converted to ", ToString(to)));
  }
  Tensor converted{to, tensor.shape, {}};
  const std::size_t count = tensor.bytes.size() / SizeOf(tensor.datatype);
  converted.bytes.reserve(count * SizeOf(to));
  for (std::size_t i = 0; i < count; ++i) {
    const Number number = ReadNumber(tensor, i);
    if (!AppendNumber(number, to, converted.bytes)) {
      return absl::InvalidArgumentError(Cat("element ", i, ", ", FormatNumber(number, tensor.datatype),
                                            ", does not fit ", ToString(to)));
    }
  }
  return converted;
}

}  // namespace hearth::client
