#include "server/base/timer.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <memory>
#include <vector>

namespace hearth {
namespace {

using namespace std::chrono_literals;

TimePoint Now() { return SteadyClock().Now(); }

TEST(ThreadTimer, RunsTasksByTimeNotByOrderOfArrival) {
  ThreadTimer timer;
  std::vector<int> order;  // written by the timer's thread alone
  std::promise<void> done;
  const TimePoint base = Now() + 20ms;
  timer.At(base + 2ms, [&] { order.push_back(3); });
  timer.At(base, [&] { order.push_back(1); });
  timer.At(base, [&] { order.push_back(2); });  // same time: first come, first served
  timer.At(base + 3ms, [&] { done.set_value(); });
  done.get_future().wait();
  EXPECT_EQ(order, (std::vector<int>{1, 2, 3}));
  EXPECT_GE(Now(), base + 3ms);
}

TEST(ThreadTimer, RunsAnOverdueTaskButNeverInline) {
  ThreadTimer timer;
  std::promise<std::thread::id> ran_on;
  timer.At(Now() - 1h, [&] { ran_on.set_value(std::this_thread::get_id()); });
  EXPECT_NE(ran_on.get_future().get(), std::this_thread::get_id());
}

TEST(ThreadTimer, WakesUpForATaskThatIsDueBeforeTheOneItSleepsFor) {
  ThreadTimer timer;
  std::promise<void> done;
  timer.At(Now() + 24h, [] { FAIL() << "ran a day early"; });
  timer.At(kNoDeadline, [] { FAIL() << "ran at the end of time"; });
  timer.At(Now(), [&] { done.set_value(); });
  done.get_future().wait();
}

TEST(ThreadTimer, CancelsOnceAndDestroysTheTaskAtThatMoment) {
  ThreadTimer timer;
  auto held = std::make_shared<int>();
  const std::weak_ptr<int> watch = held;
  const Timer::Id id = timer.At(Now() + 24h, [held = std::move(held)] { FAIL() << "cancelled"; });
  EXPECT_FALSE(watch.expired());
  EXPECT_TRUE(timer.Cancel(id));
  EXPECT_TRUE(watch.expired());
  EXPECT_FALSE(timer.Cancel(id));
  EXPECT_FALSE(timer.Cancel(id + 1000));
}

TEST(ThreadTimer, CannotCancelATaskThatRan) {
  ThreadTimer timer;
  std::promise<void> done;
  const Timer::Id id = timer.At(Now(), [&] { done.set_value(); });
  done.get_future().wait();
  EXPECT_FALSE(timer.Cancel(id));
}

TEST(ThreadTimer, LetsATaskUseTheTimer) {
  ThreadTimer timer;
  std::promise<bool> cancelled;
  const Timer::Id other = timer.At(Now() + 24h, [] {});
  timer.At(Now(), [&, other] {
    const bool gone = timer.Cancel(other);
    timer.At(Now(), [&cancelled, gone] { cancelled.set_value(gone); });
  });
  EXPECT_TRUE(cancelled.get_future().get());
}

TEST(ThreadTimer, DropsWhatIsLeftAtTheEnd) {
  struct CancelsWhenDestroyed {
    Timer* timer;
    Timer::Id other;
    bool* destroyed;
    CancelsWhenDestroyed(Timer* t, Timer::Id o, bool* d) : timer(t), other(o), destroyed(d) {}
    ~CancelsWhenDestroyed() {
      EXPECT_FALSE(timer->Cancel(other));  // nothing is left to cancel, and nothing breaks
      *destroyed = true;
    }
  };
  bool destroyed = false;
  {
    ThreadTimer timer;
    const Timer::Id other = timer.At(Now() + 24h, [] { FAIL(); });
    timer.At(Now() + 24h, [held = std::make_shared<CancelsWhenDestroyed>(
                               &timer, other, &destroyed)] { FAIL() << "ran at the end"; });
  }
  EXPECT_TRUE(destroyed);
}

}  // namespace
}  // namespace hearth
