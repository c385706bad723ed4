// Answers on their way to gRPC's clients, which are not to be there for ever.
#pragma once

#include <grpcpp/server_context.h>

#include <cstddef>

#include "absl/container/flat_hash_set.h"
#include "server/base/clock.h"
#include "server/base/mutex.h"

namespace hearth {

// gRPC says when all of an answer has been sent, and not how far it has come: a client may take so long for it, and a second
// more for each MiB.
//
// Thread-safe; but answers end on the thread that looks, so that one that is given up is still there.
class SendWatch {
 public:
  // One that is being sent. A part of its call, which has one at a time.
  class Answer {
   public:
    explicit Answer(grpc::ServerContext& context) : context_(context) {}

   private:
    friend class SendWatch;
    grpc::ServerContext& context_;
    Deadline until_{};
  };

  // `clock` outlives the watch. `patience` 0: nothing is given up.
  SendWatch(const Clock& clock, Duration patience) : clock_(clock), patience_(patience) {}

  // Before its sending starts. `bytes`: so large is it.
  void Begin(Answer& answer, std::size_t bytes) ABSL_LOCKS_EXCLUDED(mu_);
  // REQUIRES: on the thread of Look(). It has begun.
  void End(Answer& answer) ABSL_LOCKS_EXCLUDED(mu_);
  // Cancels the calls of those that have been there for too long. Once a second or so. How many.
  std::size_t Look() ABSL_LOCKS_EXCLUDED(mu_);

 private:
  const Clock& clock_;
  const Duration patience_;
  Mutex mu_;
  absl::flat_hash_set<Answer*> answers_ ABSL_GUARDED_BY(mu_);
};

}  // namespace hearth
