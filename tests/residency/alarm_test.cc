#include "server/residency/alarm.h"

#include <gtest/gtest.h>

#include "server/residency/task_group.h"
#include "tests/fakes/manual_clock.h"
#include "tests/fakes/manual_executor.h"
#include "tests/fakes/manual_timer.h"

namespace hearth {
namespace {

using std::chrono::seconds;

class AlarmTest : public testing::Test {
 protected:
  int RingsAfter(Duration wait) {
    clock_.Advance(wait);
    const int before = rings_;
    timer_.RunDue();
    return rings_ - before;
  }
  TimePoint In(int s) { return clock_.Now() + seconds(s); }

  fakes::ManualClock clock_;
  fakes::ManualTimer timer_{clock_};
  int rings_ = 0;
};

TEST_F(AlarmTest, RingsForTheEarliestOfManyTimesWithOneTimerEntry) {
  Alarm alarm(timer_, [this] { ++rings_; });
  alarm.SetBy(In(30));
  alarm.SetBy(In(10));
  alarm.SetBy(In(20));
  EXPECT_EQ(timer_.pending(), 1u);
  EXPECT_EQ(RingsAfter(seconds(9)), 0);
  EXPECT_EQ(RingsAfter(seconds(1)), 1);
  EXPECT_EQ(RingsAfter(seconds(60)), 0) << "whoever it rings for sets it again";
}

TEST_F(AlarmTest, CanBeSetAgainWhileItRings) {
  Alarm* self = nullptr;
  Alarm alarm(timer_, [&] {
    if (++rings_ == 1) self->SetBy(In(5));
  });
  self = &alarm;
  alarm.SetBy(In(1));
  EXPECT_EQ(RingsAfter(seconds(1)), 1);
  EXPECT_EQ(RingsAfter(seconds(5)), 1);
}

TEST_F(AlarmTest, DoesNotRingAfterItsDestruction) {
  { Alarm(timer_, [this] { ++rings_; }).SetBy(In(1)); }
  EXPECT_EQ(timer_.pending(), 0u);
  EXPECT_EQ(RingsAfter(seconds(2)), 0);
}

TEST(TaskGroup, CallsItsWorkOnceWhetherTheExecutorRunsOrDropsIt) {
  fakes::ManualExecutor executor;
  std::vector<TaskGroup::How> calls;
  TaskGroup group;
  const auto work = [&](TaskGroup::How how) { calls.push_back(how); };
  group.Post(executor, work);
  executor.RunAll();
  group.Post(executor, work);
  executor.ShutDown();
  group.Post(executor, work);
  using enum TaskGroup::How;
  EXPECT_EQ(calls, (std::vector<TaskGroup::How>{kRun, kDrop, kDrop}));
  group.Wait();  // does not block: nothing is left
}

}  // namespace
}  // namespace hearth
