// One tensor's elements under another shape. Bytes stay where they are.
#pragma once

#include <optional>

#include "server/base/status.h"
#include "server/tensor/tensor.h"

namespace hearth {

// Whether every tensor of shape `from` has exactly one shape `to`: between their open dimensions (-1), of which there are
// as many in both, they have the same number of elements. INVALID_ARGUMENT with what is wrong.
[[nodiscard]] absl::Status CheckReshape(const Shape& from, const Shape& to);

// The shape that `actual`, which is one of `from`, has under `to`. Nothing: it is none of `from`.
// REQUIRES: CheckReshape(from, to).
std::optional<Shape> Reshape(const Shape& from, const Shape& to, const Shape& actual);

}  // namespace hearth
