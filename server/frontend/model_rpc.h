// What Triton's tools ask about models beside the Open Inference Protocol: ModelConfig and ModelStatistics.
#pragma once

#include "inference.grpc.pb.h"
#include "server/base/clock.h"
#include "server/frontend/event_loop.h"
#include "server/metrics/metrics.h"
#include "server/serving/repository_service.h"

namespace hearth {

struct ModelRpcDeps {
  RepositoryService& repository;
  Metrics& metrics;
  const Clock& clock;
};

// Serves both calls on `loop`. What `deps` refers to outlives the loop's calls.
void ServeModels(EventLoop& loop, inference::GRPCInferenceService::AsyncService& service, const ModelRpcDeps& deps);

}  // namespace hearth
