// How often a model is asked for, with a memory that fades.
#pragma once

#include <cmath>
#include <cstdint>

#include "server/base/clock.h"

namespace hearth {

// Counts uses, each worth half as much after every half-life: of a model that is asked for at a steady pace it comes
// to the uses of 1.44 half-lives. Outlives what is resident, so a model that comes back is known.
//
// Thread-compatible.
class Demand {
 public:
  // `uses` since the last call, the latest at `last`; the others are taken to be spread evenly in between.
  void Add(std::uint64_t uses, TimePoint last, Duration half_life) {
    if (uses == 0) return;
    if (last < at_) last = at_;
    const double lives = at_ == TimePoint{} ? 0 : Lives(last - at_, half_life);
    const double kept = std::exp2(-lives);
    const double average = lives > 1e-9 ? (1 - kept) / (lives * std::log(2.0)) : 1;
    sum_ = sum_ * kept + 1 + static_cast<double>(uses - 1) * average;
    at_ = last;
  }

  double At(TimePoint now, Duration half_life) const {
    return sum_ == 0 ? 0 : sum_ * std::exp2(-Lives(now - at_, half_life));
  }

 private:
  static double Lives(Duration time, Duration half_life) { return ToSeconds(time) / ToSeconds(half_life); }

  double sum_ = 0;  // as of at_
  TimePoint at_{};
};

}  // namespace hearth
