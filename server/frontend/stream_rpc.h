// ModelStreamInfer: many inferences on one stream, answered in the order in which they came.
#pragma once

#include <cstddef>
#include <memory>
#include <set>

#include "server/base/mutex.h"
#include "server/frontend/event_loop.h"
#include "server/frontend/inference_rpc.h"

namespace hearth {

// The requests of a stream run side by side, like those of as many calls. One that fails is answered with its text in
// its place, and the stream goes on; with the client's metadata `triton_grpc_error: true` the stream ends with its
// status instead. So many of a stream are read and not yet answered at once, and the client waits to send more: it
// cannot have hearth hold more for it by not reading its answers.
//
// A stream ends when the client has sent its last request and has all answers, with the client, or with End(). What
// still waits for it then is cancelled as for a call.
//
// Thread-safe.
class StreamRpc {
 public:
  // What they refer to outlives the loops' calls, and so does this.
  StreamRpc(InferenceAsyncService& service, InferenceRpcDeps deps);
  ~StreamRpc();

  // REQUIRES: the server has been started.
  void Serve(EventLoop& loop);
  // Reads no more requests. Every stream ends with UNAVAILABLE once those that were read have been answered.
  void End() ABSL_LOCKS_EXCLUDED(mu_);

  static constexpr std::size_t kMaxInFlight = 64;

 private:
  class Stream;

  InferenceAsyncService& service_;
  const InferenceRpcDeps deps_;
  Mutex mu_;
  std::set<std::shared_ptr<Stream>> streams_ ABSL_GUARDED_BY(mu_);  // those that gRPC refers to
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace hearth
