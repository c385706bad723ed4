// The regions of shared memory that clients register. What they are used for is convert.h's and output_targets.h's.
#pragma once

#include "inference.grpc.pb.h"
#include "server/frontend/event_loop.h"
#include "server/serving/shared_memory.h"

namespace hearth {

// Serves SystemSharedMemory* and CudaSharedMemory* on `loop`. There is no CUDA here: its calls say so, and those that a
// client makes in passing (is there any? forget all) succeed. `memory` outlives the loop's calls.
void ServeSharedMemory(EventLoop& loop, inference::GRPCInferenceService::AsyncService& service, SharedMemory& memory);

}  // namespace hearth
