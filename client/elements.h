// One element at a time: how numbers of every type are read, written and spelled. Internal to client/.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <variant>

#include "client/tensor.h"

namespace hearth::client {

// An element of any numeric type, without loss. BOOL reads as an unsigned 0 or 1.
using Number = std::variant<std::int64_t, std::uint64_t, double>;

// REQUIRES: Validate(tensor) is OK, its type is not kBytes, and `index` is within.
Number ReadNumber(const Tensor& tensor, std::size_t index);

// Appends `number` to `bytes` as `type`. False, and nothing appended, when it does not fit (the rules
// of Convert). REQUIRES: `type` is not kBytes.
bool AppendNumber(const Number& number, DataType type, std::string& bytes);

// REQUIRES: `element` is shorter than 4 GiB.
void AppendBytesElement(std::string_view element, std::string& bytes);

// The shortest decimal that reads back as the same number of that type: 0.1 for FP32's 0.1f. NaN and
// infinities are "nan", "inf", "-inf"; BOOL is "true" or "false".
std::string FormatNumber(const Number& number, DataType type);

// IEEE 754 half precision and bfloat16, rounding to nearest, ties to even. Too large is infinity.
float HalfToFloat(std::uint16_t bits);
std::uint16_t FloatToHalf(float value);
float BfloatToFloat(std::uint16_t bits);
std::uint16_t FloatToBfloat(float value);

}  // namespace hearth::client
