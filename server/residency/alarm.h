// One timer entry for many deadlines: it is always set for the earliest one asked for.
#pragma once

#include <cstdint>
#include <functional>
#include <utility>

#include "server/base/mutex.h"
#include "server/base/timer.h"

namespace hearth {

// Rings on the timer's thread. Thread-safe. Its lock is held over Timer::At and Cancel, which run
// nothing inline, and never over `ring`.
class Alarm {
 public:
  Alarm(Timer& timer, std::function<void()> ring) : timer_(timer), ring_(std::move(ring)) {}
  ~Alarm();  // does not ring again; waits if it is ringing

  // Rings at or soon after the earliest of the times asked for since it last rang.
  void SetBy(TimePoint when) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  void Ring(std::uint64_t setting) ABSL_LOCKS_EXCLUDED(mu_);

  Timer& timer_;
  const std::function<void()> ring_;
  Mutex mu_;
  CondVar quiet_;
  Timer::Id id_ ABSL_GUARDED_BY(mu_) = 0;
  TimePoint set_for_ ABSL_GUARDED_BY(mu_) = TimePoint::max();  // max: not set
  std::uint64_t setting_ ABSL_GUARDED_BY(mu_) = 0;  // counts them
  int pending_ ABSL_GUARDED_BY(mu_) = 0;            // timer entries that will ring, or are ringing
  bool closing_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace hearth
