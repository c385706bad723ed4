// ModelInfer over gRPC.
#pragma once

#include "inference.grpc.pb.h"
#include "server/base/clock.h"
#include "server/frontend/event_loop.h"
#include "server/serving/infer_service.h"
#include "server/tensor/buffer_pool.h"

namespace hearth {

// ModelInfer's messages come and go as bytes (infer_message.h); all others are protobuf's.
using InferenceAsyncService =
    inference::GRPCInferenceService::WithRawMethod_ModelInfer<inference::GRPCInferenceService::AsyncService>;

struct InferenceRpcDeps {
  InferService& infer;
  BufferPool& buffers;
  const Clock& clock;
};

// Serves ModelInfer of `service` on `loop`. Inputs are copied on the loop's thread. What `deps` refers to outlives the loop's calls.
void ServeInference(EventLoop& loop, InferenceAsyncService& service, InferenceRpcDeps deps);

}  // namespace hearth
