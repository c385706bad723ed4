// The body of an inference over HTTP <-> the message that gRPC has for it. Knows no sockets.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "server/base/status.h"
#include "server/frontend/http_call.h"
#include "server/frontend/infer_message.h"
#include "server/frontend/output_targets.h"
#include "server/model/signature.h"
#include "server/serving/infer.h"
#include "server/tensor/buffer_pool.h"

namespace hearth {

// Which outputs go back as binary data; the others are JSON.
struct BinaryOutputs {
  bool all = false;                        // unless an output says otherwise
  std::vector<std::optional<bool>> asked;  // what each output asked for says, in their order
};

struct RestInferRequest {
  InferMessage message;  // without the model's name; each input's data in `raw`, whether it came as JSON or binary
  BinaryOutputs binary;
};

// `json_bytes`: so much of the body is JSON, and binary tensors follow it in the order of the inputs
// (Inference-Header-Content-Length); none: all of it. Judged here is what the message cannot say: JSON, where the data
// is, binary sizes. The rest is ToInferRequest's (convert.h).
// INVALID_ARGUMENT with a sentence. RESOURCE_EXHAUSTED: no memory.
absl::StatusOr<RestInferRequest> ReadInferRequest(std::string_view body, std::optional<std::size_t> json_bytes,
                                                  BufferPool& pool);

// A body that is nothing but the data of a model's only input (a JSON length of 0): its shape follows from its size where
// one dimension is open, and a BYTES input is one element, without its length. All outputs go back as binary data.
// INVALID_ARGUMENT: the model has other inputs, or the signature leaves open what the body cannot say.
absl::StatusOr<RestInferRequest> ReadRawRequest(std::string_view body, const Signature& signature, BufferPool& pool);

// So long is WriteInferResponse()'s JSON at most.
std::uint64_t MostJsonBytes(const InferResponse& response, const std::string& id, const BinaryOutputs& binary,
                            const OutputTargets& targets = {});

// Binary outputs are sent from where they lie; those that were delivered to shared memory have no data here. The same parameters as over gRPC (convert.h).
// INVALID_ARGUMENT: an output that cannot be JSON. RESOURCE_EXHAUSTED: no memory.
absl::StatusOr<HttpResponse> WriteInferResponse(const InferResponse& response, const std::string& id,
                                                const BinaryOutputs& binary, const OutputTargets& targets = {});

}  // namespace hearth
