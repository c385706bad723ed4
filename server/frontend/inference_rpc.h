// ModelInfer over gRPC.
#pragma once

#include "inference.grpc.pb.h"
#include "server/base/clock.h"
#include "server/frontend/event_loop.h"
#include "server/serving/infer_service.h"
#include "server/tensor/buffer_pool.h"

namespace hearth {

struct InferenceRpcDeps {
  InferService& infer;
  BufferPool& buffers;
  const Clock& clock;
};

// Serves ModelInfer of `service` on `loop`. Inputs are copied on the loop's thread, outputs on the
// thread that computed them. What `deps` refers to outlives the loop's calls.
void ServeInference(EventLoop& loop, inference::GRPCInferenceService::AsyncService& service,
                    InferenceRpcDeps deps);

}  // namespace hearth
