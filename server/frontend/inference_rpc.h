// ModelInfer over gRPC.
#pragma once

#include "inference.grpc.pb.h"
#include "server/frontend/event_loop.h"
#include "server/frontend/infer_exchange.h"

namespace hearth {

// The messages of ModelInfer and ModelStreamInfer come and go as bytes (infer_message.h); all others are protobuf's.
using InferenceAsyncService = inference::GRPCInferenceService::WithRawMethod_ModelInfer<
    inference::GRPCInferenceService::WithRawMethod_ModelStreamInfer<inference::GRPCInferenceService::AsyncService>>;

// Serves ModelInfer of `service` on `loop`. Inputs are copied on the loop's thread. What `deps` refers to outlives the loop's calls.
void ServeInference(EventLoop& loop, InferenceAsyncService& service, InferenceRpcDeps deps);

}  // namespace hearth
