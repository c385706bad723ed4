// hearth.v1.Cache/Stat: what is resident, and how the budgets stand.
#pragma once

#include <string>

#include "hearth/v1/cache.grpc.pb.h"
#include "server/base/clock.h"
#include "server/frontend/event_loop.h"
#include "server/metrics/metrics.h"
#include "server/serving/infer_service.h"
#include "server/serving/repository_service.h"

namespace hearth {

struct CacheRpcDeps {
  InferService& infer;
  RepositoryService& repository;
  Metrics& metrics;
  const Clock& clock;
  TimePoint started{};      // of the server, for its uptime
  std::string server_name;  // as ServerMetadata reports them
  std::string server_version;
};

// Serves Stat of `service` on `loop`. What `deps` refers to outlives the loop's calls.
void ServeCache(EventLoop& loop, hearth::v1::Cache::AsyncService& service,
                const CacheRpcDeps& deps);

}  // namespace hearth
