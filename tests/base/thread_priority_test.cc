#include "server/base/thread_priority.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/resource.h>

#include <thread>

namespace hearth {
namespace {

TEST(ThreadPriority, AThreadCanStandBackAndTheOthersStayAsTheyAre) {
  const int before = ::sched_getscheduler(0);
  int inside = -1;
  std::thread([&inside] {
    RunThisThreadWhenIdle();
    inside = ::sched_getscheduler(0);
  }).join();
  EXPECT_EQ(inside, SCHED_IDLE);
  EXPECT_EQ(::sched_getscheduler(0), before);
}

TEST(ThreadPriority, AThreadInTheBackgroundGetsLessThanTheOthers) {
  const int before = ::getpriority(PRIO_PROCESS, 0);
  int inside = before;
  std::thread([&inside] {
    RunThisThreadInBackground();
    inside = ::getpriority(PRIO_PROCESS, 0);
  }).join();
  EXPECT_GT(inside, before) << "nice";
  EXPECT_EQ(::getpriority(PRIO_PROCESS, 0), before);
}

}  // namespace
}  // namespace hearth
