#include "server/serving/run_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace hearth {
namespace {

using std::chrono::milliseconds;
using testing::ElementsAre;

struct TestJob final : RunJob {
  explicit TestJob(int n, std::int64_t r = 1, int p = 0, char s = 'a') : number(n), shape(s) {
    rows = r;
    priority = p;
  }
  absl::Status StillWanted(TimePoint now) const override {
    return deadline <= now ? absl::DeadlineExceededError("late") : absl::OkStatus();
  }
  bool MayJoin(const RunJob& other, const BatchingOptions&) const override {
    return shape == static_cast<const TestJob&>(other).shape;
  }
  void Run(std::vector<Ptr>, RunSlot) override {}
  void Refuse(absl::Status) override {}

  const int number;
  const char shape;
  Deadline deadline = kNoDeadline;
};

class RunQueueTest : public testing::Test {
 protected:
  void Post(TestJob job) {
    RunJob::Ptr owned = std::make_unique<TestJob>(std::move(job));
    ASSERT_TRUE(queue_.Push(owned, now_));
  }
  std::vector<int> Take() {
    std::vector<int> numbers;
    if (queue_.empty() || queue_.due(now_) > now_) return numbers;
    for (const RunJob::Ptr& job : queue_.Take(now_)) numbers.push_back(static_cast<const TestJob&>(*job).number);
    return numbers;
  }
  std::vector<int> Expire() {
    std::vector<int> numbers;
    for (const auto& [job, why] : queue_.Expire(now_)) numbers.push_back(static_cast<const TestJob&>(*job).number);
    return numbers;
  }
  // A model whose requests are batched.
  void Batch(std::int64_t most, BatchingOptions batching = {}) {
    batching.enabled = true;
    queue_.SetPolicy({.limit = 0, .max_batch_size = most, .batching = batching, .queue = {}});
  }

  RunQueue queue_;
  TimePoint now_{std::chrono::hours(1)};
};

TEST_F(RunQueueTest, RunsOneByOneFirstComeFirstServedUnlessToldOtherwise) {
  for (int i = 0; i < 3; ++i) Post(TestJob(i));
  EXPECT_THAT(Take(), ElementsAre(0));
  EXPECT_THAT(Take(), ElementsAre(1));
  EXPECT_THAT(Take(), ElementsAre(2));
  EXPECT_TRUE(queue_.empty());
}

TEST_F(RunQueueTest, BatchesWhatWaitsUpToTheLargestSize) {
  Batch(4);
  for (int i = 0; i < 6; ++i) Post(TestJob(i));
  EXPECT_EQ(queue_.runs(), 2u);
  EXPECT_THAT(Take(), ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(Take(), ElementsAre(4, 5));
}

TEST_F(RunQueueTest, CountsRowsNotRequests) {
  Batch(4);
  Post(TestJob(0, 3));
  Post(TestJob(1, 2));
  Post(TestJob(2, 1));
  EXPECT_THAT(Take(), ElementsAre(0, 2));
  EXPECT_THAT(Take(), ElementsAre(1));
}

TEST_F(RunQueueTest, BatchesOnlyWhatMayJoin) {
  Batch(8);
  Post(TestJob(0, 1, 0, 'a'));
  Post(TestJob(1, 1, 0, 'b'));
  Post(TestJob(2, 1, 0, 'a'));
  EXPECT_THAT(Take(), ElementsAre(0, 2));
  EXPECT_THAT(Take(), ElementsAre(1));
}

TEST_F(RunQueueTest, WaitsForOthersAsLongAsItIsTold) {
  Batch(4, {.max_delay = milliseconds(5)});
  Post(TestJob(0));
  Post(TestJob(1));
  EXPECT_THAT(Take(), ElementsAre());
  EXPECT_EQ(queue_.due(now_), now_ + milliseconds(5));
  now_ += milliseconds(5);
  EXPECT_THAT(Take(), ElementsAre(0, 1));
  for (int i = 2; i < 6; ++i) Post(TestJob(i));
  EXPECT_THAT(Take(), ElementsAre(2, 3, 4, 5));  // full: at once
}

TEST_F(RunQueueTest, APreferredSizeGoesAtOnceAndIsNotMadeLarger) {
  Batch(8, {.preferred = {2, 4}, .max_delay = milliseconds(5)});
  Post(TestJob(0));
  EXPECT_THAT(Take(), ElementsAre());
  Post(TestJob(1));
  Post(TestJob(2));
  EXPECT_THAT(Take(), ElementsAre(0, 1));
  EXPECT_THAT(Take(), ElementsAre());
  now_ += milliseconds(5);
  EXPECT_THAT(Take(), ElementsAre(2));
}

TEST_F(RunQueueTest, PrioritiesGoFirstAndUnknownOnesAreTheDefault) {
  queue_.SetPolicy({.limit = 0, .max_batch_size = 0, .batching = {}, .queue = {.priorities = 3, .default_priority = 2}});
  Post(TestJob(0, 1, 3));
  Post(TestJob(1));
  Post(TestJob(2, 1, 99));
  Post(TestJob(3, 1, 1));
  EXPECT_THAT(Take(), ElementsAre(3));
  EXPECT_THAT(Take(), ElementsAre(1));
  EXPECT_THAT(Take(), ElementsAre(2));
  EXPECT_THAT(Take(), ElementsAre(0));
}

TEST_F(RunQueueTest, TakesNoMoreThanMayWait) {
  queue_.SetPolicy({.limit = 0, .max_batch_size = 0, .batching = {}, .queue = {.max_size = 1}});
  Post(TestJob(0));
  RunJob::Ptr second = std::make_unique<TestJob>(1);
  EXPECT_FALSE(queue_.Push(second, now_));
  EXPECT_NE(second, nullptr);
}

TEST_F(RunQueueTest, TakesOutWhoWaitedTooLong) {
  queue_.SetPolicy({.limit = 0, .max_batch_size = 0, .batching = {}, .queue = {.timeout = milliseconds(10)}});
  TestJob hurried(0);
  hurried.deadline = now_ + milliseconds(3);
  Post(std::move(hurried));
  Post(TestJob(1));
  now_ += milliseconds(5);
  Post(TestJob(2));
  EXPECT_THAT(Expire(), ElementsAre(0));
  now_ += milliseconds(5);
  EXPECT_THAT(Expire(), ElementsAre(1));
  EXPECT_EQ(queue_.size(), 1u);
}

TEST_F(RunQueueTest, OrPutsThemLast) {
  queue_.SetPolicy({.limit = 0,
                    .max_batch_size = 0,
                    .batching = {},
                    .queue = {.timeout = milliseconds(10), .on_timeout = QueueOptions::OnTimeout::kDelay}});
  Post(TestJob(0));
  now_ += milliseconds(10);
  Post(TestJob(1));
  EXPECT_THAT(Expire(), ElementsAre());
  EXPECT_THAT(Take(), ElementsAre(1));
  now_ += milliseconds(10);
  EXPECT_THAT(Expire(), ElementsAre());
  EXPECT_THAT(Take(), ElementsAre(0));
}

TEST_F(RunQueueTest, ANewPolicyKeepsThoseWhoWaitInTheirOrder) {
  Post(TestJob(0, 1, 2));
  Post(TestJob(1, 1, 1));
  queue_.SetPolicy({.limit = 0, .max_batch_size = 0, .batching = {}, .queue = {.priorities = 2}});
  EXPECT_THAT(Take(), ElementsAre(1));
  EXPECT_THAT(Take(), ElementsAre(0));
}

}  // namespace
}  // namespace hearth
