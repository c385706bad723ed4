// Tensors written on the command line: 3, -1.5e3, [[1, 2], [3, 4]], true, "text".
#pragma once

#include <optional>
#include <string_view>

#include "absl/status/statusor.h"
#include "client/tensor.h"

namespace hearth::client {

// JSON's notation, plus nan, inf and -inf. Nested lists give the shape and must be rectangular; [] has
// shape [0]. With a `wanted` type every element must fit it; integers are read exactly, never through
// floating point. Without one: all integers are INT64, numbers of which any has a point or an exponent
// FP32, true and false BOOL, strings BYTES; a mixture is refused.
//
// For BYTES, a text that begins with neither [ nor " is one element, taken as it stands: a shell has
// eaten the quotes. INVALID_ARGUMENT says what is wrong and where.
absl::StatusOr<Tensor> ParseLiteral(std::string_view text, std::optional<DataType> wanted);

}  // namespace hearth::client
