// Runs of models that take several processors, beside others.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "server/serving/run_scheduler.h"
#include "tests/fakes/manual_clock.h"
#include "tests/fakes/manual_executor.h"
#include "tests/fakes/manual_timer.h"

namespace hearth {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::IsEmpty;

struct Running {
  std::string name;
  RunSlot slot;
};

struct Log {
  std::vector<std::string> ran;
  std::vector<Running> running;  // until the test ends them
  std::size_t dropped = 0;
};

class Job final : public RunJob {
 public:
  Job(std::string name, Log& log) : name_(std::move(name)), log_(&log) {}
  ~Job() override { log_->dropped += has_run_ ? 0 : 1; }
  absl::Status StillWanted(TimePoint) const override { return absl::OkStatus(); }
  bool MayJoin(const RunJob&, const BatchingOptions&) const override { return true; }
  void Run(std::vector<Ptr> batch, RunSlot slot) override {
    ASSERT_EQ(batch.size(), 1u);
    has_run_ = true;
    log_->ran.push_back(name_);
    log_->running.push_back({name_, std::move(slot)});
  }
  void Refuse(absl::Status) override {}

 private:
  const std::string name_;
  Log* const log_;
  bool has_run_ = false;
};

// Some lanes over so many processors, on so many threads.
class RunWidth : public testing::Test {
 protected:
  explicit RunWidth(std::size_t width = 4, int threads = 1)
      : executor_(width), scheduler_({executor_, timer_, clock_, &reserve_, nullptr, threads}) {}
  ~RunWidth() override {
    executor_.ShutDown();
    reserve_.ShutDown();
    log_.running.clear();
  }
  RunScheduler::Lane& Lane(const std::string& name) {
    std::unique_ptr<RunScheduler::Lane>& lane = lanes_[name];
    if (lane == nullptr) lane = std::make_unique<RunScheduler::Lane>(ModelId{name, 1});
    return *lane;
  }
  void SetThreads(const std::string& name, int threads) {
    RunPolicy policy;
    policy.threads = threads;
    scheduler_.SetPolicy(Lane(name), policy);
  }
  void Post(const std::string& name) {
    clock_.Advance(std::chrono::nanoseconds(1));  // whoever posts first is first
    scheduler_.Post(Lane(name), std::make_unique<Job>(name, log_));
  }
  void End(const std::string& name, Duration took = {}) {
    clock_.Advance(took);
    const auto run = std::ranges::find(log_.running, name, &Running::name);
    ASSERT_NE(run, log_.running.end());
    log_.running.erase(run);
  }
  // So long is what a run of it takes.
  void Teach(const std::string& name, Duration typical) {
    Post(name);
    executor_.RunAll();
    End(name, typical);
    log_.ran.clear();
  }
  std::vector<std::string> RunAll() {
    log_.ran.clear();
    executor_.RunAll();
    return log_.ran;
  }

