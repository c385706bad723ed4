#include "server/base/timer.h"

#include <pthread.h>

#include <utility>

namespace hearth {

ThreadTimer::ThreadTimer() : thread_([this] { Loop(); }) {
  pthread_setname_np(thread_.native_handle(), "timer");
}

ThreadTimer::~ThreadTimer() {
  {
    MutexLock lock(mu_);
    stopping_ = true;
    wake_.NotifyAll();
  }
  thread_.join();
  Queue dropped;  // destroyed while the timer is still whole: a task's destructor may call Cancel
  {
    MutexLock lock(mu_);
    dropped.swap(queue_);
    by_id_.clear();
  }
}

Timer::Id ThreadTimer::At(TimePoint when, Executor::Task task) {
  MutexLock lock(mu_);
  const Id id = next_id_++;
  auto it = queue_.emplace(when, std::make_pair(id, std::move(task)));
  by_id_.emplace(id, it);
  if (it == queue_.begin()) wake_.NotifyOne();
  return id;
}

bool ThreadTimer::Cancel(Id id) {
  Executor::Task cancelled;  // destroyed after the lock is gone
  MutexLock lock(mu_);
  auto found = by_id_.find(id);
  if (found == by_id_.end()) return false;
  cancelled = std::move(found->second->second.second);
  queue_.erase(found->second);
  by_id_.erase(found);
  return true;
}

void ThreadTimer::Loop() {
  mu_.Lock();
  while (!stopping_) {
    if (queue_.empty()) {
      wake_.Wait(mu_);
      continue;
    }
    auto first = queue_.begin();
    const TimePoint due = first->first;
    if (std::chrono::steady_clock::now() < due) {
      wake_.WaitUntil(mu_, due);
      continue;
    }
    Executor::Task task = std::move(first->second.second);
    by_id_.erase(first->second.first);
    queue_.erase(first);
    mu_.Unlock();
    std::move(task)();
    task = nullptr;
    mu_.Lock();
  }
  mu_.Unlock();
}

}  // namespace hearth
