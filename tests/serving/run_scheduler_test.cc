#include "server/serving/run_scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/fakes/manual_clock.h"
#include "tests/fakes/manual_executor.h"
#include "tests/fakes/manual_timer.h"

namespace hearth {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::ElementsAre;

struct Log {
  std::vector<std::string> ran;
  std::vector<RunSlot> slots;  // of those that run until the test ends them
  std::vector<std::string> refused;
  std::vector<std::string> dropped;
};

// Notes that it ran; keeps its slot until the test lets it go.
class Job final : public RunJob {
 public:
  Job(std::string name, Log& log) : name_(std::move(name)), log_(&log) {}
  ~Job() override {
    if (!done_) log_->dropped.push_back(name_);
  }
  absl::Status StillWanted(TimePoint now) const override {
    return deadline <= now ? absl::DeadlineExceededError("late") : absl::OkStatus();
  }
  bool MayJoin(const RunJob&, const BatchingOptions&) const override { return true; }
  void Run(std::vector<Ptr> batch, RunSlot slot) override {
    std::string names;
    for (const Ptr& job : batch) {
      names += static_cast<Job&>(*job).name_;
      static_cast<Job&>(*job).done_ = true;
    }
    log_->ran.push_back(names);
    log_->slots.push_back(std::move(slot));
  }
  void Refuse(absl::Status why) override {
    done_ = true;
    log_->refused.push_back(name_ + ": " + std::string(why.message()));
  }
  Deadline deadline = kNoDeadline;

 private:
  std::string name_;
  Log* log_;
  bool done_ = false;
};

class RunSchedulerTest : public testing::Test {
 protected:
  ~RunSchedulerTest() override {
    executor_.ShutDown();
    reserve_.ShutDown();
    log_.slots.clear();
  }
  void Post(RunScheduler::Lane& lane, const std::string& name, Deadline deadline = kNoDeadline) {
    auto job = std::make_unique<Job>(name, log_);
    job->deadline = deadline;
    scheduler_.Post(lane, std::move(job));
  }
  void Post(const std::string& name) { Post(a_, name); }
  void Limit(int limit) { scheduler_.SetPolicy(a_, {.limit = limit, .max_batch_size = 0, .batching = {}, .queue = {}}); }
  // The oldest run ends, having taken so long.
  void End(Duration took) {
    clock_.Advance(took);
    log_.slots.erase(log_.slots.begin());
  }
  // So long is what a run of it takes.
  void Teach(RunScheduler::Lane& lane, Duration typical) {
    Post(lane, "");
    executor_.RunAll();
    End(typical);
    log_.ran.clear();
  }

