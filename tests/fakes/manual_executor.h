// An executor that runs when the test says so, on the test's thread.
#pragma once

#include <cstddef>
#include <deque>
#include <utility>

#include "server/base/executor.h"
#include "server/base/mutex.h"

namespace hearth::fakes {

// A class that waits in its destructor for the tasks it posted needs them run (or dropped) first:
// call its Shutdown(), then RunAll(), then destroy it. Thread-safe.
class ManualExecutor final : public Executor {
 public:
  // `width`: what it says, no more: the test runs as many at once as it likes.
  explicit ManualExecutor(std::size_t width = 1) : width_(width) {}

  std::size_t width() const override { return width_; }
  bool Replace() override {
    MutexLock lock(mu_);
    if (replaced_ == replacements_) return false;
    ++replaced_;
    return true;
  }
  // So many at most from now on.
  void SetReplacements(int replacements) {
    MutexLock lock(mu_);
    replacements_ = replacements;
  }
  void EndReplacement() override {
    MutexLock lock(mu_);
    --replaced_;
  }
  int replaced() const {
    MutexLock lock(mu_);
    return replaced_;
  }

  void Post(Task task) override {
    Task refused;  // destroyed after the lock is gone
    MutexLock lock(mu_);
    if (shut_down_) {
      refused = std::move(task);
    } else {
      queue_.push_back(std::move(task));
    }
  }

  // The oldest task, if there is one.
  bool RunOne() {
    Task task;
    {
      MutexLock lock(mu_);
      if (queue_.empty()) return false;
      task = std::move(queue_.front());
      queue_.pop_front();
    }
    std::move(task)();
    return true;
  }

  // Also what the tasks post. Returns how many ran.
  std::size_t RunAll() {
    std::size_t ran = 0;
    while (RunOne()) ++ran;
    return ran;
  }

  // As ThreadPool::Shutdown: what is queued, and what comes later, is destroyed unrun.
  void ShutDown() {
    std::deque<Task> dropped;  // destroyed after the lock is gone
    MutexLock lock(mu_);
    shut_down_ = true;
    dropped.swap(queue_);
  }

  std::size_t queued() const {
    MutexLock lock(mu_);
    return queue_.size();
  }

 private:
  const std::size_t width_;
  mutable Mutex mu_;
  std::deque<Task> queue_ ABSL_GUARDED_BY(mu_);
  bool shut_down_ ABSL_GUARDED_BY(mu_) = false;
  int replaced_ ABSL_GUARDED_BY(mu_) = 0;
  int replacements_ ABSL_GUARDED_BY(mu_) = 1000;
};

}  // namespace hearth::fakes
