#include "server/residency/idle_gaps.h"

#include <algorithm>

namespace hearth {
namespace {

constexpr std::size_t kLeftOut = 5;   // one of so many, at either end
constexpr float kAlike = 0.25F;       // of the typical gap, between the least and the greatest of the others

Duration Seconds(float seconds) { return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(seconds)); }

}  // namespace

void IdleGaps::Add(Duration gap) { seconds_[added_++ % kKept] = static_cast<float>(ToSeconds(gap)); }

std::optional<IdleGaps::Period> IdleGaps::Regular() const {
  const std::size_t count = std::min(added_, kKept);
  if (count < kFewest) return std::nullopt;
  std::array<float, kKept> sorted = seconds_;
  std::sort(sorted.begin(), sorted.begin() + static_cast<std::ptrdiff_t>(count));
  const float least = sorted[count / kLeftOut];
  const float greatest = sorted[count - 1 - count / kLeftOut];
  const float typical = sorted[count / 2];
  const float spread = greatest - least;
  if (spread > typical * kAlike) return std::nullopt;
  return Period{Seconds(typical), Seconds(std::max(0.0F, least - spread))};
}

}  // namespace hearth
