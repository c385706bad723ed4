#include "server/base/busy_wait.h"

#include <gtest/gtest.h>

#include <chrono>

namespace hearth {
namespace {

using std::chrono::microseconds;

constexpr Duration kLongest = microseconds(200);
constexpr BusyWait::Looked kFound{microseconds(100), microseconds(10), true};
constexpr BusyWait::Looked kNothing{microseconds(200), {}, false};
constexpr BusyWait::Looked kDisturbed{microseconds(200), microseconds(195), true};

// How many times it is not due before it is again.
int LeftOut(BusyWait& wait) {
  int times = 0;
  while (!wait.IsDue()) ++times;
  return times;
}

TEST(BusyWait, LooksEveryTimeWhileItFindsSomething) {
  BusyWait wait(kLongest);
  for (int i = 0; i < 100; ++i) {
    EXPECT_TRUE(wait.IsDue());
    wait.Learn(kFound);
  }
}

TEST(BusyWait, IsLeftOutForAWhileWhenItFoundNothing) {
  BusyWait wait(kLongest);
  wait.Learn(kNothing);
  EXPECT_EQ(LeftOut(wait), 32);
  wait.Learn(kFound);
  EXPECT_EQ(LeftOut(wait), 0);
}

TEST(BusyWait, IsLeftOutForLongWhenOthersNeedTheProcessor) {
  BusyWait wait(kLongest);
  int looks = 0;
  do {
    wait.Learn(kDisturbed);
    ++looks;
  } while (wait.IsDue());
  EXPECT_GT(looks, 3);  // once is chance
  EXPECT_LT(looks, 30);
  EXPECT_EQ(LeftOut(wait), 999);
  wait.Learn(kDisturbed);
  EXPECT_EQ(LeftOut(wait), 0);  // what was is forgotten
}

TEST(BusyWait, IsNeverDueWhereItMayTakeNoTime) {
  BusyWait wait(Duration::zero());
  for (int i = 0; i < 2000; ++i) EXPECT_FALSE(wait.IsDue());
}

TEST(BusyWait, ALookEndsAtOnceWhereSomethingIsQueuedAndElseWhenItsTimeIsOver) {
  const std::atomic<std::size_t> none{0}, one{1};
  const BusyWait::Looked found = BusyWait::Look(one, kLongest);
  EXPECT_TRUE(found.found);
  EXPECT_EQ(found.took, Duration::zero());
  const BusyWait::Looked nothing = BusyWait::Look(none, kLongest);
  EXPECT_FALSE(nothing.found);
  EXPECT_GE(nothing.took, kLongest);
  EXPECT_LE(nothing.lost, nothing.took);
}

}  // namespace
}  // namespace hearth
