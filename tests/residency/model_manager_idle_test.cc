// Models that leave because nobody asks for them.
#include "tests/residency/manager_fixture.h"

namespace hearth {
namespace {

using std::chrono::minutes;
using std::chrono::nanoseconds;
using std::chrono::seconds;

class IdleTest : public ManagerTest {
 protected:
  IdleTest() { options_.idle_unload = minutes(10); }

  // A use that is over at once.
  void Use(const std::string& model, std::optional<Duration> keep_alive = std::nullopt) {
    ModelHandle handle = manager().TryAcquire(Id(model));
    ASSERT_TRUE(handle);
    if (keep_alive) manager().KeepAlive(handle, *keep_alive);
  }
  CacheEvent Last(const std::string& model) { return *manager().events().Of(Id(model)).last; }
};

TEST_F(IdleTest, AModelLeavesExactlyWhenItsTimeIsUp) {
  Resident("a", 40);
  Pass(minutes(10) - nanoseconds(1));
  EXPECT_TRUE(IsResident("a"));
  Pass(nanoseconds(1));
  EXPECT_FALSE(IsResident("a"));
  EXPECT_EQ(used(), 0u);
  const CacheEvent left = Last("a");
  EXPECT_EQ(left.kind, CacheEventKind::kEvicted);
  EXPECT_EQ(left.reason, EvictionReason::kIdle);
  EXPECT_EQ(left.idle, minutes(10));
  EXPECT_THAT(Describe(left), testing::StartsWith("because nobody asked for it; "));
  EXPECT_THAT(metrics_.Text(), testing::HasSubstr("hearth_evictions_total{reason=\"idle\"} 1\n"));
}

TEST_F(IdleTest, TheNextRequestLoadsItAgain) {
  Resident("a", 40);
  Pass(minutes(10));
  Cold again = Acquire("a");
  RunAll();
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(loader_.loads("a"), 2);
  again.Release();
  Pass(minutes(10));
  EXPECT_FALSE(IsResident("a"));
}

TEST_F(IdleTest, AHitPostponesIt) {
  Resident("a", 40);
  Pass(minutes(9));
  Use("a");
  Pass(minutes(10) - nanoseconds(1));
  EXPECT_TRUE(IsResident("a"));
  Pass(nanoseconds(1));
  EXPECT_FALSE(IsResident("a"));
}

TEST_F(IdleTest, AProbeDoesNot) {
  Resident("a", 40);
  Pass(minutes(9));
  EXPECT_TRUE(manager().Peek(Id("a")));
  Pass(minutes(1));
  EXPECT_FALSE(IsResident("a"));
}

TEST_F(IdleTest, OnlyThoseLeaveThatWereNotAskedFor) {
  Resident("a", 10);
  Resident("b", 10);
  Resident("c", 10);
  Pass(minutes(5));
  Use("b");
  Pass(minutes(5));
  EXPECT_FALSE(IsResident("a"));
  EXPECT_TRUE(IsResident("b"));
  EXPECT_FALSE(IsResident("c"));
  Pass(minutes(5));
  EXPECT_FALSE(IsResident("b"));
}

TEST_F(IdleTest, AModelIsLookedAtOnceInItsTimeHoweverOftenItIsUsed) {
  Resident("a", 40);
  for (int i = 0; i < 1000; ++i) Use("a");
  EXPECT_EQ(timer_.pending(), 2u);  // that, and the deadline of who waited for the load
}

TEST_F(IdleTest, AModelThatIsInUseLeavesWithItsLastHandle) {
  Cold first = Held("a", 40);
  ModelHandle second = manager().Peek(Id("a"));
  Pass(minutes(30));
  EXPECT_TRUE(IsResident("a"));
  first.Release();
  Pass({});
  EXPECT_TRUE(IsResident("a"));
  second.Reset();
  Pass({});
  EXPECT_FALSE(IsResident("a"));
}

TEST_F(IdleTest, OneThatIsAskedForAgainBeforeThatStays) {
  Cold held = Held("a", 40);
  Pass(minutes(30));
  Use("a");
  held.Release();
  Pass({});
  EXPECT_TRUE(IsResident("a"));
  Pass(minutes(10));
  EXPECT_FALSE(IsResident("a"));
}

TEST_F(IdleTest, PinnedModelsStayUntilTheyAreUnpinned) {
  Resident("asked", 10);
  Resident("configured", 10);
  manager().Pin(Id("asked"));
  manager().SetHardPins({Id("configured")});
  Pass(minutes(60));
  EXPECT_TRUE(IsResident("asked"));
  EXPECT_TRUE(IsResident("configured"));
  manager().Unpin(Id("asked"));
  Pass({});
  EXPECT_FALSE(IsResident("asked"));
  manager().SetHardPins({});
  Pass({});
  EXPECT_FALSE(IsResident("configured"));
}

TEST_F(IdleTest, WhatAModelSaysGoesBeforeTheDefault) {
  spec_options_.idle_unload = minutes(1);
  Resident("short", 10);
  spec_options_.idle_unload = Duration{};
  Resident("never", 10);
  Pass(minutes(1));
  EXPECT_FALSE(IsResident("short"));
  Pass(minutes(600));
  EXPECT_TRUE(IsResident("never"));
}

TEST_F(IdleTest, WithoutADefaultNobodyLeaves) {
  options_.idle_unload = {};
  Resident("a", 40);
  Pass(minutes(600));
  EXPECT_TRUE(IsResident("a"));
}

TEST_F(IdleTest, AHintHoldsUntilTheNextOne) {
  Resident("a", 40);
  Use("a", minutes(30));
  Pass(minutes(20));
  Use("a");
  Pass(minutes(30) - nanoseconds(1));
  EXPECT_TRUE(IsResident("a"));
  Use("a", seconds(5));
  Pass(seconds(5) - nanoseconds(1));
  EXPECT_TRUE(IsResident("a"));
  Pass(nanoseconds(1));
  EXPECT_FALSE(IsResident("a"));
  Resident("a", 40);  // and beyond its stay
  Pass(seconds(5));
  EXPECT_FALSE(IsResident("a"));
}

TEST_F(IdleTest, AHintOfNothingLetsTheModelGoWhenItsUserHasGone) {
  Cold held = Held("a", 40);
  manager().KeepAlive((*held).handle, Duration{});
  Pass({});
  EXPECT_TRUE(IsResident("a"));
  held.Release();
  Pass({});
  EXPECT_FALSE(IsResident("a"));
}

TEST_F(IdleTest, AHintThatIsRepeatedIsAsGoodAsTheFirst) {
  for (int i = 0; i < 3; ++i) {
    Cold held = Held("a", 40);
    manager().KeepAlive((*held).handle, Duration{});
    held.Release();
    Pass({});
    EXPECT_FALSE(IsResident("a"));
  }
}

TEST_F(IdleTest, AModelThatIsKeptForeverLeavesWhenItsRoomIsNeeded) {
  Resident("a", 60);
  Use("a", kKeepForever);
  Pass(minutes(600));
  EXPECT_TRUE(IsResident("a"));
  Resident("b", 60);
  EXPECT_FALSE(IsResident("a"));
}

TEST_F(IdleTest, AHintOfAThousandYearsIsForever) {
  Resident("a", 40);
  Use("a", kKeepForever - seconds(1));
  Pass(minutes(600));
  EXPECT_TRUE(IsResident("a"));
}

TEST_F(IdleTest, AReloadBeginsANewStayAndBringsItsOwnTime) {
  Resident("a", 40);
  Pass(minutes(9));
  spec_options_.idle_unload = minutes(2);
  auto loaded = Load("a", {.reload = true});
  RunAll();
  ASSERT_TRUE(loaded.ok());
  Pass(minutes(2) - nanoseconds(1));
  EXPECT_TRUE(IsResident("a"));
  Pass(nanoseconds(1));
  EXPECT_FALSE(IsResident("a"));
}

}  // namespace
}  // namespace hearth
