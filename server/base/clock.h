// Time as a dependency. Tests use fakes::ManualClock.
#pragma once

#include <chrono>

namespace hearth {

using Duration = std::chrono::steady_clock::duration;
using TimePoint = std::chrono::steady_clock::time_point;
using WallTime = std::chrono::system_clock::time_point;

// A point after which an answer is of no use. kNoDeadline: the caller waits for ever.
using Deadline = TimePoint;
inline constexpr Deadline kNoDeadline = Deadline::max();

// Thread-safe.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual TimePoint Now() const = 0;     // monotonic; for durations and deadlines
  virtual WallTime WallNow() const = 0;  // for people
};

class SteadyClock final : public Clock {
 public:
  TimePoint Now() const override { return std::chrono::steady_clock::now(); }
  WallTime WallNow() const override { return std::chrono::system_clock::now(); }
};

inline double ToSeconds(Duration d) { return std::chrono::duration<double>(d).count(); }
inline double ToMilliseconds(Duration d) {
  return std::chrono::duration<double, std::milli>(d).count();
}

}  // namespace hearth