  fakes::ManualClock clock_;
  fakes::ManualTimer timer_{clock_};
  fakes::ManualExecutor executor_;
  fakes::ManualExecutor reserve_;
  Log log_;
  std::map<std::string, std::unique_ptr<RunScheduler::Lane>> lanes_;
  RunScheduler scheduler_;
};

class RunWidthOfTwo : public RunWidth {
 protected:
  RunWidthOfTwo() : RunWidth(2) { SetThreads("wide", 2); }
};

TEST_F(RunWidth, ARunTakesAsManyProcessorsAsItsModelHasThreads) {
  SetThreads("wide", 3);
  for (const char* name : {"wide", "a", "b"}) Post(name);
  EXPECT_THAT(RunAll(), ElementsAre("wide", "a"));
  End("a");
  EXPECT_THAT(RunAll(), ElementsAre("b"));
  Post("wide");
  End("b");
  EXPECT_THAT(RunAll(), IsEmpty());
  End("wide");
  EXPECT_THAT(RunAll(), ElementsAre("wide"));
}

TEST_F(RunWidth, MoreThreadsThanThereAreProcessorsAreAsManyAsThereAre) {
  SetThreads("wide", 1000);
  Post("wide");
  Post("a");
  EXPECT_THAT(RunAll(), ElementsAre("wide"));
  End("wide");
  EXPECT_THAT(RunAll(), ElementsAre("a"));
}

class RunWidthOfThreads : public RunWidth {
 protected:
  RunWidthOfThreads() : RunWidth(2, 2) {}
};

TEST_F(RunWidthOfThreads, WhoeverDoesNotSayTakesWhatTheServerIsConfiguredFor) {
  SetThreads("wide", 3);
  for (const char* name : {"a", "wide", "b"}) Post(name);
  EXPECT_THAT(RunAll(), ElementsAre("a"));
  End("a");
  EXPECT_THAT(RunAll(), ElementsAre("wide"));
  End("wide");
  EXPECT_THAT(RunAll(), ElementsAre("b"));
  SetThreads("narrow", 1);
  Post("narrow");
  EXPECT_THAT(RunAll(), ElementsAre("narrow"));
  Post("wide");
  EXPECT_THAT(RunAll(), IsEmpty()) << "of four, b has two, and narrow has one";
  End("b");
  EXPECT_THAT(RunAll(), ElementsAre("wide"));
}

TEST_F(RunWidthOfTwo, NobodyBeginsBeforeOneWhoseTurnItIsAndWhoDoesNotFit) {
  Post("a");
  EXPECT_THAT(RunAll(), ElementsAre("a"));
  for (const char* name : {"wide", "b", "c"}) Post(name);
  EXPECT_THAT(RunAll(), IsEmpty());
  End("a", milliseconds(1));
  EXPECT_THAT(RunAll(), ElementsAre("wide"));
  EXPECT_THAT(RunAll(), IsEmpty());
  End("wide", milliseconds(1));
  EXPECT_THAT(RunAll(), ElementsAre("b", "c"));
}

TEST_F(RunWidthOfTwo, NorDoesAModelThatHasHadNothingAndComesLater) {
  Teach("wide", milliseconds(5));
  Post("wide");
  Post("wide");
  EXPECT_THAT(RunAll(), ElementsAre("wide"));
  Post("a");
  End("wide", milliseconds(5));
  EXPECT_THAT(RunAll(), ElementsAre("a"));
  Post("new");
  EXPECT_THAT(RunAll(), IsEmpty());
  End("a", milliseconds(5));
  EXPECT_THAT(RunAll(), ElementsAre("wide"));
  End("wide", milliseconds(5));
  EXPECT_THAT(RunAll(), ElementsAre("new"));
}

TEST_F(RunWidthOfTwo, ButForThoseWhoAreThroughBeforeItFits) {
  Teach("slow", milliseconds(900));
  Teach("quick", milliseconds(15));
  Post("slow");
  EXPECT_THAT(RunAll(), ElementsAre("slow"));
  Post("wide");
  for (int i = 0; i < 3; ++i) Post("quick");
  for (int i = 0; i < 2; ++i) {
    EXPECT_THAT(RunAll(), ElementsAre("quick"));
    End("quick", milliseconds(15));
  }
  clock_.Advance(milliseconds(860));  // slow has ten left
  timer_.RunDue();
  EXPECT_THAT(RunAll(), IsEmpty());
  EXPECT_EQ(reserve_.queued(), 0u) << "it is soon enough";
  clock_.Advance(milliseconds(200));
  timer_.RunDue();
  EXPECT_THAT(RunAll(), IsEmpty()) << "slow takes longer than it used to, and may end at any time";
  EXPECT_EQ(reserve_.queued(), 1u);
  End("slow");
  EXPECT_THAT(RunAll(), ElementsAre("wide"));
}

TEST_F(RunWidthOfTwo, TimeCountsOnceForEachProcessor) {
  Teach("wide", milliseconds(5));
  Teach("a", milliseconds(5));
  Teach("a", milliseconds(5));
  for (int i = 0; i < 12; ++i) {
    Post("wide");
    Post("a");
  }
  std::map<std::string, int> runs;
  for (int i = 0; i < 9; ++i) {
    log_.ran.clear();
    while (log_.running.empty()) ASSERT_TRUE(executor_.RunOne());
    ++runs[log_.ran.back()];
    End(log_.ran.back(), milliseconds(5));
  }
  EXPECT_EQ(runs["wide"], 3);
  EXPECT_EQ(runs["a"], 6);
}

TEST_F(RunWidthOfTwo, NeitherAWideModelNorNarrowOnesStarveWhenBothAlwaysHaveMore) {
  for (int i = 0; i < 100; ++i) {
    for (const char* name : {"wide", "a", "b", "c"}) Post(name);
  }
  std::map<std::string, Duration> had;
  const TimePoint end = clock_.Now() + milliseconds(240);
  while (clock_.Now() < end) {
    executor_.RunAll();
    ASSERT_FALSE(log_.running.empty());
    clock_.Advance(milliseconds(2));
    const std::vector<Running> ended = std::exchange(log_.running, {});
    for (const Running& run : ended) had[run.name] += milliseconds(run.name == "wide" ? 4 : 2);
  }
  for (const auto& [name, time] : had) {
    EXPECT_GE(time, milliseconds(90)) << name;  // of 120, a fourth of two processors' time
    EXPECT_LE(time, milliseconds(130)) << name;
  }
  EXPECT_EQ(had.size(), 4u);
}

TEST_F(RunWidthOfTwo, AQuickModelHasTheReserveWhileAWideOneWaitsForASlowOne) {
  Teach("quick", milliseconds(1));
  Teach("slow", seconds(1));
  Post("slow");
  RunAll();
  clock_.Advance(seconds(1));
  Post("wide");
  for (int i = 0; i < 2; ++i) Post("quick");
  EXPECT_THAT(RunAll(), IsEmpty());
  log_.ran.clear();
  EXPECT_EQ(reserve_.RunAll(), 1u);
  EXPECT_THAT(log_.ran, ElementsAre("quick"));
  End("slow", seconds(1));
  EXPECT_THAT(RunAll(), ElementsAre("wide")) << "the reserve's run takes none of the processors";
}

TEST_F(RunWidthOfTwo, AQuickWideModelHasTheReserveWhileASlowOneLeavesItTooLittle) {
  Teach("wide", milliseconds(1));
  Teach("slow", seconds(10));
  Post("slow");
  RunAll();
  Post("wide");
  EXPECT_THAT(RunAll(), IsEmpty());
  log_.ran.clear();
  EXPECT_EQ(reserve_.RunAll(), 1u);
  EXPECT_THAT(log_.ran, ElementsAre("wide"));
}

TEST_F(RunWidthOfTwo, SoHasAFirstRunBehindAWideOneThatWaitsForASlowOne) {
  Teach("slow", seconds(10));
  Post("slow");
  RunAll();
  Post("wide");
  Post("new");
  EXPECT_THAT(RunAll(), IsEmpty());
  log_.ran.clear();
  EXPECT_EQ(reserve_.RunAll(), 1u);
  EXPECT_THAT(log_.ran, ElementsAre("new"));
}

TEST_F(RunWidthOfTwo, TheReserveIsNotUsedWhileAWideOneWaitsForQuickOnes) {
  Teach("quick", milliseconds(1));
  Post("quick");
  RunAll();
  Post("wide");
  Post("quick");
  EXPECT_THAT(RunAll(), IsEmpty());
  EXPECT_EQ(reserve_.queued(), 0u);
  clock_.Advance(milliseconds(100));  // it is slow after all
  timer_.RunDue();
  EXPECT_EQ(reserve_.RunAll(), 1u);
}

TEST_F(RunWidthOfTwo, AWideOneThatIsSlowLeavesTheReserveToQuickOnes) {
  Teach("quick", milliseconds(1));
  Post("wide");
  RunAll();
  Post("quick");
  EXPECT_THAT(RunAll(), IsEmpty());
  EXPECT_EQ(reserve_.RunAll(), 1u);
}

TEST_F(RunWidthOfTwo, WhoWaitsForProcessorsIsNotInTheExecutorsQueue) {
  Post("a");
  RunAll();
  Post("wide");
  RunAll();
  for (int i = 0; i < 1000; ++i) Post("b");
  EXPECT_EQ(executor_.queued(), 0u);
  End("a");
  EXPECT_THAT(RunAll(), ElementsAre("wide"));
  EXPECT_EQ(executor_.queued(), 0u);
  End("wide");
  EXPECT_EQ(RunAll().size(), 1000u);  // nobody is wide any more: the executor's threads are the limit
}

TEST_F(RunWidthOfTwo, FewerThreadsLetAModelGoThatWaitedForProcessors) {
  Post("a");
  RunAll();
  Post("wide");
  EXPECT_THAT(RunAll(), IsEmpty());
  SetThreads("wide", 1);
  EXPECT_THAT(RunAll(), ElementsAre("wide"));
}

TEST_F(RunWidthOfTwo, WhoWaitsForProcessorsIsDroppedWhenTheThreadsAreGone) {
  Post("a");
  RunAll();
  Post("wide");
  RunAll();
  executor_.ShutDown();
  End("a");
  EXPECT_EQ(log_.dropped, 1u);
}

// Whatever comes in whatever order: never more processors than there are, and in the end everybody has run.
TEST(RunWidthRandom, ProcessorsAreNeitherGivenTwiceNorForgotten) {
  constexpr int kProcessors = 6;
  for (unsigned seed = 0; seed < 200; ++seed) {
    std::mt19937 random(seed);
    const auto up_to = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
    fakes::ManualClock clock;
    fakes::ManualTimer timer(clock);
    fakes::ManualExecutor executor(kProcessors);
    Log log;
    std::vector<std::unique_ptr<RunScheduler::Lane>> lanes;
    std::map<std::string, int> widths;
    for (int i = 0; i < 5; ++i) lanes.push_back(std::make_unique<RunScheduler::Lane>(ModelId{std::to_string(i), 1}));
    RunScheduler scheduler({executor, timer, clock});
    for (int i = 0; i < 5; ++i) {
      RunPolicy policy;
      policy.threads = i == 0 ? 0 : 1 + up_to(8);
      policy.limit = up_to(3);
      widths[std::to_string(i)] = std::clamp(policy.threads, 1, kProcessors);
      scheduler.SetPolicy(*lanes[static_cast<std::size_t>(i)], policy);
    }
    const auto end_one = [&] { log.running.erase(log.running.begin() + up_to(static_cast<int>(log.running.size()))); };
    const auto taken = [&] {
      int sum = 0;
      for (const Running& run : log.running) sum += widths[run.name];
      return sum;
    };
    std::size_t posted = 0;
    for (int step = 0; step < 200; ++step) {
      switch (up_to(4)) {
        case 0:
          if (!log.running.empty()) end_one();
          break;
        case 1:
          clock.Advance(milliseconds(up_to(30)));
          timer.RunDue();
          break;
        default: {
          const auto i = static_cast<std::size_t>(up_to(5));
          scheduler.Post(*lanes[i], std::make_unique<Job>(std::to_string(i), log));
          ++posted;
        }
      }
      // As its threads would: so many at once.
      while (log.running.size() < kProcessors && executor.RunOne()) {
      }
      ASSERT_LE(taken(), kProcessors) << "seed " << seed;
    }
    while (!log.running.empty()) {
      end_one();
      while (log.running.size() < kProcessors && executor.RunOne()) {
      }
      ASSERT_LE(taken(), kProcessors) << "seed " << seed;
    }
    EXPECT_EQ(log.ran.size(), posted) << "seed " << seed;
    executor.ShutDown();
  }
}

}  // namespace
}  // namespace hearth
