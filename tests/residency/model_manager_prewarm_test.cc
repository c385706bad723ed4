// When a model that left will be asked for again, and loads ahead of that.
#include "tests/residency/manager_fixture.h"

namespace hearth {
namespace {

using std::chrono::minutes;
using std::chrono::seconds;

class PrewarmTest : public ManagerTest {
 protected:
  PrewarmTest() {
    options_.gaps = 3;
    options_.idle_unload = minutes(1);
    Exists("m", 10);
  }

  // Asked for now, gone a minute later, and `gap` over since it was asked for.
  void Spell(Duration gap, const std::string& model = "m") {
    Cold cold;
    cold.ticket = manager().Acquire(Id(model), kNoDeadline, cold.callback());
    RunAll();
    ASSERT_TRUE(cold.ok()) << cold.status();
    cold.Release();
    Pass(minutes(1));
    ASSERT_FALSE(IsResident(model));
    Pass(gap - minutes(1));
  }
  void Learn(const std::string& model = "m") {
    for (std::size_t i = 0; i <= IdleGaps::kFewest; ++i) Spell(minutes(5), model);
  }
  std::optional<Expectation> Expected(const std::string& model = "m") { return manager().ExpectedUse(Id(model)); }
  void LoadAhead(const std::string& model = "m") {
    Load(model, {.priority = LoadPriority::kBackground, .expected = Expected(model)});
    RunAll();
  }
  double Metric(const std::string& name) {
    for (const Metrics::Sample& sample : manager().Samples()) {
      if (sample.name == name) return sample.value;
    }
    return -1;
  }
};

TEST_F(PrewarmTest, AModelThatComesBackEveryFiveMinutesIsExpectedInTime) {
  for (std::size_t i = 0; i < IdleGaps::kFewest; ++i) Spell(minutes(5));
  EXPECT_FALSE(Expected()) << "of one gap too few";
  Cold cold = Acquire("m");
  const TimePoint used = clock_.Now();
  RunAll();
  cold.Release();
  EXPECT_FALSE(Expected()) << "it is here";
  Pass(minutes(1));
  const auto expected = Expected();
  ASSERT_TRUE(expected);
  EXPECT_NEAR(ToSeconds(expected->every), 300, 0.1);
  EXPECT_NEAR(ToSeconds(expected->at - used), 300, 0.1);
  EXPECT_NEAR(ToSeconds(expected->load_at - used), 299, 0.1);
}

TEST_F(PrewarmTest, TheLoadIsAllowedHalfAsLongAgainAsItTakes) {
  auto script = Sized(10);
  script.model.report[LoadPhase::kRead].wall = seconds(20);
  loader_.Set("m", std::move(script));
  Learn();
  const auto expected = Expected();
  ASSERT_TRUE(expected);
  EXPECT_NEAR(ToSeconds(expected->at - expected->load_at), 30, 0.1);
}

TEST_F(PrewarmTest, NothingIsLearnedWhereNobodyWantsToKnow) {
  options_.gaps = 0;
  Learn();
  EXPECT_FALSE(Expected());
}

TEST_F(PrewarmTest, WhatWasLearnedIsForgottenWhenNobodyWantsToKnowAnyMore) {
  Learn();
  ASSERT_TRUE(Expected());
  options_.gaps = 0;
  manager().Reconfigure(options_, nullptr);
  options_.gaps = 3;
  manager().Reconfigure(options_, nullptr);
  EXPECT_FALSE(Expected());
}

TEST_F(PrewarmTest, AModelThatWasTakenAwayIsNotExpected) {
  Learn();
  Cold cold = Acquire("m");
  RunAll();
  cold.Release();
  manager().Unload(Id("m"), [] {});
  RunAll();
  EXPECT_FALSE(Expected());
}

TEST_F(PrewarmTest, OneLoadAheadIsTriedForEachUse) {
  Learn();
  LoadAhead();
  EXPECT_TRUE(IsResident("m"));
  Pass(minutes(1));
  ASSERT_FALSE(IsResident("m"));
  EXPECT_FALSE(Expected());
  Spell(minutes(5));
  EXPECT_TRUE(Expected());
}

TEST_F(PrewarmTest, AModelIsNotIdleBeforeTheUseThatItWasLoadedAheadOf) {
  Learn();
  Spell(minutes(2));  // of the five
  LoadAhead();
  Pass(minutes(4) - seconds(1));
  EXPECT_TRUE(IsResident("m")) << "a minute after it was expected, and no sooner";
  Pass(seconds(2));
  EXPECT_FALSE(IsResident("m"));
}

TEST_F(PrewarmTest, AModelThatIsToLeaveAtOnceWaitsForTheUseThatItWasLoadedAheadOf) {
  Learn();
  Cold cold = Acquire("m");
  RunAll();
  ASSERT_TRUE(cold.ok());
  manager().KeepAlive(cold->handle, Duration{});
  cold.Release();
  Pass({});
  ASSERT_FALSE(IsResident("m"));
  LoadAhead();
  Pass(minutes(5) - seconds(2));
  EXPECT_TRUE(IsResident("m"));
  Pass(seconds(2));
  EXPECT_FALSE(IsResident("m"));
}

TEST_F(PrewarmTest, OnceItWasUsedAModelThatWasLoadedAheadIsIdleAsOthersAre) {
  Learn();
  Spell(minutes(2));
  LoadAhead();
  Pass(seconds(30));
  ASSERT_TRUE(manager().TryAcquire(Id("m")));
  for (int i = 0; i < 59; ++i) Pass(seconds(1));
  EXPECT_TRUE(IsResident("m"));
  Pass(seconds(1));
  EXPECT_FALSE(IsResident("m")) << "before it was expected";
}

TEST_F(PrewarmTest, AHitOnAModelThatWasLoadedAheadIsTheEndOfItsGap) {
  Learn();
  for (int i = 0; i < 20; ++i) {  // more than are kept: from now on it is asked for every seven minutes
    clock_.Advance(minutes(2));
    LoadAhead();
    for (int hit = 0; hit < 3; ++hit) {
      ASSERT_TRUE(manager().TryAcquire(Id("m")));
      clock_.Advance(seconds(1));
    }
    const int loads = loader_.loads("m");
    Pass(minutes(1));
    ASSERT_FALSE(IsResident("m"));
    EXPECT_EQ(loader_.loads("m"), loads) << "nobody missed it";
    clock_.Advance(minutes(4) - seconds(1));
  }
  ASSERT_TRUE(Expected());
  EXPECT_NEAR(ToSeconds(Expected()->every), 420, 1) << "from the last of three hits to the first of the next three";
}

TEST_F(PrewarmTest, CountsLoadsAheadAndThoseOfThemThatWereUsed) {
  Learn();
  LoadAhead();
  EXPECT_EQ(Metric("hearth_prewarms_total"), 1);
  EXPECT_EQ(Metric("hearth_prewarms_used_total"), 0);
  ASSERT_TRUE(manager().TryAcquire(Id("m")));
  EXPECT_EQ(Metric("hearth_prewarms_used_total"), 1);
  Pass(minutes(1));
  ASSERT_FALSE(IsResident("m"));
  EXPECT_EQ(Metric("hearth_prewarms_used_total"), 1) << "also when it has left";
  LoadAhead();
  Pass(minutes(6));
  ASSERT_FALSE(IsResident("m"));
  EXPECT_EQ(Metric("hearth_prewarms_total"), 2);
  EXPECT_EQ(Metric("hearth_prewarms_used_total"), 1) << "nobody asked for it";
}

TEST_F(PrewarmTest, ARequestThatComesWhileItIsLoadedAheadUsesIt) {
  Learn();
  Load("m", {.priority = LoadPriority::kBackground, .expected = Expected()});
  Cold cold = Acquire("m");
  RunAll();
  ASSERT_TRUE(cold.ok());
  EXPECT_EQ(Metric("hearth_prewarms_used_total"), 1);
}

TEST_F(PrewarmTest, AUseThatIsNotAheadIsNoPrewarm) {
  Learn();
  Load("m", {.priority = LoadPriority::kBackground});
  RunAll();
  ASSERT_TRUE(manager().TryAcquire(Id("m")));
  EXPECT_EQ(Metric("hearth_prewarms_total"), 0);
  EXPECT_EQ(Metric("hearth_prewarms_used_total"), 0);
}

TEST_F(PrewarmTest, LeavesModelsInDemandWhereTheyAre) {
  Learn();
  Resident("hot", 95);
  LoadAhead();
  EXPECT_TRUE(IsResident("hot"));
  EXPECT_FALSE(IsResident("m"));
  EXPECT_EQ(Metric("hearth_prewarms_total"), 0);
}

TEST_F(PrewarmTest, TakesNoRoomFromAModelThatWasAskedForOfLateThoughMuchLess) {
  Resident("m", 10);
  for (int i = 0; i < 15; ++i) ASSERT_TRUE(manager().TryAcquire(Id("m")));
  Pass(minutes(1));
  ASSERT_FALSE(IsResident("m"));
  Resident("less", 95);
  manager().KeepAlive(manager().TryAcquire(Id("less")), kKeepForever);
  Pass(minutes(61));
  Load("m", {.priority = LoadPriority::kBackground, .expected = Expectation{minutes(5), clock_.Now(), clock_.Now()}});
  RunAll();
  EXPECT_TRUE(IsResident("less"));
  Load("m", {.priority = LoadPriority::kBackground});
  RunAll();
  EXPECT_TRUE(IsResident("m")) << "another load in the background does";
}

TEST_F(PrewarmTest, TheJournalSaysWhyItWasLoaded) {
  Learn();
  Load("m", {.priority = LoadPriority::kBackground, .expected = Expected()});
  const CacheEvent queued = *manager().events().Of(Id("m")).last;
  ASSERT_EQ(queued.kind, CacheEventKind::kQueued);
  EXPECT_EQ(Describe(queued), "ahead of need: asked for every 5m, expected by now");
  CacheEvent early = queued;
  early.at -= seconds(40);
  EXPECT_THAT(Describe(early), testing::EndsWith(", expected in 40s"));
}

TEST_F(PrewarmTest, OfMoreModelsThanAreRememberedTheOneThatWasQuietLongestIsForgotten) {
  for (const char* model : {"a", "b", "c"}) Learn(model);
  Learn("a");
  Learn("d");
  EXPECT_TRUE(Expected("a"));
  EXPECT_FALSE(Expected("b"));
  EXPECT_TRUE(Expected("c"));
  EXPECT_TRUE(Expected("d"));
}

}  // namespace
}  // namespace hearth
