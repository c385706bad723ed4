// The parameters beside a ModelInfer request, its inputs and its outputs.
#pragma once

#include <optional>

#include "inference.pb.h"
#include "server/base/clock.h"
#include "server/base/status.h"

namespace hearth {

// Checks all of them. Known: `timeout` (microseconds; tightens `deadline`), `priority` (one level:
// no effect), `keep_alive`
// (a time or seconds: InferRequest::keep_alive), `triton_enable_empty_final_response` (no effect on a unary call). Unknown ones are
// accepted. Those that ask for something that is not there are refused rather than ignored:
// sequences, shared memory, classification.
//
// Errors name the parameter; the caller puts the request's id before them.
absl::Status CheckParameters(const inference::ModelInferRequest& wire, TimePoint now,
                             Deadline& deadline, std::optional<Duration>& keep_alive);

}  // namespace hearth
