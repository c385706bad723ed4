// Acquire, single flight, waiters, failures.
#include "server/residency/model_manager.h"

#include "tests/residency/manager_fixture.h"

namespace hearth {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using enum absl::StatusCode;

class ModelManagerTest : public ManagerTest {};

TEST_F(ModelManagerTest, AColdModelIsLoadedOnTheExecutorAndHandedOver) {
  Exists("vad", 40);
  Cold cold = Acquire("vad");
  EXPECT_FALSE(cold.done()) << "nothing is loaded on the caller's thread";
  EXPECT_THAT(States("vad"), ElementsAre("queued"));
  clock_.Advance(seconds(2));
  executor_.RunAll();
  ASSERT_TRUE(cold.ok()) << cold.status();
  EXPECT_EQ(cold->handle.id(), Id("vad"));
  EXPECT_EQ(cold->handle->footprint().host_bytes, 40u);
  EXPECT_EQ(cold->cache, CacheResult::kLoad);
  EXPECT_EQ(cold->waited, seconds(2));
  EXPECT_THAT(States("vad"), ElementsAre("ready"));
}

TEST_F(ModelManagerTest, AResidentModelIsAnsweredInline) {
  Resident("vad", 40);
  Cold hit = Acquire("vad");
  ASSERT_TRUE(hit.ok());
  EXPECT_EQ(hit.ticket, 0u);
  EXPECT_EQ(hit->cache, CacheResult::kHit);
  EXPECT_TRUE(manager().TryAcquire(Id("vad")));
  EXPECT_EQ(loader_.loads("vad"), 1);
}

TEST_F(ModelManagerTest, TryAcquireStartsNothing) {
  EXPECT_FALSE(manager().TryAcquire(Id("vad")));
  EXPECT_EQ(executor_.queued(), 0u);
  EXPECT_THAT(manager().Snapshot(), IsEmpty());
}

TEST_F(ModelManagerTest, AHundredRequestsForAColdModelLoadItOnce) {
  std::vector<Cold> colds;
  for (int i = 0; i < 100; ++i) colds.push_back(Acquire("vad"));
  EXPECT_EQ(manager().Snapshot().at(0).waiters, 100u);
  executor_.RunAll();
  EXPECT_EQ(loader_.loads("vad"), 1);
  EXPECT_EQ(manager().Snapshot().at(0).pins, 100u);
  for (std::size_t i = 0; i < colds.size(); ++i) {
    ASSERT_TRUE(colds[i].ok());
    EXPECT_EQ(&*colds[i]->handle, &*colds.front()->handle);
    EXPECT_EQ(colds[i]->cache, i == 0 ? CacheResult::kLoad : CacheResult::kWait);
  }
}

TEST_F(ModelManagerTest, EveryWaiterHearsTheSameStatus) {
  auto script = Sized(10);
  script.load_error = absl::DataLossError("code/__torch__.py is cut short");
  loader_.Set("bad", script);
  std::vector<Cold> colds;
  for (int i = 0; i < 10; ++i) colds.push_back(Acquire("bad"));
  executor_.RunAll();
  for (Cold& cold : colds) {
    EXPECT_EQ(cold.status(), colds[0].status());
    EXPECT_THAT(cold.status(), Fails(kDataLoss, "cut short"));
  }
  EXPECT_EQ(used(), 0u);
}

TEST_F(ModelManagerTest, NothingOfALoadKeepsItsFilesOpenOnceItIsAnswered) {
  Exists("m", 10);
  int opened = -1;
  manager().Acquire(Id("m"), kNoDeadline, [&](auto) { opened = loader_.opened(); });
  executor_.RunAll();
  EXPECT_EQ(opened, 0);
}

TEST_F(ModelManagerTest, AFailureIsRememberedAndItsBackOffDoubles) {
  options_.failure_backoff = seconds(5);
  options_.max_failure_backoff = seconds(12);
  auto script = Sized(10);
  script.estimate_error = absl::InvalidArgumentError("not a zip archive");
  loader_.Set("bad", script);
  for (const int wait : {5, 10, 12, 12}) {
    Cold first = Acquire("bad");
    executor_.RunAll();
    EXPECT_EQ(RetryAfter(first.status()), seconds(wait));
    const int estimates = loader_.estimates("bad");
    clock_.Advance(seconds(wait) - milliseconds(2));
    Cold during = Acquire("bad");
    EXPECT_THAT(during.status(), Fails(kInvalidArgument, "not a zip archive"));
    EXPECT_EQ(RetryAfter(during.status()), milliseconds(1));
    EXPECT_EQ(executor_.queued(), 0u);
    EXPECT_EQ(loader_.estimates("bad"), estimates);
    clock_.Advance(milliseconds(1));
  }
  EXPECT_THAT(States("bad"), ElementsAre("failed"));
  EXPECT_THAT(manager().Snapshot().at(0).error, Fails(kInvalidArgument, "not a zip"));
  EXPECT_EQ(manager().Snapshot().at(0).retry_at, clock_.Now());
}

TEST_F(ModelManagerTest, ASuccessForgetsEarlierFailures) {
  Exists("flaky", 10);
  loader_.FailLoad(1, absl::InternalError("first"));
  Cold first = Acquire("flaky");
  executor_.RunAll();
  EXPECT_EQ(RetryAfter(first.status()), seconds(5));
  Pass(seconds(5));
  Resident("flaky", 10);
  Resident("other", 95);  // evicts it, which is no Unload: that would forget failures as well
  ASSERT_FALSE(IsResident("flaky"));
  loader_.FailLoad(1, absl::InternalError("again"));
  Cold again = Acquire("flaky");
  executor_.RunAll();
  EXPECT_EQ(RetryAfter(again.status()), seconds(5)) << "not doubled";
}

TEST_F(ModelManagerTest, AnExplicitLoadTriesAgainInsideTheBackOff) {
  Exists("flaky", 10);
  loader_.FailEstimate(1, absl::NotFoundError("model.pt: no such file"));
  Cold first = Acquire("flaky");
  executor_.RunAll();
  EXPECT_THAT(first.status(), Fails(kNotFound, "no such file"));
  auto load = Load("flaky");
  executor_.RunAll();
  EXPECT_TRUE(load.ok()) << load.status();
  EXPECT_TRUE(IsResident("flaky"));
}

TEST_F(ModelManagerTest, WhatTheCatalogSaysReachesTheWaiter) {
  spec_error_ = absl::NotFoundError("Request for unknown model: 'x' is not found");
  Cold cold = Acquire("x");
  executor_.RunAll();
  EXPECT_THAT(cold.status(), Fails(kNotFound, "unknown model"));
}

TEST_F(ModelManagerTest, ADeadlineExpiresItsWaiterAndTheLoadGoesOn) {
  Exists("vad", 10);
  Cold soon = Acquire("vad", clock_.Now() + seconds(1));
  Cold late = Acquire("vad", clock_.Now() + seconds(9));
  EXPECT_EQ(timer_.pending(), 1u) << "one timer entry for all waiters";
  clock_.Advance(seconds(1));
  timer_.RunDue();
  EXPECT_THAT(soon.status(), Fails(kDeadlineExceeded, "still queued"));
  EXPECT_FALSE(late.done());
  executor_.RunAll();
  EXPECT_TRUE(late.ok());
  Pass(seconds(20));
}

TEST_F(ModelManagerTest, ARequestWithoutADeadlineWaitsForMaxColdWait) {
  options_.max_cold_wait = seconds(60);
  Cold cold = Acquire("vad");
  clock_.Advance(seconds(59));
  timer_.RunDue();
  EXPECT_FALSE(cold.done());
  clock_.Advance(seconds(1));
  timer_.RunDue();
  EXPECT_THAT(cold.status(), Fails(kDeadlineExceeded, "vad"));
}

TEST_F(ModelManagerTest, ADeadlineThatHasPassedStartsNothing) {
  Cold cold = Acquire("vad", clock_.Now());
  EXPECT_EQ(cold.status().code(), kDeadlineExceeded);
  EXPECT_EQ(executor_.queued(), 0u);
}

TEST_F(ModelManagerTest, ALoadWithoutADeadlineWaitsForAsLongAsItTakes) {
  auto load = Load("vad");
  EXPECT_EQ(timer_.pending(), 0u);
  clock_.Advance(std::chrono::hours(5));
  executor_.RunAll();
  EXPECT_TRUE(load.ok());
}

TEST_F(ModelManagerTest, ACancelledWaiterIsAnsweredAtOnceAndTheOthersAreNot) {
  Cold a = Acquire("vad");
  Cold b = Acquire("vad");
  manager().Cancel(a.ticket);
  EXPECT_EQ(a.status().code(), kCancelled);
  EXPECT_FALSE(b.done());
  manager().Cancel(a.ticket);  // no ticket is used twice
  executor_.RunAll();
  EXPECT_TRUE(b.ok());
  manager().Cancel(b.ticket);
  EXPECT_TRUE(b->handle);
}

TEST_F(ModelManagerTest, ALoadNobodyWaitsForAnyMoreGoesOn) {
  Exists("vad", 10);
  Cold cold = Acquire("vad");
  manager().Cancel(cold.ticket);
  RunAll();
  EXPECT_TRUE(IsResident("vad"));
}

TEST_F(ModelManagerTest, LoadsThatRequestsWaitForGoBeforeLoadsAheadOfNeed) {
  std::vector<std::string> order;
  for (const std::string model : {"p1", "p2", "r1", "r2"}) {
    auto script = Sized(10);
    script.on_load = [&order, model](auto&, auto) { order.push_back(model); };
    loader_.Set(model, script);
  }
  Load("p1");
  Load("p2");
  Cold r1 = Acquire("r1");
  Cold r2 = Acquire("r2");
  Cold joined = Acquire("p2");
  executor_.RunAll();
  EXPECT_THAT(order, ElementsAre("p2", "r1", "r2", "p1"));
}

TEST_F(ModelManagerTest, LoadSaysWhereTheTimeWentAlsoWhenItWasResident) {
  auto script = Sized(10);
  script.model.report[LoadPhase::kBind].wall = milliseconds(3);
  loader_.Set("vad", script);
  auto first = Load("vad");
  executor_.RunAll();
  auto again = Load("vad");
  ASSERT_TRUE(first.ok() && again.ok());
  EXPECT_EQ((*first)[LoadPhase::kBind].wall, milliseconds(3));
  EXPECT_EQ((*again)[LoadPhase::kBind].wall, milliseconds(3));
  EXPECT_EQ(loader_.loads("vad"), 1);
  EXPECT_EQ(manager().Snapshot().at(0).pins, 0u) << "a load pins nothing";
}

TEST_F(ModelManagerTest, ProbesAndSnapshotsLeaveNoTrace) {
  Resident("old", 40);
  Resident("new", 40);
  const auto before = manager().Snapshot();
  clock_.Advance(seconds(10));
  EXPECT_TRUE(IsResident("old"));
  manager().Samples();
  const auto after = manager().Snapshot();
  EXPECT_EQ(after.at(1).id, Id("old"));
  EXPECT_EQ(after.at(1).hits, before.at(1).hits);
  EXPECT_EQ(after.at(1).last_used, before.at(1).last_used);
  Resident("third", 40);
  EXPECT_FALSE(IsResident("old")) << "a probe is not a use";
  EXPECT_TRUE(IsResident("new"));
}

TEST_F(ModelManagerTest, RowsSayWhatIsResident) {
  auto script = Sized(10);
  script.model.footprint.device_bytes = 0;
  script.model.footprint.extents = {{FileId{1, 1, 0, 30}, 0, 30}};
  loader_.Set("vad", script);
  Cold cold = Acquire("vad");
  executor_.RunAll();
  Cold hit = Acquire("vad");
  const TimePoint used = clock_.Now();
  const ModelCache::Row row = manager().Snapshot().at(0);
  EXPECT_EQ(row.pins, 2u);
  EXPECT_EQ(row.hits, 1u);
  EXPECT_EQ(row.host_bytes, 10u);
  EXPECT_EQ(row.mapped_bytes, 30u);
  EXPECT_EQ(row.last_used, used);
  EXPECT_FALSE(row.pinned);
}

TEST_F(ModelManagerTest, SamplesAddUpToTheBudget) {
  Resident("vad", 30);
  Exists("next", 50);
  Cold next = Acquire("next");
  std::map<std::string, double> value;
  for (const auto& sample : manager().Samples()) {
    const std::string label = sample.labels.empty() ? "" : sample.labels[0].second;
    value[sample.name + "/" + label] = sample.value;
    EXPECT_THAT(sample.help, testing::EndsWith("."));
  }
  EXPECT_EQ(value["hearth_budget_bytes/host"], 100);
  EXPECT_EQ(value["hearth_resident_bytes/host"], 30);
  EXPECT_EQ(value["hearth_resident_models/"], 1);
  EXPECT_EQ(value["hearth_load_queue_depth/normal"], 1);
  EXPECT_EQ(value["hearth_load_queue_depth/background"], 0);
  EXPECT_EQ(value["hearth_waiters/"], 1);
  executor_.RunAll();
}

TEST_F(ModelManagerTest, AWaiterMayAskAgainFromItsCallback) {
  Exists("a", 10);
  Exists("b", 10);
  Cold b;
  manager().Acquire(Id("a"), kNoDeadline,
                    [&](auto) { manager().Acquire(Id("b"), kNoDeadline, b.callback()); });
  executor_.RunAll();
  EXPECT_TRUE(b.ok());
}

TEST_F(ModelManagerTest, ATaskTheExecutorDropsStillAnswersItsWaiters) {
  Exists("vad", 10);
  Cold queued = Acquire("vad");
  executor_.ShutDown();
  EXPECT_THAT(queued.status(), Fails(kUnavailable, "Server exiting"));
  Cold late = Acquire("vad");
  EXPECT_EQ(late.status().code(), kUnavailable);
}

}  // namespace
}  // namespace hearth
