#include "server/residency/demand.h"

#include <gtest/gtest.h>

namespace hearth {
namespace {

using std::chrono::hours;
using std::chrono::minutes;
using std::chrono::seconds;

constexpr Duration kHalfLife = hours(1);
const TimePoint kStart = TimePoint(hours(1000));

TEST(Demand, IsNothingForWhatWasNeverAskedFor) { EXPECT_EQ(Demand().At(kStart, kHalfLife), 0); }

TEST(Demand, HalvesWithEveryHalfLife) {
  Demand demand;
  demand.Add(1, kStart, kHalfLife);
  EXPECT_DOUBLE_EQ(demand.At(kStart, kHalfLife), 1);
  EXPECT_DOUBLE_EQ(demand.At(kStart + hours(1), kHalfLife), 0.5);
  EXPECT_DOUBLE_EQ(demand.At(kStart + hours(3), kHalfLife), 0.125);
}

TEST(Demand, OfASteadyPaceIsTheUsesOfOneAndAHalfHalfLives) {
  Demand demand;
  TimePoint now = kStart;
  for (int i = 0; i < 24 * 60; ++i) demand.Add(1, now += minutes(1), kHalfLife);
  EXPECT_NEAR(demand.At(now, kHalfLife), 60 / std::log(2.0), 1);
}

TEST(Demand, ComesToTheSameWhenItIsToldLate) {
  Demand at_once, late;
  TimePoint now = kStart;
  at_once.Add(1, now, kHalfLife);
  late.Add(1, now, kHalfLife);
  for (int i = 0; i < 120; ++i) at_once.Add(1, now += minutes(1), kHalfLife);
  late.Add(120, now, kHalfLife);
  EXPECT_NEAR(late.At(now, kHalfLife), at_once.At(now, kHalfLife), 0.5);
}

TEST(Demand, ManyUsesInOneMomentAllCount) {
  Demand demand;
  demand.Add(1, kStart, kHalfLife);
  demand.Add(99, kStart, kHalfLife);
  EXPECT_NEAR(demand.At(kStart, kHalfLife), 100, 1e-6);
}

TEST(Demand, TimeNeverRunsBackwards) {
  Demand demand;
  demand.Add(1, kStart, kHalfLife);
  demand.Add(1, kStart - seconds(5), kHalfLife);
  EXPECT_DOUBLE_EQ(demand.At(kStart, kHalfLife), 2);
}

}  // namespace
}  // namespace hearth
