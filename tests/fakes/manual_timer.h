// A timer that rings when the test says so, on the test's thread.
#pragma once

#include <cstddef>
#include <map>
#include <optional>
#include <utility>

#include "server/base/clock.h"
#include "server/base/mutex.h"
#include "server/base/timer.h"

namespace hearth::fakes {

// Thread-safe.
class ManualTimer final : public Timer {
 public:
  explicit ManualTimer(const Clock& clock) : clock_(clock) {}

  Id At(TimePoint when, Executor::Task task) override {
    MutexLock lock(mu_);
    entries_.emplace(std::make_pair(when, next_), std::move(task));
    return next_++;
  }

  bool Cancel(Id id) override {
    Executor::Task cancelled;  // destroyed after the lock is gone
    MutexLock lock(mu_);
    for (auto it = entries_.begin(); it != entries_.end(); ++it) {
      if (it->first.second != id) continue;
      cancelled = std::move(it->second);
      entries_.erase(it);
      return true;
    }
    return false;
  }

  // Runs what is due by the clock, earliest first. Returns how many ran.
  std::size_t RunDue() {
    std::size_t ran = 0;
    while (true) {
      Executor::Task task;
      {
        MutexLock lock(mu_);
        if (entries_.empty() || entries_.begin()->first.first > clock_.Now()) return ran;
        task = std::move(entries_.begin()->second);
        entries_.erase(entries_.begin());
      }
      std::move(task)();
      ++ran;
    }
  }

  std::optional<TimePoint> next() const {
    MutexLock lock(mu_);
    if (entries_.empty()) return std::nullopt;
    return entries_.begin()->first.first;
  }

  std::size_t pending() const {
    MutexLock lock(mu_);
    return entries_.size();
  }

 private:
  const Clock& clock_;
  mutable Mutex mu_;
  std::map<std::pair<TimePoint, Id>, Executor::Task> entries_ ABSL_GUARDED_BY(mu_);
  Id next_ ABSL_GUARDED_BY(mu_) = 1;
};

}  // namespace hearth::fakes
