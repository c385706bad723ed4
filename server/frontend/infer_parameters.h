// The parameters beside a ModelInfer request, its inputs and its outputs.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "inference.pb.h"
#include "server/base/clock.h"
#include "server/base/status.h"

namespace hearth {

// Checks all of them. Known: `timeout` (microseconds; tightens `deadline`), `priority` (one level:
// no effect), `keep_alive`
// (a time or seconds: InferRequest::keep_alive), `triton_enable_empty_final_response` (no effect on a unary call). Unknown ones are
// accepted. Those that ask for something that is not there are refused rather than ignored:
// sequences, classification. Shared memory is ReadSharedPlace's.
//
// Errors name the parameter; the caller puts the request's id before them.
absl::Status CheckParameters(const inference::ModelInferRequest& wire, TimePoint now,
                             Deadline& deadline, std::optional<Duration>& keep_alive);

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
