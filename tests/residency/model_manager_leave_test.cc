// Unload, reload, shutdown.
#include <thread>

#include "tests/residency/manager_fixture.h"

namespace hearth {
namespace {

using std::chrono::seconds;
using testing::ElementsAre;
using testing::IsEmpty;
using enum absl::StatusCode;

class LeaveTest : public ManagerTest {
 protected:
  // Counts calls.
  struct Called {
    std::shared_ptr<int> count = std::make_shared<int>(0);
    auto callback() {
      return [c = count] { ++*c; };
    }
    bool done() const { return *count > 0; }
  };
  Called Unload(const std::string& model) {
    Called called;
    manager().Unload(Id(model), called.callback());
    return called;
  }
};

TEST_F(LeaveTest, UnloadIsDoneWhenTheBytesAreBack) {
  Resident("vad", 40);
  Called gone = Unload("vad");
  EXPECT_FALSE(manager().TryAcquire(Id("vad"))) << "not handed out any more";
  EXPECT_FALSE(gone.done());
  EXPECT_EQ(used(), 40u);
  executor_.RunAll();
  EXPECT_EQ(*gone.count, 1);
  EXPECT_EQ(used(), 0u);
  EXPECT_THAT(manager().Snapshot(), IsEmpty());
}

TEST_F(LeaveTest, UnloadOfWhatIsNotThereIsDoneAtOnce) {
  EXPECT_TRUE(Unload("never").done());
  Resident("vad", 40);
  Unload("vad");
  executor_.RunAll();
  EXPECT_TRUE(Unload("vad").done());
}

TEST_F(LeaveTest, AModelInUseDrainsAndTheLastHandleDestroysNothingOnItsThread) {
  std::thread::id destroyed_on;
  int destroyed = 0;
  auto script = Sized(40);
  script.model.on_destroy = [&] {
    ++destroyed;
    destroyed_on = std::this_thread::get_id();
  };
  loader_.Set("vad", script);
  Cold a = Acquire("vad");
  Cold b = Acquire("vad");
  executor_.RunAll();
  Called gone = Unload("vad");
  executor_.RunAll();
  EXPECT_THAT(States("vad"), ElementsAre("draining"));
  EXPECT_EQ(a->handle->footprint().host_bytes, 40u) << "whoever has it keeps it";
  a.Release();
  b.Release();
  EXPECT_EQ(destroyed, 0) << "posted, not done";
  EXPECT_THAT(States("vad"), ElementsAre("unloading"));
  EXPECT_EQ(used(), 40u);
  std::thread load_thread([&] { executor_.RunAll(); });
  const std::thread::id expected = load_thread.get_id();
  load_thread.join();
  EXPECT_EQ(destroyed, 1);
  EXPECT_EQ(destroyed_on, expected);
  EXPECT_TRUE(gone.done());
}

TEST_F(LeaveTest, ARequestDuringADrainLoadsANewGenerationNextToTheOld) {
  Cold old = Held("vad", 40);
  Unload("vad");
  Cold fresh = Acquire("vad");
  executor_.RunAll();
  ASSERT_TRUE(fresh.ok());
  EXPECT_NE(&*fresh->handle, &*old->handle);
  EXPECT_THAT(States("vad"), ElementsAre("draining", "ready"));
  EXPECT_EQ(used(), 80u);
}

TEST_F(LeaveTest, UnloadOfAQueuedLoadAnswersItsWaiters) {
  Cold cold = Acquire("vad");
  Called gone = Unload("vad");
  EXPECT_THAT(cold.status(), Fails(kUnavailable, "unloaded while it was loading"));
  EXPECT_TRUE(gone.done());
  executor_.RunAll();
  EXPECT_EQ(loader_.loads("vad"), 0);
}

TEST_F(LeaveTest, UnloadOfALoadUnderWayStopsItAndAnswersItsWaiters) {
  auto script = Sized(40);
  Called gone;
  Cold cold;
  script.on_load = [&](auto&, std::stop_token stop) {
    EXPECT_FALSE(stop.stop_requested());
    gone = Unload("vad");
    EXPECT_TRUE(stop.stop_requested());
    EXPECT_THAT(cold.status(), Fails(kUnavailable, "unloaded"));
    EXPECT_FALSE(gone.done()) << "its bytes are still reserved";
  };
  loader_.Set("vad", script);
  cold = Acquire("vad");
  executor_.RunAll();
  EXPECT_TRUE(gone.done());
  EXPECT_EQ(used(), 0u);
  EXPECT_THAT(States("vad"), IsEmpty()) << "being stopped is no failure to remember";
}

TEST_F(LeaveTest, ARequestThatComesWhileALoadIsBeingStoppedLoadsAgain) {
  auto script = Sized(40);
  Cold second;
  script.on_load = [&](auto&, auto) {
    if (loader_.loads("vad") > 1) return;
    Unload("vad");
    second = Acquire("vad");
    EXPECT_FALSE(second.done());
  };
  loader_.Set("vad", script);
  Cold first = Acquire("vad");
  executor_.RunAll();
  EXPECT_EQ(first.status().code(), kUnavailable);
  EXPECT_TRUE(second.ok()) << second.status();
  EXPECT_EQ(loader_.loads("vad"), 2);
}

TEST_F(LeaveTest, UnloadOfALoadThatWaitsForRoomEndsIt) {
  Cold busy = Held("busy", 90);
  Exists("new", 50);
  Cold cold = Acquire("new");
  executor_.RunAll();
  Called gone = Unload("new");
  EXPECT_EQ(cold.status().code(), kUnavailable);
  executor_.RunAll();
  EXPECT_TRUE(gone.done());
  EXPECT_THAT(States("new"), IsEmpty());
}

TEST_F(LeaveTest, UnloadForgetsAFailure) {
  Exists("flaky", 10);
  loader_.FailLoad(1, absl::InternalError("no"));
  Acquire("flaky");
  executor_.RunAll();
  EXPECT_TRUE(Unload("flaky").done());
  Cold cold = Acquire("flaky");
  executor_.RunAll();
  EXPECT_TRUE(cold.ok());
}

TEST_F(LeaveTest, AReloadThatFitsNeverStopsAnswering) {
  Resident("vad", 40);
  const Model* old = &*manager().Peek(Id("vad"));
  Exists("vad", 50);
  auto load = Load("vad", {.reload = true});
  EXPECT_FALSE(load.done());
  EXPECT_TRUE(manager().TryAcquire(Id("vad"))) << "the old one, meanwhile";
  executor_.RunAll();
  ASSERT_TRUE(load.ok()) << load.status();
  EXPECT_NE(&*manager().Peek(Id("vad")), old);
  EXPECT_EQ(used(), 50u) << "the old one is gone";
}

TEST_F(LeaveTest, AReloadSwapsUnderAHandleWithoutHurtingIt) {
  Cold held = Held("vad", 40);
  auto load = Load("vad", {.reload = true});
  executor_.RunAll();
  EXPECT_TRUE(load.ok());
  EXPECT_EQ(held->handle->footprint().host_bytes, 40u);
  EXPECT_THAT(States("vad"), ElementsAre("draining", "ready"));
  held.Release();
  executor_.RunAll();
  EXPECT_THAT(States("vad"), ElementsAre("ready"));
}

TEST_F(LeaveTest, AReloadThatDoesNotFitBesideTheOldOneDrainsItFirstAndRequestsWait) {
  Cold held = Held("vad", 60);
  auto load = Load("vad", {.reload = true});
  executor_.RunAll();
  EXPECT_FALSE(load.done());
  EXPECT_THAT(States("vad"), ElementsAre("draining", "queued"));
  Cold waits = Acquire("vad");
  EXPECT_FALSE(waits.done()) << "queued, not refused";
  held.Release();
  executor_.RunAll();
  EXPECT_TRUE(load.ok());
  EXPECT_TRUE(waits.ok());
}

TEST_F(LeaveTest, AReloadPrefersItsOwnOldGenerationToOtherVictims) {
  Resident("other", 40);
  Resident("vad", 60);
  auto load = Load("vad", {.reload = true});
  executor_.RunAll();
  EXPECT_TRUE(load.ok());
  EXPECT_TRUE(IsResident("other"));
}

TEST_F(LeaveTest, AReloadThatFailsLeavesTheOldOneInService) {
  Resident("vad", 40);
  loader_.FailLoad(1, absl::InvalidArgumentError("cut short"));
  auto load = Load("vad", {.reload = true});
  executor_.RunAll();
  EXPECT_EQ(load.status().code(), kInvalidArgument);
  EXPECT_TRUE(Acquire("vad").ok());
  EXPECT_THAT(States("vad"), ElementsAre("ready"));
}

TEST_F(LeaveTest, AReloadDuringALoadStartsItAgain) {
  auto script = Sized(40);
  Answer<LoadReport> reload;
  script.on_load = [&](auto&, std::stop_token stop) {
    if (loader_.loads("vad") > 1) return;
    reload = Load("vad", {.reload = true});
    EXPECT_TRUE(stop.stop_requested()) << "it may have read the old file";
  };
  loader_.Set("vad", script);
  Cold cold = Acquire("vad");
  executor_.RunAll();
  EXPECT_EQ(loader_.loads("vad"), 2);
  EXPECT_TRUE(cold.ok()) << "who waited goes on waiting";
  EXPECT_TRUE(reload.ok());
}

TEST_F(LeaveTest, AHardPinOutlivesReloadsUnloadsAndFailures) {
  const auto pinned = [this] { return manager().Snapshot().at(0).pinned; };
  manager().SetHardPins({Id("vad")});
  Resident("vad", 60);
  EXPECT_TRUE(pinned());
  auto load = Load("vad", {.reload = true});
  executor_.RunAll();
  EXPECT_TRUE(load.ok()) << load.status();
  EXPECT_TRUE(pinned());
  Unload("vad");
  executor_.RunAll();
  Resident("vad", 60);
  EXPECT_TRUE(pinned());
  Unload("vad");
  loader_.FailLoad(1, absl::DataLossError("cut short"));
  Load("vad");
  executor_.RunAll();
  Load("vad");
  executor_.RunAll();
  EXPECT_TRUE(IsResident("vad"));
  EXPECT_TRUE(pinned());
}

TEST_F(LeaveTest, TheReasonOfAnUnloadIsCounted) {
  Resident("vad", 40);
  manager().Unload(Id("vad"), [] {}, EvictionReason::kDataLoss);
  executor_.RunAll();
  const std::string text = metrics_.Text();
  EXPECT_NE(text.find("hearth_evictions_total{reason=\"data_loss\"} 1"), std::string::npos);
  EXPECT_NE(text.find("hearth_evictions_total{reason=\"unload\"} 0"), std::string::npos);
}

TEST_F(LeaveTest, ShutdownWithEverythingInFlightAnswersEverybody) {
  Resident("idle", 10);
  Cold held = Held("held", 20);
  Cold draining = Held("draining", 20);
  Unload("draining");
  Exists("blocked", 90);
  Cold blocked = Acquire("blocked");
  executor_.RunAll();
  Exists("queued", 5);
  Cold queued;
  Cold loading;
  auto script = Sized(10);
  script.on_load = [&](auto&, std::stop_token stop) {
    queued = Acquire("queued");
    manager().Shutdown();
    EXPECT_TRUE(stop.stop_requested());
  };
  loader_.Set("loading", script);
  loading = Acquire("loading");
  executor_.RunAll();
  for (Cold* cold : {&blocked, &queued, &loading}) {
    EXPECT_THAT(cold->status(), Fails(kUnavailable, "Server exiting"));
  }
  EXPECT_THAT(Acquire("idle").status(), Fails(kUnavailable, "Server exiting"));
  EXPECT_THAT(Load("idle").status(), Fails(kUnavailable, "Server exiting"));
  EXPECT_THAT(manager().Remaining(), ElementsAre(Id("draining"), Id("held")));
  EXPECT_FALSE(manager().idle());
  manager().Shutdown();
  held.Release();
  draining.Release();
  executor_.RunAll();
  EXPECT_TRUE(manager().idle());
  EXPECT_EQ(used(), 0u);
  EXPECT_EQ(loader_.alive(), 0);
}

TEST_F(LeaveTest, AModelThatFinishesLoadingAfterShutdownIsDestroyed) {
  auto script = Sized(10);
  script.on_load = [&](auto&, auto) { manager().Shutdown(); };
  loader_.Set("vad", script);
  Cold cold = Acquire("vad");
  executor_.RunAll();
  EXPECT_EQ(cold.status().code(), kUnavailable);
  EXPECT_TRUE(manager().idle());
}

}  // namespace
}  // namespace hearth
