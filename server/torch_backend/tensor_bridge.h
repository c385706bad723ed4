// hearth's tensors and LibTorch's, over the same bytes wherever possible.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "server/base/status.h"
#include "server/tensor/tensor.h"
#include "server/torch_backend/torch_headers.h"

namespace hearth {

std::optional<at::ScalarType> ToScalarType(DType dtype);   // nothing for kUnknown and kBytes
std::optional<DType> ToDType(at::ScalarType type);         // nothing for complex, quantised, ...

// A tensor over `tensor`'s bytes; its storage holds `tensor.owner`. No copy.
// REQUIRES: dtype is not kBytes or kUnknown, and data.size() fits the shape.
at::Tensor WrapTensor(const Tensor& tensor);

// A dense host tensor; copies only what is not dense, not on the host, or shared with somebody else
// (weights, a session's state, another output), since the next run could overwrite it.
// REQUIRES: the caller has dropped its own references to the run's inputs and stack.
absl::StatusOr<Tensor> UnwrapTensor(at::Tensor tensor, std::string_view name);

// Program results, flattened in order, each with a name: `names` where given (model.yaml), else the
// NamedTuple's field or dictionary's key, else OUTPUT__<i> as Triton's PyTorch backend numbers them.
// Nothing for None. INTERNAL for results the protocol has no form for (complex numbers, objects).
absl::StatusOr<TensorList> UnwrapResult(at::IValue result, const std::vector<std::string>& names);

}  // namespace hearth
