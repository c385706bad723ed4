#include "server/frontend/event_loop.h"

#include <gtest/gtest.h>

#include <thread>

namespace hearth {
namespace {

TEST(CallCount, IsNoneUntilThereIsACall) {
  CallCount calls;
  EXPECT_TRUE(calls.WaitForNone(TimePoint::min()));
  calls.Add();
  EXPECT_EQ(calls.count(), 1);
  EXPECT_FALSE(calls.WaitForNone(TimePoint::min()));
}

TEST(CallCount, WakesWhoWaitsForTheLastCall) {
  CallCount calls;
  calls.Add();
  calls.Add();
  std::thread others([&] {
    calls.Remove();
    calls.Remove();
  });
  EXPECT_TRUE(calls.WaitForNone(kNoDeadline));
  others.join();
  EXPECT_EQ(calls.count(), 0);
}

}  // namespace
}  // namespace hearth
