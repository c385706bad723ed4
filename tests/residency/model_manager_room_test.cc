// Budgets and eviction.
#include "tests/residency/manager_fixture.h"

namespace hearth {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::UnorderedElementsAre;
using enum absl::StatusCode;

class RoomTest : public ManagerTest {
 protected:
  std::vector<std::string> ResidentModels() {
    std::vector<std::string> models;
    for (const auto& row : manager().Snapshot()) {
      if (row.state == ModelState::kReady) models.push_back(row.id.name);
    }
    return models;
  }
};

TEST_F(RoomTest, TheLeastRecentlyUsedModelMakesRoom) {
  Resident("a", 40);
  Resident("b", 40);
  Acquire("a").Release();
  Resident("c", 40);
  EXPECT_THAT(ResidentModels(), ElementsAre("a", "c"));
  EXPECT_EQ(used(), 80u);
}

TEST_F(RoomTest, NoMoreGoesThanIsNeeded) {
  Resident("small", 10);
  Resident("big", 60);
  Resident("other", 20);
  Resident("new", 65);
  EXPECT_THAT(ResidentModels(), ElementsAre("new", "other", "small"));
}

TEST_F(RoomTest, AModelInUseIsNeverAVictimAndNobodyNotices) {
  Cold held = Held("busy", 50);
  Resident("idle", 50);
  Resident("new", 50);
  EXPECT_THAT(ResidentModels(), ElementsAre("busy", "new"));
  EXPECT_EQ(held->handle->footprint().host_bytes, 50u) << "still there";
}

TEST_F(RoomTest, AHardPinnedModelIsNeverAVictim) {
  manager().SetHardPins({Id("kept")});
  Resident("kept", 50);
  Resident("a", 50);
  Resident("b", 50);
  EXPECT_THAT(ResidentModels(), ElementsAre("b", "kept"));
  EXPECT_TRUE(manager().Snapshot().at(1).pinned);
}

TEST_F(RoomTest, AResidentModelCanBeHardPinnedAndUnpinned) {
  Resident("kept", 50);
  manager().SetHardPins({Id("kept")});
  Resident("a", 50);
  Resident("b", 50);
  EXPECT_TRUE(IsResident("kept"));
  manager().SetHardPins({});
  Resident("c", 50);
  Resident("d", 50);
  EXPECT_FALSE(IsResident("kept"));
}

TEST_F(RoomTest, WhatIsLargerThanTheBudgetIsRefusedAndNothingIsEvicted) {
  Resident("a", 50);
  Exists("huge", 101);
  Cold cold = Acquire("huge");
  executor_.RunAll();
  EXPECT_THAT(cold.status(), Fails(kFailedPrecondition, "can never fit"));
  EXPECT_THAT(std::string(cold.status().message()), HasSubstr("cache.budget.host"));
  EXPECT_EQ(RetryAfter(cold.status()), std::nullopt);
  EXPECT_TRUE(IsResident("a"));
}

TEST_F(RoomTest, HardPinsThatLeaveNoRoomAreRefusedAtOnceAndNothingIsEvicted) {
  manager().SetHardPins({Id("kept")});
  Resident("kept", 50);
  Resident("a", 50);
  Exists("big", 60);
  Cold cold = Acquire("big");
  executor_.RunAll();
  EXPECT_THAT(cold.status(), Fails(kResourceExhausted, "beside the pinned models"));
  EXPECT_TRUE(IsResident("a"));
  EXPECT_THAT(States("big"), IsEmpty()) << "no fault of the model: not remembered";
}

TEST_F(RoomTest, ABadModelIsFoundOutBeforeAnybodyIsEvictedForIt) {
  Resident("a", 90);
  auto script = Sized(90);
  script.estimate_error = absl::InvalidArgumentError("not a zip archive");
  loader_.Set("bad", script);
  Cold cold = Acquire("bad");
  executor_.RunAll();
  EXPECT_EQ(cold.status().code(), kInvalidArgument);
  EXPECT_TRUE(IsResident("a"));
}

TEST_F(RoomTest, ALoadWaitsForModelsInUseAndGoesOnWhenOneIsReleased) {
  Cold busy = Held("busy", 90);
  Exists("new", 50);
  Cold cold = Acquire("new");
  EXPECT_GT(executor_.RunAll(), 0u);
  EXPECT_FALSE(cold.done());
  EXPECT_THAT(States("new"), ElementsAre("queued"));
  busy.Release();
  executor_.RunAll();
  EXPECT_TRUE(cold.ok()) << cold.status();
  EXPECT_THAT(ResidentModels(), ElementsAre("new"));
  EXPECT_EQ(loader_.estimates("new"), 1) << "known from the first look";
}

TEST_F(RoomTest, ALoadThatWaitsForRoomHoldsNoThreadAndStopsNobody) {
  Cold busy = Held("busy", 90);
  Exists("new", 50);
  Cold cold = Acquire("new");
  executor_.RunAll();
  Resident("small", 10);
  EXPECT_TRUE(IsResident("small"));
  executor_.RunAll();
  EXPECT_EQ(executor_.queued(), 0u) << "it does not spin either";
  EXPECT_FALSE(cold.done());
}

TEST_F(RoomTest, WhoWaitedInVainForRoomHearsResourceExhaustedWithAHint) {
  Cold busy = Held("busy", 90);
  Exists("new", 50);
  Cold soon = Acquire("new", clock_.Now() + seconds(5));
  Cold late = Acquire("new", clock_.Now() + seconds(10));
  executor_.RunAll();
  Pass(seconds(5));
  EXPECT_THAT(soon.status(), Fails(kResourceExhausted, "models in use"));
  EXPECT_GT(RetryAfter(soon.status()), milliseconds(0));
  EXPECT_FALSE(late.done());
  EXPECT_THAT(States("new"), ElementsAre("queued"));
  Pass(seconds(5));
  EXPECT_THAT(late.status(), Fails(kResourceExhausted, "models in use"));
  EXPECT_THAT(States("new"), IsEmpty()) << "nobody waits for it any more";
  busy.Release();
  executor_.RunAll();
  EXPECT_TRUE(IsResident("busy")) << "so nobody goes for it";
}

TEST_F(RoomTest, ABlockedLoadIsDroppedWhenItsLastWaiterCancels) {
  Cold busy = Held("busy", 90);
  Exists("new", 50);
  Cold cold = Acquire("new");
  executor_.RunAll();
  manager().Cancel(cold.ticket);
  EXPECT_EQ(cold.status().code(), kCancelled);
  executor_.RunAll();
  EXPECT_THAT(States("new"), IsEmpty());
}

TEST_F(RoomTest, WhoWaitsForRoomIsServedInOrder) {
  Cold busy = Held("busy", 90);
  Exists("first", 60);
  Exists("second", 60);
  Cold first = Acquire("first");
  Cold second = Acquire("second");
  executor_.RunAll();
  busy.Release();
  executor_.RunAll();
  EXPECT_TRUE(first.ok());
  EXPECT_FALSE(second.done());
  first.Release();
  executor_.RunAll();
  EXPECT_TRUE(second.ok());
}

TEST_F(RoomTest, BytesStayReservedUntilTheVictimIsDestroyed) {
  auto script = Sized(80);
  std::vector<std::uint64_t> seen;
  script.model.on_destroy = [&] {
    const auto usage = manager().usage();  // would hang if a lock were held
    EXPECT_EQ(usage.unloading.host_bytes, 80u);
    EXPECT_EQ(usage.loading.host_bytes, 0u) << "the newcomer has to wait for the bytes";
    EXPECT_THAT(States("old"), ElementsAre("unloading"));
    Exists("thief", 20);
    Cold thief = Acquire("thief");  // its load comes later; the bytes are promised
    seen.push_back(usage.used().host_bytes);
  };
  loader_.Set("old", script);
  Acquire("old");
  executor_.RunAll();
  Exists("new", 90);
  Cold cold = Acquire("new");
  executor_.RunAll();
  EXPECT_TRUE(cold.ok());
  EXPECT_THAT(seen, ElementsAre(80u));
}

TEST_F(RoomTest, FreedBytesGoToTheModelTheyWereFreedFor) {
  Exists("thief", 20);
  auto script = Sized(80);
  Cold thief;
  script.model.on_destroy = [&] {
    thief = Acquire("thief");
    executor_.RunOne();  // another load thread, while the victim is being destroyed
    EXPECT_FALSE(thief.done()) << "20 bytes are free, but promised";
  };
  loader_.Set("old", script);
  Acquire("old");
  executor_.RunAll();
  Exists("new", 90);
  Cold cold = Acquire("new");
  executor_.RunAll();
  ASSERT_TRUE(cold.ok()) << cold.status();
  EXPECT_FALSE(thief.done());
  cold.Release();
  executor_.RunAll();
  EXPECT_TRUE(thief.ok());
}

TEST_F(RoomTest, ThePeakIsReservedWhileLoadingAndGivenBackAfterwards) {
  auto script = Sized(30);
  script.peak = Host(70);
  script.on_load = [&](auto&, auto) {
    EXPECT_EQ(manager().usage().loading.host_bytes, 70u);
    EXPECT_EQ(manager().Snapshot().at(0).host_bytes, 70u);
  };
  loader_.Set("vad", script);
  Cold cold = Acquire("vad");
  executor_.RunAll();
  EXPECT_EQ(manager().usage().resident.host_bytes, 30u);
  EXPECT_EQ(manager().usage().loading.host_bytes, 0u);
}

TEST_F(RoomTest, ALoadWaitsForThePeakOfAnother) {
  Exists("second", 50);
  Cold second;
  auto script = Sized(30);
  script.peak = Host(70);
  script.on_load = [&](auto&, auto) {
    second = Acquire("second");
    executor_.RunOne();  // on another load thread
    EXPECT_FALSE(second.done());
  };
  loader_.Set("first", script);
  Cold first = Acquire("first");
  executor_.RunAll();
  EXPECT_TRUE(first.ok());
  EXPECT_TRUE(second.ok()) << "the first one turned out smaller";
  EXPECT_EQ(used(), 80u);
}

TEST_F(RoomTest, AModelThatTookMoreThanItPromisedIsChargedTheTruthWhereItFits) {
  auto script = Sized(60);
  script.peak = Host(20);
  loader_.Set("liar", script);
  Cold cold = Acquire("liar");
  executor_.RunAll();
  EXPECT_TRUE(cold.ok());
  EXPECT_EQ(used(), 60u);
}

TEST_F(RoomTest, AModelThatTookMoreThanItPromisedAndDoesNotFitFailsCleanly) {
  Cold busy = Held("busy", 60);
  auto script = Sized(60);
  script.peak = Host(20);
  loader_.Set("liar", script);
  Cold cold = Acquire("liar");
  executor_.RunAll();
  EXPECT_THAT(cold.status(), Fails(kResourceExhausted, "than its files promised"));
  EXPECT_EQ(used(), 60u);
  EXPECT_EQ(loader_.alive(), 1);
}

TEST_F(RoomTest, ModelsOfOneFileAreChargedOnceAndEvictionKnowsIt) {
  const auto script = [](std::uint64_t inode, std::uint64_t bytes) {
    fakes::FakeLoader::Script s;
    s.model.footprint.extents = {{FileId{1, inode, 0, bytes}, 0, bytes}};
    return s;
  };
  loader_.Set("a", script(1, 60));
  loader_.Set("twin", script(1, 60));
  loader_.Set("b", script(2, 40));
  loader_.Set("c", script(3, 40));
  Acquire("a");
  executor_.RunAll();
  Cold twin = Acquire("twin");
  executor_.RunAll();
  Acquire("b");
  executor_.RunAll();
  EXPECT_EQ(manager().usage().used().mapped_bytes, 100u);
  Acquire("c");
  executor_.RunAll();
  EXPECT_THAT(ResidentModels(), UnorderedElementsAre("a", "c", "twin"))
      << "evicting the older a would have freed nothing";
}

// Acquires a model in the moment in which it is being weighed.
class AskingPolicy final : public EvictionPolicy {
 public:
  double Loss(const EvictionCandidate& candidate, TimePoint now) const override {
    if (on_look) std::exchange(on_look, nullptr)();
    return LruPolicy().Loss(candidate, now);
  }
  bool adds_up() const override { return false; }
  mutable std::function<void()> on_look;
};

TEST_F(RoomTest, AVictimWantedAgainBeforeItsUnloadingBeganIsRescuedAndAnotherIsPicked) {
  AskingPolicy policy;
  policy_ = &policy;
  Resident("old", 45);
  Resident("newer", 45);
  ModelHandle rescued;
  policy.on_look = [&] { rescued = manager().TryAcquire(Id("old")); };
  Exists("new", 50);
  Cold cold = Acquire("new");
  executor_.RunAll();
  EXPECT_TRUE(cold.ok());
  EXPECT_TRUE(rescued);
  EXPECT_THAT(ResidentModels(), ElementsAre("new", "old"));
  EXPECT_EQ(loader_.loads("old"), 1);
}

TEST_F(RoomTest, WhenOneOfSeveralVictimsIsRescuedTheOthersStayUnlessNeeded) {
  AskingPolicy policy;
  policy_ = &policy;
  Resident("a", 30);
  Resident("b", 30);
  Resident("c", 40);
  ModelHandle rescued;
  policy.on_look = [&] { rescued = manager().TryAcquire(Id("b")); };
  Exists("new", 60);  // a and b, had b not been asked for
  Cold cold = Acquire("new");
  executor_.RunAll();
  EXPECT_TRUE(cold.ok());
  EXPECT_THAT(ResidentModels(), ElementsAre("b", "new"));
}

TEST_F(RoomTest, AModelThatIsAskedForOftenOutlivesOneThatWasUsedAfterIt) {
  policy_ = nullptr;  // the default
  Resident("often", 45);
  for (int i = 0; i < 10; ++i) Acquire("often").Release();
  Resident("once", 45);
  Resident("new", 50);
  EXPECT_THAT(ResidentModels(), ElementsAre("new", "often"));
}

TEST_F(RoomTest, HowOftenAModelIsAskedForIsKnownWhenItComesBack) {
  policy_ = nullptr;
  Resident("often", 45);
  for (int i = 0; i < 10; ++i) Acquire("often").Release();
  manager().Unload(Id("often"), [] {});
  executor_.RunAll();
  Resident("often", 45);
  Resident("twice", 45);
  Acquire("twice").Release();
  Resident("new", 50);
  EXPECT_THAT(ResidentModels(), ElementsAre("new", "often"));
}

TEST_F(RoomTest, AModelThatHasJustComeStaysWhileOthersCanGo) {
  policy_ = nullptr;
  options_.min_residency = std::chrono::seconds(10);
  Resident("old", 45);
  for (int i = 0; i < 10; ++i) Acquire("old").Release();
  Pass(std::chrono::seconds(20));
  Resident("young", 45);
  Resident("new", 50);
  EXPECT_THAT(ResidentModels(), ElementsAre("new", "young"));
}

TEST_F(RoomTest, AModelMayHaveAPromiseOfItsOwn) {
  options_.min_residency = std::chrono::hours(1);
  spec_options_.min_residency = std::chrono::seconds(10);
  Resident("short", 45);
  spec_options_.min_residency.reset();
  Resident("long", 45);
  Pass(std::chrono::seconds(20));
  manager().TryAcquire(Id("short"));
  Resident("new", 50);
  EXPECT_THAT(ResidentModels(), ElementsAre("long", "new")) << "though it was used last";
}

TEST_F(RoomTest, ARequestThatArrivesWhileItsModelIsUnloadingLoadsItAgain) {
  auto script = Sized(80);
  Cold again;
  const auto asked = std::make_shared<bool>(false);
  script.model.on_destroy = [&, asked] {
    if (std::exchange(*asked, true)) return;  // the second one goes when this test's locals are gone
    EXPECT_FALSE(manager().TryAcquire(Id("old")));
    again = Acquire("old");
    EXPECT_THAT(States("old"), ElementsAre("unloading", "queued"));
  };
  loader_.Set("old", script);
  Acquire("old");
  executor_.RunAll();
  Exists("new", 90);
  Cold cold = Acquire("new");
  executor_.RunAll();
  ASSERT_TRUE(cold.ok());
  EXPECT_FALSE(again.done()) << "the new one is in use";
  cold.Release();
  executor_.RunAll();
  EXPECT_TRUE(again.ok());
  EXPECT_EQ(loader_.loads("old"), 2);
}

TEST_F(RoomTest, AFreshlyLoadedModelCannotBeEvictedBeforeItsWaiterHasIt) {
  Exists("a", 60);
  Exists("b", 60);
  Cold a = Acquire("a");
  Cold b = Acquire("b");
  executor_.RunAll();
  EXPECT_TRUE(a.ok());
  EXPECT_FALSE(b.done());
  a.Release();
  executor_.RunAll();
  EXPECT_TRUE(b.ok());
}

TEST_F(RoomTest, ManyLoadsAndEvictionsLeaveNothingBehind) {
  for (int i = 0; i < 1000; ++i) Resident("m" + std::to_string(i % 7), 40);
  EXPECT_EQ(used(), 80u);
  EXPECT_EQ(loader_.alive(), 2);
}

TEST_F(RoomTest, AHardPinThatComesLaterEndsTheWaitOfWhoCanNeverFitBesideIt) {
  Cold busy = Held("busy", 90);
  Exists("new", 50);
  Cold cold = Acquire("new");
  executor_.RunAll();
  EXPECT_FALSE(cold.done());
  manager().SetHardPins({Id("busy")});
  executor_.RunAll();
  EXPECT_THAT(cold.status(), Fails(kResourceExhausted, "beside the pinned models"));
}

TEST_F(RoomTest, ALoadThatWaitsGoesOnWhenAPinIsLifted) {
  manager().SetHardPins({Id("kept")});
  Resident("kept", 50);
  Cold busy = Held("busy", 40);
  Exists("new", 50);
  Cold cold = Acquire("new");
  executor_.RunAll();
  EXPECT_FALSE(cold.done()) << "it fits beside the pinned one once the other is idle";
  manager().SetHardPins({});
  executor_.RunAll();
  EXPECT_TRUE(cold.ok());
  EXPECT_FALSE(IsResident("kept"));
}

}  // namespace
}  // namespace hearth
