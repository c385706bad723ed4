// A budget that becomes another one while models are held.
#include "tests/residency/manager_fixture.h"

namespace hearth {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using enum absl::StatusCode;

class BudgetTest : public ManagerTest {
 protected:
  // By how much what cannot leave exceeds it.
  std::uint64_t SetHostBudget(std::uint64_t bytes) {
    options_.capacity.host_bytes = bytes;
    return manager().Reconfigure(options_, policy_).host_bytes;
  }
  std::uint64_t budget() { return manager().usage().capacity.host_bytes; }
  std::vector<std::string> ResidentModels() {
    std::vector<std::string> models;
    for (const auto& row : manager().Snapshot()) {
      if (row.state == ModelState::kReady) models.push_back(row.id.name);
    }
    return models;
  }
};

TEST_F(BudgetTest, ABudgetThatGrowsIsThereAtOnce) {
  Resident("a", 60);
  EXPECT_EQ(SetHostBudget(200), 0u);
  EXPECT_EQ(budget(), 200u);
  Resident("b", 140);
  EXPECT_THAT(ResidentModels(), ElementsAre("a", "b"));
}

TEST_F(BudgetTest, ALoadThatWaitsForRoomGoesOnWhenTheBudgetGrows) {
  Cold busy = Held("busy", 90);
  Exists("new", 50);
  Cold cold = Acquire("new");
  executor_.RunAll();
  ASSERT_FALSE(cold.done());
  SetHostBudget(140);
  executor_.RunAll();
  EXPECT_TRUE(cold.ok()) << cold.status();
  EXPECT_THAT(ResidentModels(), ElementsAre("busy", "new"));
}

TEST_F(BudgetTest, ABudgetThatShrinksTakesAsFewIdleModelsAsWillDoByTheUsualOrder) {
  Resident("a", 30);
  Resident("b", 30);
  Resident("c", 30);
  Acquire("a").Release();
  EXPECT_EQ(SetHostBudget(60), 0u);
  EXPECT_EQ(used(), 90u) << "a destructor is no business of who asks for less";
  executor_.RunAll();
  EXPECT_THAT(ResidentModels(), ElementsAre("a", "c"));
  EXPECT_EQ(used(), 60u);
  EXPECT_EQ(loader_.alive(), 2);
  const EventLog::EventPtr eviction = manager().events().Of(Id("b")).last_eviction;
  ASSERT_NE(eviction, nullptr);
  EXPECT_THAT(Describe(*eviction), testing::StartsWith("because the budget became smaller; resident for"));
}

TEST_F(BudgetTest, WhatIsInUseStaysAndLeavesAsItIsReleased) {
  Cold busy = Held("busy", 60);
  Resident("idle", 40);
  EXPECT_EQ(SetHostBudget(50), 10u);
  executor_.RunAll();
  EXPECT_THAT(ResidentModels(), ElementsAre("busy"));
  EXPECT_EQ(used(), 60u);
  busy.Release();
  executor_.RunAll();
  EXPECT_THAT(ResidentModels(), IsEmpty()) << "it does not fit any more";
  EXPECT_EQ(used(), 0u);
}

TEST_F(BudgetTest, NobodyComesInWhileTooMuchIsHeld) {
  Cold busy = Held("busy", 60);
  SetHostBudget(50);
  executor_.RunAll();
  Exists("new", 20);
  Cold cold = Acquire("new");
  executor_.RunAll();
  EXPECT_FALSE(cold.done());
  EXPECT_EQ(used(), 60u);
  busy.Release();
  executor_.RunAll();
  EXPECT_TRUE(cold.ok()) << cold.status();
  EXPECT_LE(used(), 50u);
}

TEST_F(BudgetTest, WhatIsHardPinnedStaysForAsLongAsItIsPinned) {
  manager().SetHardPins({Id("kept")});
  Resident("kept", 60);
  Resident("idle", 40);
  EXPECT_EQ(SetHostBudget(50), 10u);
  executor_.RunAll();
  EXPECT_THAT(ResidentModels(), ElementsAre("kept"));
  manager().SetHardPins({});
  executor_.RunAll();
  EXPECT_THAT(ResidentModels(), IsEmpty());
}

TEST_F(BudgetTest, NobodyWaitsForWhoIsPinnedUntilThePinIsLifted) {
  manager().SetHardPins({Id("kept")});
  Resident("kept", 60);
  SetHostBudget(50);
  executor_.RunAll();
  Acquire("kept").Release();
  EXPECT_EQ(executor_.queued(), 0u) << "that it is idle makes no room";
  manager().Pin(Id("kept"));
  manager().SetHardPins({});
  executor_.RunAll();
  EXPECT_THAT(ResidentModels(), ElementsAre("kept"));
  manager().Unpin(Id("kept"));
  executor_.RunAll();
  EXPECT_THAT(ResidentModels(), IsEmpty());
}

TEST_F(BudgetTest, ALoadUnderWayIsFinishedAndItsModelServesThoseWhoWaitForIt) {
  auto script = Sized(60);
  script.on_load = [this](const ModelSpec&, const std::stop_token&) { SetHostBudget(50); };
  loader_.Set("m", script);
  Cold cold = Acquire("m");
  executor_.RunAll();
  ASSERT_TRUE(cold.ok()) << cold.status();
  EXPECT_EQ(used(), 60u);
  cold.Release();
  executor_.RunAll();
  EXPECT_THAT(ResidentModels(), IsEmpty());
}

// Its victims have left, but what they give back is no longer enough.
TEST_F(BudgetTest, ALoadWhoseBytesAreOnTheirWayLooksForRoomAgain) {
  Cold busy = Held("busy", 40);
  auto script = Sized(60);
  bool shrunk = false;
  script.model.on_destroy = [&] {
    if (!std::exchange(shrunk, true)) SetHostBudget(60);
  };
  loader_.Set("old", script);
  Cold old = Acquire("old");
  executor_.RunAll();
  old.Release();
  Exists("new", 50);
  Cold cold = Acquire("new");
  executor_.RunAll();
  ASSERT_TRUE(shrunk);
  EXPECT_FALSE(cold.done());
  busy.Release();
  executor_.RunAll();
  EXPECT_TRUE(cold.ok()) << cold.status();
  EXPECT_THAT(ResidentModels(), ElementsAre("new"));
}

TEST_F(BudgetTest, WhoCanNeverFitAnyMoreHearsSo) {
  Cold busy = Held("busy", 90);
  Exists("new", 50);
  Cold cold = Acquire("new");
  executor_.RunAll();
  SetHostBudget(40);
  executor_.RunAll();
  EXPECT_THAT(cold.status(), Fails(kFailedPrecondition, "can never fit"));
}

TEST_F(BudgetTest, ABudgetThatComesBackInTimeTakesNobody) {
  Resident("a", 60);
  SetHostBudget(50);
  SetHostBudget(100);
  executor_.RunAll();
  EXPECT_THAT(ResidentModels(), ElementsAre("a"));
}

TEST_F(BudgetTest, BackOffAndWaitAreThoseOfNow) {
  options_.failure_backoff = std::chrono::seconds(7);
  options_.max_cold_wait = std::chrono::seconds(3);
  manager().Reconfigure(options_, policy_);
  options_.failure_backoff = std::chrono::seconds(20);
  options_.max_cold_wait = std::chrono::seconds(2);
  manager().Reconfigure(options_, policy_);
  auto script = Sized(1);
  script.load_error = absl::InternalError("no");
  loader_.Set("bad", script);
  Cold bad = Acquire("bad");
  executor_.RunAll();
  EXPECT_EQ(RetryAfter(bad.status()), std::chrono::seconds(20));

  Cold busy = Held("busy", 90);
  Exists("new", 50);
  Cold cold = Acquire("new");
  Pass(std::chrono::seconds(2));
  EXPECT_TRUE(cold.done());
}

TEST_F(BudgetTest, ThePolicyIsThatOfNow) {
  const GdsfPolicy gdsf;
  Resident("often", 40);
  for (int i = 0; i < 5; ++i) Acquire("often").Release();
  Resident("once", 40);
  manager().Reconfigure(options_, &gdsf);
  Resident("new", 40);
  EXPECT_THAT(ResidentModels(), ElementsAre("new", "often")) << "the least recently used one was asked for more";
}

}  // namespace
}  // namespace hearth
