// The cache without its manager: one step after the other.
#include "server/residency/model_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/fakes/fake_model.h"
#include "tests/fakes/manual_clock.h"

namespace hearth {
namespace {

using testing::ElementsAre;

const ModelId kVad{"vad", 1};

class ModelCacheTest : public testing::Test {
 protected:
  ModelCache::FindResult Find(std::string name = "w", Deadline deadline = kNoDeadline,
                              bool request = true) {
    Waiter waiter{[this, name](auto handle, CacheResult) {
                    answers_.push_back(name + (handle.ok() ? " ok" : " failed"));
                  },
                  deadline, request};
    return cache_.Find(kVad, metrics_.Model("vad", 1), {}, waiter);
  }
  ModelCache::FindResult FindAhead() {
    Waiter waiter{[this](auto handle, CacheResult) { answers_.push_back(handle.ok() ? "ahead ok" : "ahead failed"); },
                  kNoDeadline, /*request=*/false, LoadPriority::kBackground};
    return cache_.Find(kVad, metrics_.Model("vad", 1), {}, waiter);
  }
  CacheEntry& BeginLoad() {
    CacheEntry& entry = *cache_.TakeQueued(LoadPriority::kNormal)->entry;
    EXPECT_TRUE(cache_.TryBeginLoad(entry, kBytes));
    return entry;
  }
  ModelCache::Published Publish(CacheEntry& entry) {
    fakes::FakeModel::Options options;
    options.footprint = kBytes;
    std::unique_ptr<Model> model = std::make_unique<fakes::FakeModel>(std::move(options));
    return *cache_.Publish(entry, model, /*revision=*/1, {});
  }
  void Unload() {
    auto leaving = cache_.BeginUnload(kVad, EvictionReason::kUnload, nullptr);
    for (auto& victim : leaving.victims) Destroy(std::move(victim));
    for (auto& victim : std::exchange(drained_, {})) Destroy(std::move(victim));
  }
  void Destroy(ModelCache::Victim victim) {
    victim.model.reset();
    cache_.Forget(*victim.entry);
  }
  ModelState state() { return cache_.Snapshot().at(0).state; }

