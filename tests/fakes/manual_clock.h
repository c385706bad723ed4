// Time that passes when the test says so.
#pragma once

#include <atomic>

#include "server/base/clock.h"

namespace hearth::fakes {

// Starts at an arbitrary point, not at zero. Thread-safe.
class ManualClock final : public Clock {
 public:
  TimePoint Now() const override { return TimePoint(Duration(now_.load())); }
  WallTime WallNow() const override {
    return WallTime(std::chrono::hours(24 * 365 * 50) +
                    std::chrono::duration_cast<WallTime::duration>(Duration(now_.load())));
  }
  void Advance(Duration by) { now_.fetch_add(by.count()); }

 private:
  std::atomic<Duration::rep> now_{Duration(std::chrono::hours(1)).count()};
};

}  // namespace hearth::fakes
