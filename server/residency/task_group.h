// Tasks that refer to their owner, which must not go before them.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>

#include "absl/functional/any_invocable.h"
#include "server/base/executor.h"
#include "server/base/mutex.h"

namespace hearth {

// Thread-safe.
class TaskGroup {
 public:
  // run: on the executor. drop: the executor is shutting down and destroys the task unrun, on
  // whatever thread that happens; what the task owes to others still has to be paid.
  enum class How { kRun, kDrop };
  using Work = absl::AnyInvocable<void(How) &&>;

  ~TaskGroup() { Wait(); }

  // `work` is called once, one way or the other.
  void Post(Executor& executor, Work work) {
    auto posted = std::make_unique<Posted>(*this, std::move(work));
    executor.Post([posted = std::move(posted)] { posted->Do(How::kRun); });
  }

  // Until every task posted so far is gone.
  void Wait() {
    MutexLock lock(mu_);
    while (count_ > 0) none_.Wait(mu_);
  }

 private:
  struct Posted {
    Posted(TaskGroup& g, Work w) : group(g), work(std::move(w)) {
      MutexLock lock(group.mu_);
      ++group.count_;
    }
    ~Posted() {
      if (work) Do(How::kDrop);
      MutexLock lock(group.mu_);
      if (--group.count_ == 0) group.none_.NotifyAll();
    }
    void Do(How how) {
      Work mine = std::exchange(work, nullptr);
      std::move(mine)(how);
    }
    TaskGroup& group;
    Work work;
  };

  Mutex mu_;
  CondVar none_;
  std::int64_t count_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace hearth
