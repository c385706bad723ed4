// ModelInfer on the wire <-> a request as the server knows it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "inference.pb.h"
#include "server/base/clock.h"
#include "server/base/status.h"
#include "server/frontend/infer_message.h"
#include "server/frontend/output_targets.h"
#include "server/serving/infer_service.h"
#include "server/serving/shared_memory.h"
#include "server/tensor/buffer_pool.h"

namespace hearth {

// Of a request's id. A longer one is refused: it would be kept, and sent back.
inline constexpr std::size_t kMaxRequestId = 4096;  // bytes

// Never longer than that: what is too long is cut.
std::string IdOf(const inference::ModelInferRequest& head);

// Raw contents become tensors where they are, typed ones in `pool`'s aligned memory.
// Judged here is what is lost in the conversion: where the data is, the spelling of types,
// parameters. Shapes and sizes are serving's business (validate.h), for every front end the same. A
// `timeout` parameter tightens `deadline`; it counts from `now`.
//
// Inputs in shared memory are copied from there, because their owner may write to it at any time. `targets` is where the
// outputs go.
//
// INVALID_ARGUMENT: the request, with Triton's text where it has one. UNIMPLEMENTED:
// shared memory that is not allowed. NOT_FOUND: no such region. RESOURCE_EXHAUSTED: no memory for the inputs, or for
// their names and shapes. Errors begin with the request's id.
absl::StatusOr<InferRequest> ToInferRequest(const InferMessage& wire, BufferPool& pool, const SharedMemory& memory,
                                            Deadline deadline, TimePoint now, OutputTargets& targets);
// For front ends without shared memory: what asks for it is UNIMPLEMENTED.
absl::StatusOr<InferRequest> ToInferRequest(const InferMessage& wire, BufferPool& pool, Deadline deadline,
                                            TimePoint now);

// Whose answer it is: ModelInfer's or ModelStreamInfer's.
enum class InferRpc : std::uint8_t { kUnary, kStream };

// Echoes `id`. The parameter `hearth_cache` says how the request found its model ("hit", "wait", "load"), and
// `hearth_load_ms` how long it waited for that, unless it was a hit; `hearth_response_cache` is "hit" where the response cache
// had the answer. Answers in raw contents only, exactly one entry per
// output: clients index by position, and do not look at typed contents. On a stream it says that it is the last answer
// of its request, which every one is. Outputs in shared memory have been delivered to `targets`. RESOURCE_EXHAUSTED: more
// than a message can hold.
absl::StatusOr<grpc::ByteBuffer> ToWire(const InferResponse& response, const std::string& id,
                                        InferRpc rpc = InferRpc::kUnary, const OutputTargets& targets = {});

// What a stream says of a request that failed.
grpc::ByteBuffer ToStreamError(const absl::Status& status, const std::string& id);

}  // namespace hearth
