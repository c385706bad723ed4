#include "server/serving/concurrency.h"

#include "server/base/check.h"

namespace hearth {

RunQueue::~RunQueue() {
  MutexLock lock(mu_);
  HEARTH_CHECK(running_ == 0 && waiting_.empty());
}

void RunQueue::Submit(std::unique_ptr<Runnable> run) {
  executor_.Post([run = std::move(run)]() mutable {
    Runnable& runnable = *run;
    runnable.Run(std::move(run));
  });
}

bool RunQueue::HasRoom() const {
  const int limit = limit_.load(std::memory_order_relaxed);
  return limit == 0 || running_ < limit;
}

void RunQueue::Post(std::unique_ptr<Runnable> run) {
  if (limit_.load(std::memory_order_relaxed) != 0) {
    MutexLock lock(mu_);
    if (!HasRoom() || !waiting_.empty()) {
      waiting_.push_back(std::move(run));
      return;
    }
    ++running_;
    run->slot = Slot(this);
  }
  // Nothing of this object is touched from here on: the run may be over, and with it the service.
  Submit(std::move(run));
}

void RunQueue::SetLimit(int limit) {
  {
    MutexLock lock(mu_);
    limit_.store(limit, std::memory_order_relaxed);
  }
  StartWaiting();
}

void RunQueue::Finished() {
  {
    MutexLock lock(mu_);
    --running_;
  }
  StartWaiting();
}

// One thread at a time, in a loop: an executor that has shut down destroys what it is given at
// once, which gives the slot back and comes here again, and with a long queue that must not
// recurse.
void RunQueue::StartWaiting() {
  while (true) {
    std::unique_ptr<Runnable> next;
    {
      MutexLock lock(mu_);
      if (starting_ || waiting_.empty() || !HasRoom()) return;
      starting_ = true;
      next = std::move(waiting_.front());
      waiting_.pop_front();
      ++running_;
    }
    next->slot = Slot(this);
    Submit(std::move(next));
    MutexLock lock(mu_);
    starting_ = false;
  }
}

}  // namespace hearth
