// Whose load goes first, who has to make room for it, and who hears at once that it will be too late.
#include "tests/residency/manager_fixture.h"

namespace hearth {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using enum absl::StatusCode;

class PriorityTest : public ManagerTest {
 protected:
  Answer<LoadReport> Prefetch(const std::string& model) {
    return Load(model, {.priority = LoadPriority::kBackground});
  }
  bool Exposes(const std::string& line) { return metrics_.Text().find("\n" + line + "\n") != std::string::npos; }
};

TEST_F(PriorityTest, ALoadAheadOfNeedKeepsOffTheThreadsOfOthers) {
  Exists("ahead", 10);
  auto load = Prefetch("ahead");
  executor_.RunAll();
  EXPECT_FALSE(load.done());
  background_.RunAll();
  EXPECT_TRUE(load.ok()) << load.status();
}

TEST_F(PriorityTest, ARequestTakesAQueuedLoadOutOfTheBackground) {
  Exists("first", 10);
  Exists("wanted", 10);
  Prefetch("first");
  auto load = Prefetch("wanted");
  Cold cold = Acquire("wanted");
  executor_.RunAll();
  EXPECT_TRUE(cold.ok()) << cold.status();
  EXPECT_TRUE(load.ok());
  EXPECT_FALSE(IsResident("first"));
  background_.RunAll();
  EXPECT_TRUE(IsResident("first"));
  EXPECT_EQ(loader_.loads("wanted"), 1);
  EXPECT_TRUE(Exposes("hearth_load_promotions_total 1"));
}

TEST_F(PriorityTest, AnExplicitLoadDoesSoToo) {
  Exists("wanted", 10);
  Prefetch("wanted");
  auto load = Load("wanted");
  executor_.RunAll();
  EXPECT_TRUE(load.ok());
}

TEST_F(PriorityTest, ALoadAheadOfNeedThatJoinsARequestsLoadHoldsItBackByNothing) {
  Exists("wanted", 10);
  Cold cold = Acquire("wanted");
  auto load = Prefetch("wanted");
  executor_.RunAll();
  EXPECT_TRUE(cold.ok());
  EXPECT_TRUE(load.ok());
  EXPECT_TRUE(Exposes("hearth_load_promotions_total 0"));
}

TEST_F(PriorityTest, ARequestThatComesBetweenTwoStepsTakesTheNextOneOutOfTheBackground) {
  auto script = Sized(10);
  Cold cold;
  script.on_estimate = [&] { cold = Acquire("wanted"); };
  loader_.Set("wanted", script);
  Prefetch("wanted");
  background_.RunAll();
  EXPECT_EQ(loader_.loads("wanted"), 0) << "not on a thread that counts for less";
  executor_.RunAll();
  EXPECT_TRUE(cold.ok()) << cold.status();
  EXPECT_EQ(loader_.estimates("wanted"), 1);
}

TEST_F(PriorityTest, MakingRoomIsAStepToo) {
  Resident("old", 95);
  auto script = Sized(50);
  Cold cold;
  script.on_estimate = [&] { cold = Acquire("wanted"); };
  loader_.Set("wanted", script);
  Prefetch("wanted");
  background_.RunAll();
  EXPECT_TRUE(IsResident("old"));
  executor_.RunAll();
  EXPECT_FALSE(IsResident("old"));
  EXPECT_TRUE(cold.ok()) << cold.status();
}

// Asks for a model in the moment in which others are being weighed for it.
class AskingPolicy final : public EvictionPolicy {
 public:
  double Loss(const EvictionCandidate& candidate, TimePoint now) const override {
    if (on_look) std::exchange(on_look, nullptr)();
    return LruPolicy().Loss(candidate, now);
  }
  bool adds_up() const override { return true; }
  mutable std::function<void()> on_look;
};

TEST_F(PriorityTest, ARequestThatComesWhileRoomIsMadeTakesTheLoadOutOfTheBackground) {
  AskingPolicy policy;
  policy_ = &policy;
  Resident("stale", 95);
  clock_.Advance(hours(3));
  Exists("wanted", 50);
  Cold cold;
  policy.on_look = [&] { cold = Acquire("wanted"); };
  Prefetch("wanted");
  background_.RunAll();
  EXPECT_EQ(loader_.loads("wanted"), 0);
  executor_.RunAll();
  EXPECT_TRUE(cold.ok()) << cold.status();
}

TEST_F(PriorityTest, ALoadThatHasBegunInTheBackgroundGoesOnThere) {
  auto script = Sized(10);
  Cold cold;
  script.on_load = [&](auto&, auto) { cold = Acquire("wanted"); };
  loader_.Set("wanted", script);
  Prefetch("wanted");
  background_.RunAll();
  EXPECT_TRUE(cold.ok()) << cold.status();
  EXPECT_EQ(loader_.loads("wanted"), 1);
}

TEST_F(PriorityTest, AParkedLoadLeavesTheBackgroundToo) {
  Resident("old", 60);
  manager().Unload(Id("old"), [] {});  // on its way: its bytes are promised to the next
  Exists("wanted", 60);
  Prefetch("wanted");
  background_.RunAll();
  EXPECT_THAT(States("wanted"), ElementsAre("queued")) << "parked";
  Cold cold = Acquire("wanted");
  executor_.RunAll();
  EXPECT_TRUE(cold.ok()) << cold.status();
}

TEST_F(PriorityTest, ALoadThatWasParkedAndWaitsForAThreadLeavesTheBackgroundToo) {
  Resident("old", 60);
  manager().Unload(Id("old"), [] {});
  Exists("wanted", 60);
  Prefetch("wanted");
  background_.RunAll();
  executor_.RunAll();  // the bytes are back
  EXPECT_FALSE(IsResident("wanted")) << "its turn is in the background";
  EXPECT_GT(background_.queued(), 0u);
  Cold cold = Acquire("wanted");
  executor_.RunAll();
  EXPECT_TRUE(cold.ok()) << cold.status();
  background_.RunAll();
  EXPECT_EQ(loader_.loads("wanted"), 1);
}

TEST_F(PriorityTest, AQueuedLoadThatNobodyWaitsForAnyMoreGoesToTheBackground) {
  Exists("cancelled", 10);
  Exists("expired", 10);
  Cold cancelled = Acquire("cancelled");
  Cold expired = Acquire("expired", clock_.Now() + seconds(1));
  manager().Cancel(cancelled.ticket);
  clock_.Advance(seconds(1));
  timer_.RunDue();
  EXPECT_EQ(expired.status().code(), kDeadlineExceeded);
  executor_.RunAll();
  EXPECT_FALSE(IsResident("cancelled"));
  EXPECT_FALSE(IsResident("expired"));
  Cold again = Acquire("expired");
  executor_.RunAll();
  EXPECT_TRUE(again.ok()) << "and back again";
  background_.RunAll();
  EXPECT_TRUE(IsResident("cancelled"));
}

TEST_F(PriorityTest, ALoadKeepsItsPlaceWhileSomebodyElseWaitsForIt) {
  Exists("wanted", 10);
  Cold gone = Acquire("wanted");
  Cold stays = Acquire("wanted");
  manager().Cancel(gone.ticket);
  executor_.RunAll();
  EXPECT_TRUE(stays.ok());
}

TEST_F(PriorityTest, AParkedLoadThatIsOnlyWaitedForAheadOfNeedDisplacesNobodyAnyMore) {
  Cold busy = Held("busy", 90);
  Exists("new", 50);
  Cold cold = Acquire("new");
  auto load = Prefetch("new");
  RunAll();
  manager().Cancel(cold.ticket);
  RunAll();
  EXPECT_THAT(load.status(), Fails(kResourceExhausted, "without displacing"));
  busy.Release();
  RunAll();
  EXPECT_TRUE(IsResident("busy"));
}

TEST_F(PriorityTest, TheQueueIsCountedByPriority) {
  Exists("a", 10);
  Exists("b", 10);
  metrics_.AddCollector([this] { return manager().Samples(); });
  Prefetch("a");
  Acquire("b");
  EXPECT_TRUE(Exposes("hearth_load_queue_depth{priority=\"normal\"} 1"));
  EXPECT_TRUE(Exposes("hearth_load_queue_depth{priority=\"background\"} 1"));
  clock_.Advance(seconds(3));
  RunAll();
  EXPECT_TRUE(Exposes("hearth_load_queue_depth{priority=\"background\"} 0"));
  EXPECT_TRUE(Exposes("hearth_load_queue_seconds_count{priority=\"normal\"} 1"));
  EXPECT_THAT(metrics_.Text(), HasSubstr("hearth_load_queue_seconds_sum{priority=\"background\"} 3.00"));
}

TEST_F(PriorityTest, ALoadAheadOfNeedDisplacesNobodyWhoIsInDemandAndThatIsNotHeldAgainstIt) {
  Resident("hot", 60);
  clock_.Advance(hours(1));  // used once within the half-life
  Exists("ahead", 60);
  auto load = Prefetch("ahead");
  RunAll();
  EXPECT_THAT(load.status(), Fails(kResourceExhausted, "without displacing"));
  EXPECT_TRUE(IsResident("hot"));
  EXPECT_THAT(States("ahead"), IsEmpty());
  EXPECT_TRUE(Exposes("hearth_loads_dropped_total{reason=\"no_room\"} 1"));
  Cold cold = Acquire("ahead");
  RunAll();
  EXPECT_TRUE(cold.ok()) << "a request may: " << cold.status();
}

TEST_F(PriorityTest, ALoadAheadOfNeedTakesThePlaceOfWhomNobodyWants) {
  Resident("stale", 60);
  Resident("hot", 40);
  clock_.Advance(hours(3));
  for (int i = 0; i < 3; ++i) Acquire("hot").Release();
  Exists("ahead", 60);
  auto load = Prefetch("ahead");
  RunAll();
  EXPECT_TRUE(load.ok()) << load.status();
  EXPECT_FALSE(IsResident("stale"));
  EXPECT_TRUE(IsResident("hot"));
}

TEST_F(PriorityTest, LoadsAheadOfNeedDoNotDisplaceOneAnother) {
  for (const char* model : {"a", "b", "c"}) Exists(model, 40);
  for (int round = 0; round < 3; ++round) {
    for (const char* model : {"a", "b", "c"}) Prefetch(model);
    RunAll();
  }
  EXPECT_TRUE(IsResident("a"));
  EXPECT_TRUE(IsResident("b"));
  EXPECT_EQ(loader_.loads("c"), 0);
}

TEST_F(PriorityTest, ARequestThatComesWhileALoadIsGivenUpIsServed) {
  AskingPolicy policy;
  policy_ = &policy;
  Resident("stale", 30);
  Resident("hot", 60);
  clock_.Advance(hours(3));
  Acquire("hot").Release();
  Exists("wanted", 90);
  Cold cold;
  policy.on_look = [&] { cold = Acquire("wanted"); };
  auto load = Prefetch("wanted");
  RunAll();
  EXPECT_TRUE(cold.ok()) << cold.status();
  EXPECT_TRUE(load.ok());
}

TEST_F(PriorityTest, ALoadAheadOfNeedRespectsABackOff) {
  Exists("flaky", 10);
  loader_.FailLoad(1, absl::InternalError("no"));
  Acquire("flaky");
  RunAll();
  auto load = Prefetch("flaky");
  EXPECT_THAT(load.status(), Fails(kInternal, "no"));
  EXPECT_TRUE(RetryAfter(load.status()));
  Pass(seconds(5));
  load = Prefetch("flaky");
  RunAll();
  EXPECT_TRUE(load.ok());
}

TEST_F(PriorityTest, WhoeverGivesUpWaitingForRoomIsCounted) {
  Cold busy = Held("busy", 90);
  Exists("new", 50);
  Cold cold = Acquire("new");
  RunAll();
  manager().Cancel(cold.ticket);
  RunAll();
  EXPECT_THAT(States("new"), IsEmpty());
  EXPECT_TRUE(Exposes("hearth_loads_dropped_total{reason=\"abandoned\"} 1"));
}

// --- too late ------------------------------------------------------------------------------------

class TooLateTest : public PriorityTest {
 protected:
  // Not resident, but known to load in `times`.
  void Measured(const std::string& model, std::vector<Duration> times) {
    for (const Duration time : times) {
      auto script = Sized(10);
      script.model.report[LoadPhase::kBind].wall = time;
      loader_.Set(model, script);
      Load(model);
      RunAll();
      ASSERT_TRUE(IsResident(model));
      manager().Unload(Id(model), [] {});
      RunAll();
    }
  }
};

TEST_F(TooLateTest, ARequestThatNoLoadWasEverFastEnoughForIsRefusedAtOnceAndTheNextOneIsWarm) {
  Measured("big", {seconds(30), seconds(10), seconds(20)});
  Cold cold = Acquire("big", clock_.Now() + seconds(4));
  EXPECT_THAT(cold.status(), Fails(kUnavailable, "never was in less than 10s"));
  EXPECT_EQ(RetryAfter(cold.status()), seconds(10));
  EXPECT_EQ(timer_.pending(), 0u);
  executor_.RunAll();
  EXPECT_TRUE(IsResident("big")) << "loaded like for any other request";
}

TEST_F(TooLateTest, WhoMightJustBeServedWaits) {
  Measured("big", {seconds(10)});
  Cold cold = Acquire("big", clock_.Now() + seconds(5) + milliseconds(1));
  EXPECT_FALSE(cold.done());
  executor_.RunAll();
  EXPECT_TRUE(cold.ok());
}

TEST_F(TooLateTest, NobodyIsRefusedBeforeALoadWasMeasured) {
  Exists("new", 10);
  Cold cold = Acquire("new", clock_.Now() + milliseconds(2));
  EXPECT_FALSE(cold.done());
}

TEST_F(TooLateTest, ALoadUnderWayMayBeDoneAtAnyMoment) {
  Measured("big", {seconds(10)});
  auto script = Sized(10);
  Cold cold;
  script.on_load = [&](auto&, auto) { cold = Acquire("big", clock_.Now() + seconds(1)); };
  loader_.Set("big", script);
  Load("big");
  RunAll();
  EXPECT_TRUE(cold.ok()) << cold.status();
}

TEST_F(TooLateTest, ItTakesAQueuedLoadOutOfTheBackgroundAllTheSame) {
  Measured("big", {seconds(10)});
  Prefetch("big");
  Cold cold = Acquire("big", clock_.Now() + seconds(1));
  EXPECT_EQ(cold.status().code(), kUnavailable);
  executor_.RunAll();
  EXPECT_TRUE(IsResident("big"));
}

TEST_F(TooLateTest, ItMakesRoomLikeAnyOtherRequest) {
  Measured("big", {seconds(10)});
  Resident("other", 95);
  Cold cold = Acquire("big", clock_.Now() + seconds(1));
  EXPECT_EQ(cold.status().code(), kUnavailable);
  RunAll();
  EXPECT_TRUE(IsResident("big"));
}

TEST_F(TooLateTest, CountsAsAMiss) {
  Measured("big", {seconds(10)});
  Acquire("big", clock_.Now() + seconds(1));
  Acquire("big", clock_.Now() + seconds(1));
  EXPECT_TRUE(Exposes("hearth_cache_misses_total{kind=\"load\",model=\"big\",version=\"1\"} 1"));
  EXPECT_TRUE(Exposes("hearth_cache_misses_total{kind=\"wait\",model=\"big\",version=\"1\"} 1"));
}

TEST_F(TooLateTest, WhoeverPrefersToWaitCan) {
  options_.refuse_hopeless = false;
  Measured("big", {seconds(10)});
  Cold cold = Acquire("big", clock_.Now() + seconds(1));
  EXPECT_FALSE(cold.done());
  Pass(seconds(1));
  EXPECT_EQ(cold.status().code(), kDeadlineExceeded);
}

}  // namespace
}  // namespace hearth
