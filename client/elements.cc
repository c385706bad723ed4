#include "client/elements.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

namespace hearth::client {
namespace {

template <typename T>
T ReadAs(const std::string& bytes, std::size_t index) {
  T value;
  std::memcpy(&value, bytes.data() + index * sizeof(T), sizeof(T));
  return value;
}

template <typename T>
void Append(T value, std::string& bytes) {
  char raw[sizeof(T)];
  std::memcpy(raw, &value, sizeof(T));
  bytes.append(raw, sizeof(T));
}

// Into an integer type, only when the value survives unchanged.
template <typename T>
bool AppendInteger(const Number& number, std::string& bytes) {
  return std::visit(
      [&](auto value) {
        if constexpr (std::is_same_v<decltype(value), double>) {
          // Both bounds are exact doubles; the upper one is the first that no longer fits.
          const double low = static_cast<double>(std::numeric_limits<T>::min());
          const double high = std::ldexp(1.0, std::numeric_limits<T>::digits);
          if (!(value >= low && value < high) || value != std::trunc(value)) return false;
        } else if (!std::in_range<T>(value)) {
          return false;
        }
        Append(static_cast<T>(value), bytes);
        return true;
      },
      number);
}

double ToDouble(const Number& number) {
  return std::visit([](auto value) { return static_cast<double>(value); }, number);
}

// Narrowing a finite number must not make it infinite.
bool SameFiniteness(double before, float after) { return std::isfinite(before) == std::isfinite(after); }

template <typename T>
std::string Shortest(T value) {
  if (std::isnan(value)) return "nan";
  char text[64];
  const auto end = std::to_chars(text, text + sizeof(text), value).ptr;
  return std::string(text, end);
}

}  // namespace

Number ReadNumber(const Tensor& tensor, std::size_t i) {
  const std::string& bytes = tensor.bytes;
  switch (tensor.datatype) {
    case DataType::kBool: return std::uint64_t{ReadAs<std::uint8_t>(bytes, i) != 0};
    case DataType::kUInt8: return std::uint64_t{ReadAs<std::uint8_t>(bytes, i)};
    case DataType::kUInt16: return std::uint64_t{ReadAs<std::uint16_t>(bytes, i)};
    case DataType::kUInt32: return std::uint64_t{ReadAs<std::uint32_t>(bytes, i)};
    case DataType::kUInt64: return ReadAs<std::uint64_t>(bytes, i);
    case DataType::kInt8: return std::int64_t{ReadAs<std::int8_t>(bytes, i)};
    case DataType::kInt16: return std::int64_t{ReadAs<std::int16_t>(bytes, i)};
    case DataType::kInt32: return std::int64_t{ReadAs<std::int32_t>(bytes, i)};
    case DataType::kInt64: return ReadAs<std::int64_t>(bytes, i);
    case DataType::kFp16: return double{HalfToFloat(ReadAs<std::uint16_t>(bytes, i))};
    case DataType::kBf16: return double{BfloatToFloat(ReadAs<std::uint16_t>(bytes, i))};
    case DataType::kFp32: return double{ReadAs<float>(bytes, i)};
    case DataType::kFp64: return ReadAs<double>(bytes, i);
    case DataType::kBytes: break;
  }
  return std::uint64_t{0};
}

bool AppendNumber(const Number& number, DataType type, std::string& bytes) {
  const double real = ToDouble(number);
  switch (type) {
    case DataType::kBool:
      if (real != 0 && real != 1) return false;
      Append(static_cast<std::uint8_t>(real), bytes);
      return true;
    case DataType::kUInt8: return AppendInteger<std::uint8_t>(number, bytes);
    case DataType::kUInt16: return AppendInteger<std::uint16_t>(number, bytes);
    case DataType::kUInt32: return AppendInteger<std::uint32_t>(number, bytes);
    case DataType::kUInt64: return AppendInteger<std::uint64_t>(number, bytes);
    case DataType::kInt8: return AppendInteger<std::int8_t>(number, bytes);
    case DataType::kInt16: return AppendInteger<std::int16_t>(number, bytes);
    case DataType::kInt32: return AppendInteger<std::int32_t>(number, bytes);
    case DataType::kInt64: return AppendInteger<std::int64_t>(number, bytes);
    case DataType::kFp16: {
      const std::uint16_t half = FloatToHalf(static_cast<float>(real));
      if (!SameFiniteness(real, HalfToFloat(half))) return false;
      Append(half, bytes);
      return true;
    }
    case DataType::kBf16: {
      const std::uint16_t bfloat = FloatToBfloat(static_cast<float>(real));
      if (!SameFiniteness(real, BfloatToFloat(bfloat))) return false;
      Append(bfloat, bytes);
      return true;
    }
    case DataType::kFp32:
      if (!SameFiniteness(real, static_cast<float>(real))) return false;
      Append(static_cast<float>(real), bytes);
      return true;
    case DataType::kFp64:
      Append(real, bytes);
      return true;
    case DataType::kBytes: break;
  }
  return false;
}

void AppendBytesElement(std::string_view element, std::string& bytes) {
  Append(static_cast<std::uint32_t>(element.size()), bytes);
  bytes.append(element);
}

std::string FormatNumber(const Number& number, DataType type) {
  if (const double* real = std::get_if<double>(&number)) {
    return type == DataType::kFp64 ? Shortest(*real) : Shortest(static_cast<float>(*real));
  }
  if (type == DataType::kBool) return ToDouble(number) != 0 ? "true" : "false";
  return std::visit([](auto value) { return std::to_string(value); }, number);
}

float HalfToFloat(std::uint16_t bits) {
  const int exponent = (bits >> 10) & 0x1F;
  const int fraction = bits & 0x3FF;
  float magnitude = 0;
  if (exponent == 0x1F) {
    magnitude = fraction == 0 ? std::numeric_limits<float>::infinity()
                              : std::numeric_limits<float>::quiet_NaN();
  } else if (exponent == 0) {
    magnitude = std::ldexp(static_cast<float>(fraction), -24);
  } else {
    magnitude = std::ldexp(static_cast<float>(fraction | 0x400), exponent - 25);
  }
  return (bits & 0x8000) != 0 ? -magnitude : magnitude;
}

std::uint16_t FloatToHalf(float value) {
  const std::uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  if (std::isnan(value)) return sign | 0x7E00;
  const float magnitude = std::fabs(value);
  if (magnitude >= 65520.0F) return sign | 0x7C00;  // halfway to the first value that is too large
  if (magnitude == 0) return sign;
  // A half has 11 significant bits down to 2^-14 and a fixed step of 2^-24 below. Dividing by the step
  // is exact, nearbyint rounds ties to even, and a carry runs into the exponent as it should.
  const int exponent = std::max(std::ilogb(magnitude), -14);
  const float steps = std::nearbyint(std::ldexp(magnitude, 10 - exponent));
  return static_cast<std::uint16_t>(sign | (static_cast<int>(steps) + ((exponent + 14) << 10)));
}

float BfloatToFloat(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

std::uint16_t FloatToBfloat(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if (std::isnan(value)) return static_cast<std::uint16_t>((bits >> 16) | 0x40);
  // Adds just under half of the dropped part, and the last kept bit: ties go to even.
  return static_cast<std::uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

}  // namespace hearth::client
