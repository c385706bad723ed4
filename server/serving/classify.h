// The classes of an output with the highest values, instead of the values: Triton's extension "classification".
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "server/base/status.h"
#include "server/tensor/tensor.h"

namespace hearth {

// Makes of `output` a BYTES tensor of "value:index" or "value:index:name", highest value first and of equal ones the lowest
// index: of each element of the batch where `batched`, shape [B, min(top, n)], else of the whole tensor, [min(top, n)].
// Values are written as "%f", whole numbers as such; what is no number comes last. `names`: of the classes; null: none.
// INVALID_ARGUMENT: a type that has no order, or `batched` and no batch. RESOURCE_EXHAUSTED: no memory.
// REQUIRES: top > 0.
[[nodiscard]] absl::Status Classify(std::size_t top, bool batched, const std::vector<std::string>* names,
                                    NamedTensor& output);

}  // namespace hearth
