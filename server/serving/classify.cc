#include "server/serving/classify.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <new>
#include <numeric>
#include <type_traits>
#include <utility>

#include "server/base/check.h"

namespace hearth {
namespace {

// FP16, as a float.
struct Half {
  std::uint16_t bits;
  operator float() const {  // NOLINT: a number like any other
    const int exponent = (bits >> 10) & 0x1f;
    const int fraction = bits & 0x3ff;
    const float sign = (bits & 0x8000) != 0 ? -1.0F : 1.0F;
    if (exponent == 0x1f) return fraction == 0 ? sign * INFINITY : NAN;
    if (exponent == 0) return sign * std::ldexp(static_cast<float>(fraction), -24);
    return sign * std::ldexp(static_cast<float>(fraction + 0x400), exponent - 25);
  }
};

// BF16, as a float.
struct Brain {
  std::uint16_t bits;
  operator float() const { return std::bit_cast<float>(std::uint32_t{bits} << 16); }  // NOLINT: as above
};

template <typename T>
auto Value(const std::byte* data, std::size_t index) {
  T value;
  std::memcpy(&value, data + index * sizeof(T), sizeof(T));
  if constexpr (std::is_same_v<T, Half> || std::is_same_v<T, Brain>) {
    return static_cast<float>(value);
  } else {
    return value;
  }
}

template <typename T>
bool IsHigher(T a, T b) {
  if constexpr (std::is_floating_point_v<T>) {
    if (std::isnan(a) || std::isnan(b)) return !std::isnan(a) && std::isnan(b);
  }
  return a > b;
}

// Appends the classes of the `count` values at `data`.
template <typename T>
void AppendClasses(const std::byte* data, std::size_t count, std::size_t top, const std::vector<std::string>* names,
                   std::vector<std::string>& classes) {
  std::vector<std::size_t> order(count);
  std::iota(order.begin(), order.end(), std::size_t{0});
  const auto first = order.begin();
  std::partial_sort(first, first + static_cast<std::ptrdiff_t>(top), order.end(), [&](std::size_t i, std::size_t j) {
    const auto a = Value<T>(data, i);
    const auto b = Value<T>(data, j);
    return IsHigher(a, b) || (!IsHigher(b, a) && i < j);
  });
  for (std::size_t k = 0; k < top; ++k) {
    const std::size_t index = order[k];
    std::string text = StrCat(std::to_string(Value<T>(data, index)), ":", index);
    if (names != nullptr && index < names->size() && !(*names)[index].empty()) text += StrCat(":", (*names)[index]);
    classes.push_back(std::move(text));
  }
}

using Append = void (*)(const std::byte*, std::size_t, std::size_t, const std::vector<std::string>*,
                        std::vector<std::string>&);

Append AppendOf(DType dtype) {
  switch (dtype) {
    case DType::kUInt8: return &AppendClasses<std::uint8_t>;
    case DType::kUInt16: return &AppendClasses<std::uint16_t>;
    case DType::kUInt32: return &AppendClasses<std::uint32_t>;
    case DType::kUInt64: return &AppendClasses<std::uint64_t>;
    case DType::kInt8: return &AppendClasses<std::int8_t>;
    case DType::kInt16: return &AppendClasses<std::int16_t>;
    case DType::kInt32: return &AppendClasses<std::int32_t>;
    case DType::kInt64: return &AppendClasses<std::int64_t>;
    case DType::kFp16: return &AppendClasses<Half>;
    case DType::kBf16: return &AppendClasses<Brain>;
    case DType::kFp32: return &AppendClasses<float>;
    case DType::kFp64: return &AppendClasses<double>;
    case DType::kUnknown:
    case DType::kBool:
    case DType::kBytes: return nullptr;
  }
  return nullptr;
}

absl::StatusOr<Tensor> ClassesOf(std::size_t top, bool batched, const std::vector<std::string>* names,
                                 const NamedTensor& output) {
  const Tensor& tensor = output.tensor;
  const Append append = AppendOf(tensor.dtype);
  if (append == nullptr) {
    return absl::InvalidArgumentError(StrCat("class result not available for output '", output.name,
                                             "' due to unsupported type '", ToString(tensor.dtype), "'"));
  }
  if (batched && tensor.shape.empty()) {
    return absl::InvalidArgumentError(StrCat("class result not available for output '", output.name, "': it has no batch"));
  }
  const Shape each(tensor.shape.begin() + (batched ? 1 : 0), tensor.shape.end());
  const std::size_t batch = batched ? static_cast<std::size_t>(tensor.shape.front()) : 1;
  const auto count = static_cast<std::size_t>(ElementCount(each).value_or(0));
  HEARTH_CHECK(batch * count * SizeOf(tensor.dtype) == tensor.data.size());
  const std::size_t most = std::min(top, count);
  std::vector<std::string> classes;
  for (std::size_t b = 0; b < batch; ++b) {
    append(tensor.data.data() + b * count * SizeOf(tensor.dtype), count, most, names, classes);
  }
  Shape shape;
  if (batched) shape.push_back(tensor.shape.front());
  shape.push_back(static_cast<std::int64_t>(most));
  const std::vector<std::string_view> views(classes.begin(), classes.end());
  return PackBytes(views, std::move(shape));
}

}  // namespace

absl::Status Classify(std::size_t top, bool batched, const std::vector<std::string>* names, NamedTensor& output) {
  HEARTH_CHECK(top > 0);
  try {
    HEARTH_ASSIGN_OR_RETURN(output.tensor, ClassesOf(top, batched, names, output));
    return absl::OkStatus();
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(StrCat("no memory for the classes of output '", output.name, "'"));
  }
}

}  // namespace hearth