  const Footprint kBytes{0, 10, {}};
  fakes::ManualClock clock_;
  Metrics metrics_{{}};
  MemoryBudget budget_{{0, 100, 0}};
  std::vector<ModelCache::Victim> drained_;
  std::vector<std::string> answers_;
  ModelCache cache_{budget_, clock_, {std::chrono::seconds(1), std::chrono::seconds(1)},
                    {.drained = [this](auto victim) { drained_.push_back(std::move(victim)); },
                     .unpinned = [] {}}};
};

TEST_F(ModelCacheTest, OneLookDecidesWhoStartsTheLoadAndWhoJoinsIt) {
  EXPECT_EQ(Find().outcome, ModelCache::Outcome::kStart);
  EXPECT_EQ(Find().outcome, ModelCache::Outcome::kJoined);
  CacheEntry& entry = BeginLoad();
  EXPECT_EQ(Find().outcome, ModelCache::Outcome::kJoined);
  {
    auto published = Publish(entry);
    EXPECT_EQ(published.deliveries.size(), 3u);
    EXPECT_EQ(entry.pins.count(), 3u) << "each waiter's pin is there before anybody can evict";
    EXPECT_EQ(Find().outcome, ModelCache::Outcome::kHit);
  }
  EXPECT_EQ(entry.pins.count(), 0u);
  cache_.CheckInvariants();
  Unload();
}

TEST_F(ModelCacheTest, StatesFollowTheStepsOfALoad) {
  Find();
  EXPECT_EQ(state(), ModelState::kQueued);
  CacheEntry& entry = BeginLoad();
  EXPECT_EQ(state(), ModelState::kLoading);
  auto published = Publish(entry);
  EXPECT_EQ(state(), ModelState::kReady);
  Unload();
  EXPECT_EQ(state(), ModelState::kDraining);
  published.deliveries.clear();
  EXPECT_EQ(state(), ModelState::kUnloading);
  EXPECT_EQ(budget_.usage().unloading.host_bytes, 10u);
  Unload();
  EXPECT_TRUE(cache_.Snapshot().empty());
}

TEST_F(ModelCacheTest, WaitersLeaveInTheOrderOfTheirDeadlines) {
  const TimePoint now = clock_.Now();
  const auto start = Find("late", now + std::chrono::seconds(3));
  Find("soon", now + std::chrono::seconds(1));
  const auto third = Find("never");
  EXPECT_EQ(cache_.next_deadline(), now + std::chrono::seconds(1));
  clock_.Advance(std::chrono::seconds(1));
  EXPECT_EQ(cache_.TakeExpired().size(), 1u);
  EXPECT_TRUE(cache_.TakeWaiter(start.ticket));
  EXPECT_FALSE(cache_.TakeWaiter(start.ticket));
  EXPECT_EQ(cache_.next_deadline(), std::nullopt);
  EXPECT_TRUE(cache_.TakeWaiter(third.ticket));
  cache_.CheckInvariants();
  Unload();
}

TEST_F(ModelCacheTest, AnAbsentEntryIsUsedAgainSoMemoryIsBoundedByTheCatalog) {
  const CacheEntry* first = nullptr;
  for (int i = 0; i < 10; ++i) {
    Find();
    CacheEntry& entry = BeginLoad();
    if (first == nullptr) first = &entry;
    EXPECT_EQ(&entry, first);
    Publish(entry);
    Unload();
  }
}

TEST_F(ModelCacheTest, ASecondGenerationIsAnEntryOfItsOwn) {
  Find();
  auto held = Publish(BeginLoad());
  Unload();  // drains
  Find();
  auto fresh = Publish(BeginLoad());
  std::vector<ModelState> states;
  for (const auto& row : cache_.Snapshot()) states.push_back(row.state);
  EXPECT_THAT(states, ElementsAre(ModelState::kDraining, ModelState::kReady)) << "oldest first";
  held.deliveries.clear();
  fresh.deliveries.clear();
  Unload();
}

using ModelCacheDeathTest = ModelCacheTest;

TEST_F(ModelCacheDeathTest, AStepThatTheTableDoesNotKnowIsABug) {
  Find();
  CacheEntry& entry = BeginLoad();
  EXPECT_DEATH(cache_.Forget(entry), "CanFollow");
  Publish(entry);
  EXPECT_DEATH(cache_.Fail(entry, absl::InternalError(""), false), "CHECK");
  Unload();
}

TEST_F(ModelCacheDeathTest, CheckInvariantsFindsABrokenTable) {
  Find();
  CacheEntry& entry = BeginLoad();
  EXPECT_DEATH(
      {
        entry.pins.Open(0);
        cache_.CheckInvariants();
      },
      "closed");
  EXPECT_DEATH(
      {
        entry.reservation.Release();
        cache_.CheckInvariants();
      },
      "charged");
  cache_.Fail(entry, absl::InternalError(""), false);
}

TEST_F(ModelCacheTest, WhoComesAfterALoadWasGivenUpDoesNotShareItsFate) {
  FindAhead();
  CacheEntry& entry = *cache_.TakeQueued(LoadPriority::kBackground)->entry;
  ASSERT_TRUE(cache_.GiveUp(entry));
  EXPECT_EQ(Find().outcome, ModelCache::Outcome::kJoined);
  const ModelCache::Failed failed = cache_.Fail(entry, absl::ResourceExhaustedError("no room"), /*remember=*/false);
  EXPECT_EQ(failed.requeued, LoadPriority::kNormal);
  EXPECT_TRUE(failed.waiters.empty());
  EXPECT_EQ(Publish(BeginLoad()).deliveries.size(), 2u);
  Unload();
}

TEST_F(ModelCacheTest, ALoadThatSomebodyWaitsForIsNotGivenUp) {
  FindAhead();
  CacheEntry& entry = *cache_.TakeQueued(LoadPriority::kBackground)->entry;
  Find();
  EXPECT_FALSE(cache_.GiveUp(entry));
  const ModelCache::Failed failed = cache_.Fail(entry, absl::InternalError("no"), /*remember=*/false);
  EXPECT_FALSE(failed.requeued);
  EXPECT_EQ(failed.waiters.size(), 2u);
}

TEST_F(ModelCacheTest, ALoadThatLostItsLastWaiterIsQueuedAgainForWhoComesThen) {
  const auto ticket = Find().ticket;
  CacheEntry& entry = *cache_.TakeQueued(LoadPriority::kNormal)->entry;
  cache_.TakeWaiter(ticket);
  ASSERT_FALSE(cache_.SetBlocked(entry, absl::ResourceExhaustedError("models in use")));
  Find();
  EXPECT_EQ(cache_.Fail(entry, absl::ResourceExhaustedError("models in use"), false).requeued, LoadPriority::kNormal);
  EXPECT_EQ(Publish(BeginLoad()).deliveries.size(), 1u);
  Unload();
}

}  // namespace
}  // namespace hearth
