// What the Open Inference Protocol has beside inference: health, metadata, index, load, unload.
#pragma once

#include <string>

#include "inference.grpc.pb.h"
#include "server/base/clock.h"
#include "server/frontend/event_loop.h"
#include "server/serving/repository_service.h"

namespace hearth {

struct AdminRpcDeps {
  RepositoryService& repository;
  const Clock& clock;
  std::string server_name;  // as ServerMetadata reports them
  std::string server_version;
  bool shared_memory = false;  // it is allowed
};

// Serves the eight calls on `loop`. What `deps` refers to outlives the loop's calls.
void ServeAdmin(EventLoop& loop, inference::GRPCInferenceService::AsyncService& service,
                const AdminRpcDeps& deps);

}  // namespace hearth
