// A request against a model's signature, before the model sees it.
//
// Status codes and texts are Triton's (clients match on them), each behind "[request id: <id>] ".
// What the signature leaves open (dtype kUnknown, no shape, -1) is accepted; the program has its
// own say.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "server/base/status.h"
#include "server/model/signature.h"

namespace hearth {

// What no request may exceed, whatever the signature: keeps every check linear in what was sent.
struct RequestLimits {
  std::size_t max_tensors = 256;  // inputs, and outputs asked for
  std::size_t max_dims = 64;      // LibTorch's kernels take no more
};

// What of a request is looked at. Borrows everything.
struct RequestView {
  const std::string& model;
  const std::string& id;  // may be empty
  const TensorList& inputs;
  const std::vector<std::string>& outputs;  // empty: all
};

// OK, or INVALID_ARGUMENT for the first thing found wrong. After OK:
//   - inputs are the signature's, each at most once, none missing but optional ones
//   - every input's bytes are exactly what its dtype and shape say; BYTES elements add up
//   - with max_batch_size, all inputs share their first dimension, and it is not above that
//   - outputs asked for exist (only where the signature knows them) and are named once
// Allocates nothing unless it refuses.
[[nodiscard]] absl::Status ValidateRequest(const RequestView& request, const Signature& signature,
                                           const RequestLimits& limits);

// OK, or INTERNAL (as in Triton) for an output whose type or shape is not what model.yaml declared:
// the model is at fault, or its model.yaml. What it leaves open may be anything.
[[nodiscard]] absl::Status CheckDeclaredOutputs(const RequestView& request,
                                                const Signature& signature,
                                                const TensorList& outputs);

// The refusal for an output that a program of unknown outputs did not return after all.
[[nodiscard]] absl::Status UnexpectedOutput(std::string_view request_id, std::string_view output,
                                            std::string_view model);

// Batch elements of a valid request, what hearth_inferences_total counts: the first dimension with
// max_batch_size, else 1.
[[nodiscard]] std::int64_t BatchSize(const TensorList& inputs, const Signature& signature);

}  // namespace hearth