  fakes::ManualClock clock_;
  fakes::ManualTimer timer_{clock_};
  fakes::ManualExecutor executor_;
  fakes::ManualExecutor reserve_;
  Log log_;
  std::vector<RunScheduler::Overdue> overdue_;
  RunScheduler::Lane a_{ModelId{"a", 1}}, b_{ModelId{"b", 1}}, c_{ModelId{"c", 1}};
  RunScheduler scheduler_{{executor_, timer_, clock_, &reserve_, [this](const auto& run) { overdue_.push_back(run); }}};
};

TEST_F(RunSchedulerTest, WithoutALimitEverythingGoesToTheExecutorInItsOrder) {
  for (const char* name : {"0", "1", "2"}) Post(name);
  EXPECT_EQ(executor_.queued(), 3u);
  executor_.RunAll();
  EXPECT_THAT(log_.ran, ElementsAre("0", "1", "2"));
}

TEST_F(RunSchedulerTest, HoldsBackWhatIsOverTheLimitFirstComeFirstServed) {
  Limit(2);
  for (const char* name : {"0", "1", "2", "3", "4"}) Post(name);
  executor_.RunAll();
  EXPECT_THAT(log_.ran, ElementsAre("0", "1"));
  log_.slots.erase(log_.slots.begin());
  executor_.RunAll();
  EXPECT_THAT(log_.ran, ElementsAre("0", "1", "2"));
  log_.slots.clear();
  executor_.RunAll();
  EXPECT_THAT(log_.ran, ElementsAre("0", "1", "2", "3", "4"));
}

TEST_F(RunSchedulerTest, NeverRunsInline) {
  Limit(1);
  Post("0");
  Post("1");
  EXPECT_TRUE(log_.ran.empty());
  executor_.RunAll();
  log_.slots.clear();
  EXPECT_THAT(log_.ran, ElementsAre("0"));
  executor_.RunAll();
  EXPECT_THAT(log_.ran, ElementsAre("0", "1"));
}

TEST_F(RunSchedulerTest, ALimitThatIsRaisedOrLiftedLetsWaitingOnesGo) {
  Limit(1);
  for (int i = 0; i < 6; ++i) Post(std::to_string(i));
  executor_.RunAll();
  EXPECT_EQ(log_.ran.size(), 1u);
  Limit(3);
  executor_.RunAll();
  EXPECT_EQ(log_.ran.size(), 3u);
  Limit(0);
  executor_.RunAll();
  EXPECT_EQ(log_.ran.size(), 6u);
}

TEST_F(RunSchedulerTest, ALimitThatIsLoweredHoldsOnceEnoughHaveEnded) {
  Limit(3);
  for (int i = 0; i < 6; ++i) Post(std::to_string(i));
  executor_.RunAll();
  Limit(1);
  log_.slots.pop_back();
  log_.slots.pop_back();
  executor_.RunAll();
  EXPECT_EQ(log_.ran.size(), 3u);
  log_.slots.pop_back();
  executor_.RunAll();
  EXPECT_EQ(log_.ran.size(), 4u);
}

TEST_F(RunSchedulerTest, AnExecutorThatDropsEverythingLeavesNothingBehind) {
  Limit(1);
  for (int i = 0; i < 50'000; ++i) Post("x");
  executor_.ShutDown();
  EXPECT_TRUE(log_.ran.empty());
  EXPECT_EQ(log_.dropped.size(), 50'000u);
  Post("late");
  EXPECT_EQ(log_.dropped.size(), 50'001u);
}

TEST_F(RunSchedulerTest, AModelWithMuchToDoTakesTurnsWithTheOthers) {
  for (int i = 0; i < 4; ++i) Post(a_, "a");
  Post(b_, "b");
  executor_.RunOne();
  End(milliseconds(5));  // a has had something, b has not
  executor_.RunOne();
  End(milliseconds(5));
  EXPECT_THAT(log_.ran, ElementsAre("a", "b"));
}

TEST_F(RunSchedulerTest, TheThreadsTimeIsSharedNotTheNumberOfRuns) {
  Teach(a_, milliseconds(9));
  Teach(b_, milliseconds(3));
  for (int i = 0; i < 8; ++i) {
    Post(a_, "a");
    Post(b_, "b");
  }
  std::string order;
  for (int i = 0; i < 8; ++i) {
    executor_.RunOne();
    End(log_.ran.back() == "a" ? milliseconds(9) : milliseconds(3));
    order += log_.ran.back();
  }
  EXPECT_EQ(std::count(order.begin(), order.end(), 'b'), 6) << order;
}

TEST_F(RunSchedulerTest, AModelThatWasAwayHasNothingSavedUp) {
  Teach(a_, milliseconds(5));
  for (int i = 0; i < 100; ++i) Teach(b_, milliseconds(5));
  for (int i = 0; i < 3; ++i) {
    Post(b_, "b");
    Post(a_, "a");
  }
  for (int i = 0; i < 4; ++i) {
    executor_.RunOne();
    End(milliseconds(5));
  }
  EXPECT_EQ(std::count(log_.ran.begin(), log_.ran.end(), "b"), 2);
}

TEST_F(RunSchedulerTest, AQuickModelHasAThreadMoreWhileSlowOnesHoldAllOthers) {
  Teach(a_, seconds(1));
  Teach(b_, milliseconds(1));
  Post(a_, "a");
  executor_.RunAll();
  EXPECT_EQ(reserve_.queued(), 0u);  // nobody quick waits
  Post(a_, "a");
  EXPECT_EQ(reserve_.queued(), 0u);
  Post(b_, "b");
  Post(b_, "c");
  EXPECT_EQ(reserve_.RunAll(), 1u);
  EXPECT_THAT(log_.ran, ElementsAre("a", "b"));
  log_.slots.pop_back();
  reserve_.RunAll();
  EXPECT_THAT(log_.ran, ElementsAre("a", "b", "c"));
}

TEST_F(RunSchedulerTest, TheFirstRunOfAModelDoesNotWaitForSlowOnesEither) {
  Teach(a_, seconds(1));
  Teach(b_, milliseconds(1));
  Post(a_, "a");
  executor_.RunAll();
  Post(c_, "c");
  Post(c_, "d");
  Post(b_, "b");
  EXPECT_EQ(reserve_.RunAll(), 1u);
  EXPECT_THAT(log_.ran, ElementsAre("a", "b")) << "who is known to be quick goes first";
  log_.slots.pop_back();
  EXPECT_EQ(reserve_.RunAll(), 1u);
  EXPECT_THAT(log_.ran, ElementsAre("a", "b", "c"));
  log_.ran.clear();

  Post(b_, "b");
  EXPECT_EQ(reserve_.RunAll(), 0u);
  clock_.Advance(milliseconds(30));  // c is not quick
  timer_.RunDue();
  EXPECT_EQ(reserve_.replaced(), 1);
  EXPECT_EQ(reserve_.RunAll(), 1u);
  EXPECT_THAT(log_.ran, ElementsAre("b")) << "and c's second one waits";
  log_.slots.pop_back();
  log_.slots.pop_back();
  EXPECT_EQ(reserve_.replaced(), 0);
  EXPECT_EQ(reserve_.RunAll(), 0u) << "c is known by now";
  log_.slots.clear();
  executor_.RunAll();
  EXPECT_THAT(log_.ran, ElementsAre("b", "d"));
  log_.slots.clear();
}

TEST_F(RunSchedulerTest, AFirstRunThatCannotBeReplacedKeepsTheReserve) {
  reserve_.SetReplacements(0);
  Teach(a_, seconds(1));
  Teach(b_, milliseconds(1));
  Post(a_, "a");
  executor_.RunAll();
  Post(c_, "c");
  reserve_.RunAll();
  Post(b_, "b");
  clock_.Advance(milliseconds(30));
  timer_.RunDue();
  EXPECT_EQ(reserve_.RunAll(), 0u);
  log_.slots.pop_back();
  EXPECT_EQ(reserve_.RunAll(), 1u);
  EXPECT_THAT(log_.ran, ElementsAre("a", "c", "b"));
  log_.slots.clear();
}

TEST_F(RunSchedulerTest, TheReserveIsNotUsedWhileAThreadMayBeFreeSoon) {
  Teach(a_, milliseconds(2));
  Teach(b_, milliseconds(1));
  Post(a_, "a");
  executor_.RunAll();
  Post(b_, "b");
  EXPECT_EQ(reserve_.queued(), 0u);
  clock_.Advance(milliseconds(100));  // a takes longer than ever
  timer_.RunDue();
  EXPECT_EQ(reserve_.RunAll(), 1u);
  EXPECT_THAT(log_.ran, ElementsAre("a", "b"));
}

TEST_F(RunSchedulerTest, ABatchIsMadeWhenAThreadIsFree) {
  scheduler_.SetPolicy(a_, {.limit = 0, .max_batch_size = 4, .batching = {.enabled = true}, .queue = {}});
  for (const char* name : {"0", "1", "2", "3", "4"}) Post(name);
  executor_.RunAll();
  EXPECT_THAT(log_.ran, ElementsAre("0123", "4"));
}

TEST_F(RunSchedulerTest, ABatchThatWaitsForMoreGoesWhenItsTimeIsOver) {
  BatchingOptions batching{.enabled = true};
  batching.max_delay = milliseconds(3);
  scheduler_.SetPolicy(a_, {.limit = 0, .max_batch_size = 4, .batching = batching, .queue = {}});
  Post("0");
  Post("1");
  executor_.RunAll();
  EXPECT_THAT(log_.ran, ElementsAre());
  clock_.Advance(milliseconds(3));
  timer_.RunDue();
  executor_.RunAll();
  EXPECT_THAT(log_.ran, ElementsAre("01"));
}

TEST_F(RunSchedulerTest, OrWhenNobodyElseWillCome) {
  BatchingOptions batching{.enabled = true};
  batching.max_delay = seconds(3600);
  scheduler_.SetPolicy(a_, {.limit = 0, .max_batch_size = 4, .batching = batching, .queue = {}});
  Post("0");
  Post("1");
  scheduler_.Hurry();
  executor_.RunAll();
  EXPECT_THAT(log_.ran, ElementsAre("01"));
  Post("2");
  executor_.RunAll();
  EXPECT_THAT(log_.ran, ElementsAre("01", "2"));
}

TEST_F(RunSchedulerTest, WhatComesTooLateIsRefusedWhileItWaits) {
  Limit(1);
  Post("runs");
  executor_.RunAll();
  Post(a_, "late", clock_.Now() + milliseconds(5));
  Post("patient");
  clock_.Advance(milliseconds(20));
  timer_.RunDue();
  EXPECT_THAT(log_.refused, ElementsAre("late: late"));
  log_.slots.clear();
  executor_.RunAll();
  EXPECT_THAT(log_.ran, ElementsAre("runs", "patient"));
}

TEST_F(RunSchedulerTest, NoLaterBecauseNobodyWaitedForAWhile) {
  Limit(1);
  Post("runs");
  executor_.RunAll();
  clock_.Advance(milliseconds(30));
  timer_.RunDue();
  Post(a_, "late", clock_.Now() + milliseconds(5));
  clock_.Advance(milliseconds(20));
  timer_.RunDue();
  EXPECT_THAT(log_.refused, ElementsAre("late: late"));
}

TEST_F(RunSchedulerTest, RefusesWhatIsMoreThanMayWait) {
  scheduler_.SetPolicy(a_, {.limit = 0, .max_batch_size = 0, .batching = {}, .queue = {.max_size = 1}});
  Post("0");
  Post("1");
  EXPECT_THAT(log_.refused, ElementsAre("1: Exceeds maximum queue size"));
  EXPECT_THAT(scheduler_.counts().waiting, ElementsAre(testing::Pair(ModelId{"a", 1}, 1u)));
}

TEST_F(RunSchedulerTest, TellsOnceOfARunThatTakesFarLongerThanOthersDid) {
  Teach(a_, milliseconds(50));
  Post("a");
  executor_.RunAll();
  clock_.Advance(milliseconds(900));
  timer_.RunDue();
  EXPECT_TRUE(overdue_.empty());
  clock_.Advance(milliseconds(600));
  timer_.RunDue();
  ASSERT_EQ(overdue_.size(), 1u);
  EXPECT_EQ(overdue_[0].model, (ModelId{"a", 1}));
  EXPECT_EQ(overdue_[0].typical, milliseconds(50));
  EXPECT_EQ(scheduler_.counts().overdue, 1u);
  clock_.Advance(seconds(10));
  timer_.RunDue();
  EXPECT_EQ(overdue_.size(), 1u);
  End(seconds(1));
  EXPECT_EQ(scheduler_.counts().overdue, 0u);
}

TEST_F(RunSchedulerTest, TellsWhenARunHasEndedThatTookFarLongerThanOthersDid) {
  Teach(a_, milliseconds(50));
  Post("a");
  executor_.RunAll();
  clock_.Advance(seconds(2));
  timer_.RunDue();
  ASSERT_EQ(overdue_.size(), 1u);
  EXPECT_FALSE(overdue_[0].ended);
  End(seconds(10));
  ASSERT_EQ(overdue_.size(), 2u);
  EXPECT_TRUE(overdue_[1].ended);
  EXPECT_EQ(overdue_[1].model, (ModelId{"a", 1}));
  EXPECT_EQ(overdue_[1].so_far, seconds(12));
  EXPECT_EQ(overdue_[1].typical, milliseconds(50)) << "without this one";
  EXPECT_EQ(scheduler_.counts().overdue, 0u);
  Post("a");
  executor_.RunAll();
  End(milliseconds(50));
  EXPECT_EQ(overdue_.size(), 2u) << "of others nothing is told";
}

TEST_F(RunSchedulerTest, AnIdleSchedulerLeavesTheTimerAlone) {
  Post("0");
  executor_.RunAll();
  log_.slots.clear();
  clock_.Advance(seconds(1));
  timer_.RunDue();
  EXPECT_EQ(timer_.pending(), 0u);
}

}  // namespace
}  // namespace hearth
