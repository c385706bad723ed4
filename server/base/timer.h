// Things that happen at a time: deadlines of waiting requests, back-offs.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <map>
#include <thread>
#include <unordered_map>

#include "server/base/clock.h"
#include "server/base/executor.h"
#include "server/base/mutex.h"

namespace hearth {

// Thread-safe.
class Timer {
 public:
  using Id = std::uint64_t;

  virtual ~Timer() = default;

  // Runs `task` once, at or soon after `when`, on the timer's own thread: it must be short. Never
  // inline, even when `when` has passed.
  virtual Id At(TimePoint when, Executor::Task task) = 0;

  // True: the task will not run and has been destroyed. False: it ran, runs now, or is unknown.
  virtual bool Cancel(Id id) = 0;
};

// One thread that sleeps until the next task is due. Tasks left at destruction are dropped unrun.
class ThreadTimer final : public Timer {
 public:
  ThreadTimer();
  ~ThreadTimer() override;

  Id At(TimePoint when, Executor::Task task) override ABSL_LOCKS_EXCLUDED(mu_);
  bool Cancel(Id id) override ABSL_LOCKS_EXCLUDED(mu_);

 private:
  using Queue = std::multimap<TimePoint, std::pair<Id, Executor::Task>>;

  void Loop() ABSL_LOCKS_EXCLUDED(mu_);

  Mutex mu_;
  CondVar wake_;
  Queue queue_ ABSL_GUARDED_BY(mu_);
  std::unordered_map<Id, Queue::iterator> by_id_ ABSL_GUARDED_BY(mu_);
  Id next_id_ ABSL_GUARDED_BY(mu_) = 1;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace hearth
