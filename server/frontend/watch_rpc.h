// hearth.v1.Cache/Watch: the journal of the cache, as a stream.
#pragma once

#include <cstddef>
#include <set>

#include "hearth/v1/cache.grpc.pb.h"
#include "server/base/clock.h"
#include "server/base/mutex.h"
#include "server/frontend/event_loop.h"
#include "server/residency/event_log.h"

namespace hearth {

// A watch holds its place in the journal and at most one message, so a reader that is slow costs a number. It is told
// of events by whoever adds them, which is why there is a limit to how many watch.
//
// Thread-safe. Its lock is held while the journal's, a leaf, is taken. Outlives the loops' calls; the journal may go on
// without it.
class WatchRpc final : public EventLog::Listener {
 public:
  // What they refer to outlives the loops' calls.
  WatchRpc(hearth::v1::Cache::AsyncService& service, EventLog& events, const DeviceNames& devices,
           const Clock& clock);
  ~WatchRpc() override;

  // REQUIRES: the server has been started.
  void Serve(EventLoop& loop);
  // Ends every watch with UNAVAILABLE once it has told all that happened, now and from now on.
  void End() ABSL_LOCKS_EXCLUDED(mu_);

  void EventAdded() override ABSL_LOCKS_EXCLUDED(mu_);

  static constexpr std::size_t kMaxWatches = 64;

 private:
  class Watch;

  hearth::v1::Cache::AsyncService& service_;
  EventLog& events_;
  const DeviceNames& devices_;
  const Clock& clock_;
  Mutex mu_;
  std::set<Watch*> watches_ ABSL_GUARDED_BY(mu_);
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace hearth
