#include "server/serving/concurrency.h"

#include <gtest/gtest.h>

#include <functional>
#include <vector>

#include "tests/fakes/manual_executor.h"

namespace hearth {
namespace {

// Notes that it ran; keeps its slot until the test lets it go.
class Job final : public RunQueue::Runnable {
 public:
  Job(int number, std::vector<int>& ran, std::vector<RunQueue::Slot>& slots)
      : number_(number), ran_(ran), slots_(slots) {}
  void Run(std::unique_ptr<Runnable>) override {
    ran_.push_back(number_);
    slots_.push_back(std::move(slot));
  }

 private:
  const int number_;
  std::vector<int>& ran_;
  std::vector<RunQueue::Slot>& slots_;
};

class RunQueueTest : public testing::Test {
 protected:
  ~RunQueueTest() override {
    executor_.ShutDown();
    slots_.clear();
  }
  void Post(int number) { queue_.Post(std::make_unique<Job>(number, ran_, slots_)); }

  fakes::ManualExecutor executor_;
  RunQueue queue_{executor_};
  std::vector<int> ran_;
  std::vector<RunQueue::Slot> slots_;
};

TEST_F(RunQueueTest, WithoutALimitEverythingGoesToTheExecutor) {
  for (int i = 0; i < 3; ++i) Post(i);
  EXPECT_EQ(executor_.queued(), 3u);
  executor_.RunAll();
  EXPECT_EQ(ran_, (std::vector<int>{0, 1, 2}));
}

TEST_F(RunQueueTest, HoldsBackWhatIsOverTheLimitFirstComeFirstServed) {
  queue_.SetLimit(2);
  for (int i = 0; i < 5; ++i) Post(i);
  EXPECT_EQ(executor_.RunAll(), 2u);
  slots_.erase(slots_.begin());
  EXPECT_EQ(executor_.RunAll(), 1u);
  slots_.clear();
  EXPECT_EQ(executor_.RunAll(), 2u);
  EXPECT_EQ(ran_, (std::vector<int>{0, 1, 2, 3, 4}));
}

TEST_F(RunQueueTest, NeverRunsInline) {
  queue_.SetLimit(1);
  Post(0);
  Post(1);
  EXPECT_TRUE(ran_.empty());
  executor_.RunAll();
  slots_.clear();
  EXPECT_EQ(ran_, (std::vector<int>{0}));
  executor_.RunAll();
  EXPECT_EQ(ran_, (std::vector<int>{0, 1}));
}

TEST_F(RunQueueTest, ALimitThatIsRaisedOrLiftedLetsWaitingOnesGo) {
  queue_.SetLimit(1);
  for (int i = 0; i < 6; ++i) Post(i);
  EXPECT_EQ(executor_.RunAll(), 1u);
  queue_.SetLimit(3);
  EXPECT_EQ(executor_.RunAll(), 2u);
  queue_.SetLimit(0);
  EXPECT_EQ(executor_.RunAll(), 3u);
}

TEST_F(RunQueueTest, ALimitThatIsLoweredHoldsOnceEnoughHaveEnded) {
  queue_.SetLimit(3);
  for (int i = 0; i < 6; ++i) Post(i);
  EXPECT_EQ(executor_.RunAll(), 3u);
  queue_.SetLimit(1);
  slots_.pop_back();
  slots_.pop_back();
  EXPECT_EQ(executor_.RunAll(), 0u);
  slots_.pop_back();
  EXPECT_EQ(executor_.RunAll(), 1u);
  slots_.clear();
  EXPECT_EQ(executor_.RunAll(), 1u);
}

TEST_F(RunQueueTest, AnExecutorThatDropsEverythingLeavesNothingBehind) {
  queue_.SetLimit(1);
  for (int i = 0; i < 50'000; ++i) Post(i);
  executor_.ShutDown();
  EXPECT_TRUE(ran_.empty());
  // ~RunQueue checks that nothing runs or waits.
}

}  // namespace
}  // namespace hearth
