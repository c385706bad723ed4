// The parameters beside a ModelInfer request, its inputs and its outputs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "inference.pb.h"
#include "server/base/clock.h"
#include "server/base/status.h"
#include "server/serving/infer.h"

namespace hearth {

// What they say of a request.
struct RequestParameters {
  Deadline deadline = kNoDeadline;
  std::optional<Duration> keep_alive;
  int priority = 0;  // none was given
  std::optional<SequenceControl> sequence;
};

// Checks all of them. Known: `timeout` (microseconds, counted from `now`; tightens `deadline`), `priority`, `sequence_id` (a
// number or a text; 0 and "" are none), `sequence_start`, `sequence_end`, `keep_alive` (a time or seconds:
// InferRequest::keep_alive), `triton_enable_empty_final_response` (no effect on a unary call). Unknown ones are accepted.
// Shared memory is ReadSharedPlace's, classification is ReadTopClasses's.
//
// Errors name the parameter; the caller puts the request's id before them.
absl::StatusOr<RequestParameters> ReadParameters(const inference::ModelInferRequest& wire, TimePoint now,
                                                 Deadline deadline);

// How many classes of an output are asked for (`classification`); 0: it is, as it is. INVALID_ARGUMENT: it is no such
// number, or the output is to go to shared memory.
absl::StatusOr<std::size_t> ReadTopClasses(const inference::ModelInferRequest::InferRequestedOutputTensor& output);

// Where a tensor is that is not in the message.
struct SharedPlace {
  std::string region;
  std::uint64_t offset = 0;  // in the region
  std::uint64_t byte_size = 0;
};

// What the parameters of an input or output (`kind`) say of it; none: it is in the message. INVALID_ARGUMENT: they say
// half of it, or what cannot be.
absl::StatusOr<std::optional<SharedPlace>> ReadSharedPlace(
    std::string_view kind, const std::string& tensor,
    const google::protobuf::Map<std::string, inference::InferParameter>& parameters);

}  // namespace hearth
