// How long a model is not asked for, and when it will be asked for next.
#pragma once

#include <array>
#include <cstddef>
#include <optional>

#include "server/base/clock.h"

namespace hearth {

// The last gaps in the use of a model, each of them as it was: in bins that are few enough to be kept for every model
// a job of once in six hours would be expected half an hour early. Those of long ago are forgotten, so that another
// timetable is learned.
//
// Thread-compatible.
class IdleGaps {
 public:
  static constexpr std::size_t kKept = 16;
  static constexpr std::size_t kFewest = 4;  // before that nothing is foretold

  void Add(Duration gap);

  struct Period {
    Duration typical{};
    Duration earliest{};  // hardly any gap was shorter
  };
  // What they have in common, leaving out a fifth of them at either end. None: there are too few, or they differ by
  // more than a quarter, as those of a model do that is asked for at random.
  std::optional<Period> Regular() const;

 private:
  std::array<float, kKept> seconds_{};
  std::size_t added_ = 0;
};

// A use of a model that is foreseen.
struct Expectation {
  Duration every{};     // it was asked for
  TimePoint at{};       // the use, more or less
  TimePoint load_at{};  // when its load has to begin at the latest, to be ready in time also for one that comes early
};

}  // namespace hearth
