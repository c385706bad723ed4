// grpc.health.v1.Health: Check and Watch.
//
// Our own and not gRPC's built-in one, which runs on the callback threads that sleep
// (event_loop.h), so an idle server's probes would be answered late.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "grpc/health/v1/health.grpc.pb.h"
#include "server/base/mutex.h"
#include "server/frontend/event_loop.h"

namespace hearth {

// Known names: those it was made with, and "liveness", which is SERVING as long as there is an
// answer: a probe that restarts the process must not depend on models or on a drain. Thread-safe.
class HealthRpc {
 public:
  using Status = grpc::health::v1::HealthCheckResponse::ServingStatus;

  // `names`: services that follow SetServing(). NOT_SERVING until then.
  explicit HealthRpc(const std::vector<std::string>& names);
  ~HealthRpc();

  grpc::health::v1::Health::AsyncService& service() { return service_; }
  // REQUIRES: the server has been started.
  void Serve(EventLoop& loop);

  // Tells watchers too.
  void SetServing(bool serving) ABSL_LOCKS_EXCLUDED(mu_);
  // Ends every Watch once it has told the status, now and from now on, so that a shutdown need not
  // wait for clients to go away.
  void EndWatches() ABSL_LOCKS_EXCLUDED(mu_);

 private:
  class Watch;

  // SERVICE_UNKNOWN for a name that is not known.
  Status StatusOf(const std::string& name) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  grpc::health::v1::Health::AsyncService service_;
  mutable Mutex mu_;
  std::map<std::string, Status> statuses_ ABSL_GUARDED_BY(mu_);
  std::set<Watch*> watches_ ABSL_GUARDED_BY(mu_);
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace hearth
