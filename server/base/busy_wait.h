// Waiting for work without going to sleep, where that is worth it.
#pragma once

#include <atomic>
#include <cstddef>

#include "server/base/clock.h"

namespace hearth {

// To wake a thread on an idle processor takes tens of microseconds on a virtual machine: more than all that a small model
// does. So a thread whose tasks are short looks for the next one for a moment before it sleeps. It gives way whenever
// anybody else has something to do on its processor, and what such looks bring decides how many there are: few where they
// find nothing, because requests are rare, and few where others had the processor for most of the time, because there is
// more to do than processors to do it.
//
// Thread-compatible.
class BusyWait {
 public:
  // longest: of one look. Zero: there are none.
  explicit BusyWait(Duration longest) : longest_(longest) {}

  struct Looked {
    Duration took{};
    Duration lost{};  // of it, to others
    bool found = false;
  };

  // Whether to look now, before the thread sleeps. Each call is one time that it would.
  [[nodiscard]] bool IsDue();
  // Returns when `queued` is not 0 any more, or after `longest`.
  [[nodiscard]] static Looked Look(const std::atomic<std::size_t>& queued, Duration longest);
  void Learn(const Looked& looked);

 private:
  const Duration longest_;
  double lost_share_ = kUnknown;  // moving average over looks
  int left_out_ = 0;              // so many times more

  static constexpr double kUnknown = 0.5;
};

}  // namespace hearth
