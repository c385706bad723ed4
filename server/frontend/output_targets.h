// What becomes of the outputs that a request asks for by name: sent in the message, or put into shared memory.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "inference.pb.h"
#include "server/base/status.h"
#include "server/serving/infer.h"
#include "server/serving/shared_memory.h"

namespace hearth {

struct OutputTarget {
  std::shared_ptr<const SharedRegion> region;  // none: in the message
  std::uint64_t offset = 0;                    // in the region
  std::uint64_t byte_size = 0;                 // as much as may be written there
};

using OutputTargets = std::vector<OutputTarget>;  // one for each output asked for

// NOT_FOUND, INVALID_ARGUMENT: where an output is to go is not there, or not large enough for what it claims.
// UNIMPLEMENTED: shared memory is not allowed. Without the request's id in the text.
absl::StatusOr<OutputTargets> ReadOutputTargets(const inference::ModelInferRequest& wire, const SharedMemory& memory);

// Outputs that go to shared memory are there afterwards, and have no bytes in `response`. INTERNAL: more than the space
// for it, with Triton's text. INVALID_ARGUMENT: the region is cut short by now.
// REQUIRES: `targets` is empty, or was read from the request that this answers.
absl::Status Deliver(const OutputTargets& targets, InferResponse& response);

}  // namespace hearth
