#include "server/base/heartbeats.h"

#include <gtest/gtest.h>

#include "tests/fakes/manual_clock.h"

namespace hearth {
namespace {

TEST(Heartbeats, WhoHasNotBeatenForAWhileHasStoppedUntilItBeatsAgain) {
  fakes::ManualClock clock;
  Heartbeats heartbeats(clock);
  EXPECT_TRUE(heartbeats.stopped().empty());
  Heartbeats::Pulse& one = heartbeats.Add("one");
  Heartbeats::Pulse& two = heartbeats.Add("two");
  clock.Advance(Heartbeats::kPatience - Heartbeats::kBeat);
  EXPECT_TRUE(heartbeats.stopped().empty());
  two.Beat();
  clock.Advance(Heartbeats::kBeat);
  ASSERT_EQ(heartbeats.stopped().size(), 1u);
  EXPECT_EQ(heartbeats.stopped()[0].name, "one");
  EXPECT_EQ(heartbeats.stopped()[0].since, Heartbeats::kPatience);
  one.Beat();
  EXPECT_TRUE(heartbeats.stopped().empty());
}

}  // namespace
}  // namespace hearth
