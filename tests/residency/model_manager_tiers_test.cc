// Models on a device: how they fall when they make room, and where they rise from.
#include "tests/residency/manager_fixture.h"

namespace hearth {
namespace {

using std::chrono::minutes;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using enum absl::StatusCode;

// One of them fits on the device, and the files of two in memory.
class TiersTest : public ManagerTest {
 protected:
  TiersTest() : ManagerTest({60, 100, 100}) { options_.rests = 3; }

  static Extent File(const std::string& model, std::uint64_t bytes) {
    return {{1, std::hash<std::string>{}(model), 0, bytes}, 0, bytes};
  }
  // 60 bytes on the device, of which all but 20 come from a mapped file.
  fakes::FakeLoader::Script OnDevice(const std::string& model) {
    fakes::FakeLoader::Script script;
    script.model.footprint = {60, 0, {}};
    script.peak = Footprint{60, 0, {File(model, 40)}};
    script.rest = fakes::FakeRest::Options{{0, 0, {File(model, 40)}}, {}, {}};
    return script;
  }
  // Loaded, used just now, and not held. Whoever is on the device makes room.
  void Use(const std::string& model) {
    Cold cold = Acquire(model);
    executor_.RunAll();  // what is done ahead of need waits
    ASSERT_TRUE(cold.ok()) << cold.status();
    cold.Release();
  }
  void UseOnDevice(const std::string& model) {
    loader_.Set(model, OnDevice(model));
    Use(model);
    RunAll();
  }
  // The same of one for which only the device can be short.
  void UseMappingNothing(const std::string& model) {
    fakes::FakeLoader::Script script = OnDevice(model);
    script.peak = script.model.footprint;
    loader_.Set(model, script);
    Use(model);
    RunAll();
  }
  // A model on the CPU, with so much of a file mapped.
  void Mapped(const std::string& model, std::uint64_t bytes) {
    fakes::FakeLoader::Script script;
    script.model.footprint = {0, 0, {File(model, bytes)}};
    loader_.Set(model, script);
  }
  Tier TierOf(const std::string& model) { return manager().TierOf(Id(model)); }
  Tier LoadedFrom(const std::string& model) {
    for (const auto& row : manager().Snapshot()) {
      if (row.id == Id(model)) return row.load_report.from;
    }
    ADD_FAILURE() << model << " is not resident";
    return Tier::kCold;
  }
  std::uint64_t mapped() { return manager().usage().used().mapped_bytes; }
  bool Metric(const std::string& line) { return metrics_.Text().find(line + "\n") != std::string::npos; }
  // What was told of its falls, from the beginning.
  std::vector<Tier> Falls(const std::string& model) {
    std::vector<Tier> tiers;
    for (std::uint64_t at = 1;;) {
      const EventLog::Found found = manager().events().Read(at, model);
      if (found.event == nullptr) return tiers;
      if (found.event->kind == CacheEventKind::kFell) tiers.push_back(found.event->tier);
      at = found.next;
    }
  }
};

TEST_F(TiersTest, AModelThatMakesRoomFallsToTheHostAndRisesFromThereWithNothingOpenedAnew) {
  UseOnDevice("a");
  EXPECT_EQ(LoadedFrom("a"), Tier::kCold);
  EXPECT_EQ(TierOf("a"), Tier::kCold) << "it is ready, so nothing is left of it";
  UseOnDevice("b");
  EXPECT_FALSE(IsResident("a"));
  EXPECT_EQ(TierOf("a"), Tier::kHost);
  EXPECT_EQ(mapped(), 40u) << "what stays in memory is charged";
  EXPECT_EQ(loader_.pages(), 1);
  ASSERT_EQ(manager().Rests().size(), 1u);
  EXPECT_EQ(manager().Rests()[0].bytes.mapped_bytes, 40u);

  Use("a");
  RunAll();
  EXPECT_EQ(LoadedFrom("a"), Tier::kHost);
  EXPECT_EQ(loader_.estimates("a"), 1);
  EXPECT_EQ(loader_.loads("a"), 2);
  EXPECT_EQ(TierOf("a"), Tier::kCold);
  EXPECT_EQ(TierOf("b"), Tier::kHost) << "the other one has made room";
  EXPECT_TRUE(Metric("hearth_rises_total{from=\"host\"} 1"));
  EXPECT_TRUE(Metric("hearth_rises_total{from=\"cold\"} 2"));
  EXPECT_THAT(Falls("a"), ElementsAre(Tier::kHost));
}

TEST_F(TiersTest, FallingHoldsUpNobodyWhoWaits) {
  UseOnDevice("a");
  loader_.Set("b", OnDevice("b"));
  Use("b");
  EXPECT_TRUE(IsResident("b"));
  EXPECT_EQ(TierOf("a"), Tier::kMapped) << "its pages are brought in when there is a thread for that";
  RunAll();
  EXPECT_EQ(TierOf("a"), Tier::kHost);
}

TEST_F(TiersTest, WhereTheHostHasNoRoomItStaysMappedAndRisesFromThere) {
  Mapped("cpu", 70);
  Use("cpu");
  options_.capacity.mapped_bytes = 110;
  manager().Reconfigure(options_, policy_);
  UseOnDevice("a");
  options_.capacity.mapped_bytes = 105;
  manager().Reconfigure(options_, policy_);
  UseMappingNothing("b");
  EXPECT_TRUE(IsResident("cpu")) << "nobody who is ready leaves for a rest";
  EXPECT_EQ(TierOf("a"), Tier::kMapped);
  EXPECT_EQ(mapped(), 70u) << "which takes nothing";
  EXPECT_THAT(Falls("a"), ElementsAre(Tier::kMapped));

  options_.capacity.mapped_bytes = 110;
  manager().Reconfigure(options_, policy_);
  Use("a");
  EXPECT_EQ(LoadedFrom("a"), Tier::kMapped);
  EXPECT_EQ(loader_.estimates("a"), 1);
}

TEST_F(TiersTest, PagesOfARestGiveWayBeforeAnyReadyModel) {
  Mapped("idle", 50);
  Use("idle");  // asked for longest ago
  UseOnDevice("a");
  UseMappingNothing("b");
  ASSERT_EQ(TierOf("a"), Tier::kHost);
  ASSERT_EQ(mapped(), 90u);

  Mapped("comes", 50);
  Use("comes");
  EXPECT_TRUE(IsResident("idle"));
  EXPECT_TRUE(IsResident("comes"));
  EXPECT_EQ(TierOf("a"), Tier::kMapped) << "its files stay open";
  EXPECT_EQ(loader_.pages(), 0);
  EXPECT_THAT(Falls("a"), ElementsAre(Tier::kHost, Tier::kMapped));
}

TEST_F(TiersTest, ARestWhosePagesWouldNotHelpStays) {
  UseOnDevice("a");
  UseOnDevice("b");
  ASSERT_EQ(TierOf("a"), Tier::kHost);
  fakes::FakeLoader::Script other = OnDevice("c");
  other.peak = other.model.footprint;  // only the device is short
  loader_.Set("c", other);
  Use("c");
  EXPECT_EQ(TierOf("a"), Tier::kHost);
}

TEST_F(TiersTest, ItsOwnPagesAreNotTakenFromAModelThatRises) {
  options_.capacity.mapped_bytes = 40;
  UseOnDevice("a");
  UseMappingNothing("b");
  ASSERT_EQ(TierOf("a"), Tier::kHost);
  Tier meanwhile = Tier::kCold;
  fakes::FakeLoader::Script again = OnDevice("a");
  again.on_load = [&](auto&, auto) { meanwhile = TierOf("a"); };
  loader_.Set("a", again);
  Use("a");
  EXPECT_EQ(meanwhile, Tier::kHost);
  EXPECT_EQ(LoadedFrom("a"), Tier::kHost);
  EXPECT_EQ(mapped(), 0u) << "it is on the device now";
}

TEST_F(TiersTest, PagesThatItsLoadHasNoUseForDoNotStandInItsWay) {
  options_.capacity.mapped_bytes = 60;
  UseOnDevice("a");
  UseMappingNothing("b");
  ASSERT_EQ(TierOf("a"), Tier::kHost);
  fakes::FakeLoader::Script again = OnDevice("a");
  again.peak->extents = {File("elsewhere", 40)};  // others have mapped the same by now
  loader_.Set("a", again);
  Use("a");
  EXPECT_TRUE(IsResident("a"));
}

TEST_F(TiersTest, RestsOfLittleDemandGiveWayToOnesOfMore) {
  static const GdsfPolicy gdsf;
  policy_ = &gdsf;
  UseOnDevice("seldom");
  UseOnDevice("middling");
  Use("middling");
  UseOnDevice("often");
  for (int i = 0; i < 3; ++i) Use("often");
  ASSERT_EQ(TierOf("seldom"), Tier::kHost);
  ASSERT_EQ(TierOf("middling"), Tier::kHost);
  UseMappingNothing("last");
  EXPECT_EQ(TierOf("often"), Tier::kHost);
  EXPECT_EQ(TierOf("middling"), Tier::kHost);
  EXPECT_EQ(TierOf("seldom"), Tier::kMapped);
  EXPECT_EQ(mapped(), 80u);
}

TEST_F(TiersTest, ARestOfLittleDemandDisplacesNoOther) {
  static const GdsfPolicy gdsf;
  policy_ = &gdsf;
  for (const char* model : {"often", "middling"}) {
    UseOnDevice(model);
    for (int i = 0; i < 3; ++i) Use(model);
  }
  UseMappingNothing("seldom");
  ASSERT_EQ(TierOf("often"), Tier::kHost);
  ASSERT_EQ(TierOf("middling"), Tier::kHost);
  UseMappingNothing("last");
  EXPECT_EQ(TierOf("often"), Tier::kHost);
  EXPECT_EQ(TierOf("middling"), Tier::kHost);
  EXPECT_EQ(TierOf("seldom"), Tier::kMapped);
}

// Whether its pages have all come by the time it is told or not.
class TiersWhileWarmingTest : public TiersTest, public testing::WithParamInterface<bool> {};
INSTANTIATE_TEST_SUITE_P(HeedsStop, TiersWhileWarmingTest, testing::Bool());

TEST_P(TiersWhileWarmingTest, WhatIsBroughtInForARestIsLeftToALoadThatNeedsTheRoom) {
  UseOnDevice("a");
  Mapped("comes", 80);
  Cold comes;
  bool told = false;
  fakes::FakeLoader::Script script = OnDevice("a");
  script.rest->heeds_stop = GetParam();
  script.rest->on_hold = [&](const std::stop_token& stop) {
    comes = Acquire("comes");
    executor_.RunAll();
    EXPECT_FALSE(comes.done()) << "its bytes are not back yet";
    told = stop.stop_requested();
    manager().CheckInvariants();
  };
  loader_.Set("a", script);
  manager().Load(Id("a"), {.reload = true}, kNoDeadline, [](auto) {});
  RunAll();
  UseMappingNothing("b");
  EXPECT_TRUE(told);
  EXPECT_TRUE(comes.ok());
  EXPECT_EQ(TierOf("a"), Tier::kMapped);
  EXPECT_EQ(mapped(), 80u);
}

TEST_F(TiersTest, PagesThatAreBeingBroughtInAreNotGivenUpForOthersThatWouldComeTooSoon) {
  static const GdsfPolicy gdsf;
  policy_ = &gdsf;
  Mapped("filler", 60);  // leaves room for one rest
  Cold filler = Acquire("filler");
  RunAll();
  loader_.Set("often", OnDevice("often"));
  bool looked = false;
  fakes::FakeLoader::Script script = OnDevice("seldom");
  script.rest->on_hold = [&](const std::stop_token& stop) {
    UseMappingNothing("last");  // for which "often" leaves, and falls
    EXPECT_FALSE(stop.stop_requested());
    looked = true;
  };
  loader_.Set("seldom", script);
  Use("seldom");
  Use("often");
  for (int i = 0; i < 3; ++i) Use("often");
  RunAll();
  EXPECT_TRUE(looked);
  EXPECT_EQ(TierOf("often"), Tier::kMapped);
  EXPECT_EQ(TierOf("seldom"), Tier::kHost);
}

TEST_F(TiersTest, FilesThatAreNotWhatTheyWereAreReadAnew) {
  UseOnDevice("a");
  UseOnDevice("b");
  ASSERT_EQ(TierOf("a"), Tier::kHost);
  revision_ = 7;  // something in its folder
  Use("a");
  EXPECT_EQ(LoadedFrom("a"), Tier::kCold);
  EXPECT_EQ(loader_.estimates("a"), 2);
  RunAll();
  ASSERT_EQ(TierOf("b"), Tier::kHost);
  fakes::FakeLoader::Script changed = OnDevice("b");
  changed.files_changed = true;  // what the loader sees
  loader_.Set("b", changed);
  Use("b");
  EXPECT_EQ(LoadedFrom("b"), Tier::kCold);
  EXPECT_EQ(loader_.estimates("b"), 2);
}

TEST_F(TiersTest, AnUnloadLeavesNothing) {
  UseOnDevice("a");
  UseOnDevice("b");
  ASSERT_EQ(TierOf("a"), Tier::kHost);
  bool done = false;
  manager().Unload(Id("a"), [&] {
    done = true;
    EXPECT_EQ(mapped(), 0u) << "its bytes are back by then";
  });
  EXPECT_EQ(loader_.pages(), 1) << "not on the thread that asks";
  RunAll();
  EXPECT_TRUE(done);
  EXPECT_EQ(TierOf("a"), Tier::kCold);
  EXPECT_EQ(loader_.rests(), 1) << "that of b, which is ready";
  manager().Unload(Id("b"), [] {});
  RunAll();
  EXPECT_EQ(loader_.rests(), 0);
  EXPECT_THAT(manager().Rests(), IsEmpty());
}

TEST_F(TiersTest, AnUnloadThatComesWhileAModelIsBeingEvictedLeavesNothingEither) {
  fakes::FakeLoader::Script script = OnDevice("a");
  script.model.on_destroy = [&] { manager().Unload(Id("a"), [] {}); };
  loader_.Set("a", script);
  Use("a");
  UseOnDevice("b");
  EXPECT_EQ(TierOf("a"), Tier::kCold);
  EXPECT_EQ(loader_.rests(), 1);
}

TEST_P(TiersWhileWarmingTest, AnUnloadThatComesWhilePagesAreBroughtInLeavesNothing) {
  bool done = false;
  fakes::FakeLoader::Script script = OnDevice("a");
  script.rest->heeds_stop = GetParam();
  script.rest->on_hold = [&](const std::stop_token& stop) {
    manager().Unload(Id("a"), [&] { done = true; });
    executor_.RunAll();
    EXPECT_TRUE(stop.stop_requested());
    EXPECT_FALSE(done) << "its bytes are not back yet";
  };
  loader_.Set("a", script);
  Use("a");
  UseOnDevice("b");
  EXPECT_TRUE(done);
  EXPECT_EQ(mapped(), 0u);
  EXPECT_EQ(TierOf("a"), Tier::kCold);
}

TEST_F(TiersTest, PagesThatCannotBeBroughtInCostNothing) {
  fakes::FakeLoader::Script script = OnDevice("a");
  script.rest->hold_error = absl::DataLossError("'a/1/model.pt' was cut short");
  loader_.Set("a", script);
  Use("a");
  UseOnDevice("b");
  EXPECT_EQ(TierOf("a"), Tier::kMapped);
  EXPECT_EQ(mapped(), 0u);
}

TEST_F(TiersTest, OfMoreThanAreToBeKeptTheOldestGoes) {
  options_.rests = 2;
  options_.capacity.mapped_bytes = 200;
  for (const char* model : {"a", "b", "c", "d"}) UseOnDevice(model);
  EXPECT_EQ(TierOf("a"), Tier::kCold);
  EXPECT_NE(TierOf("b"), Tier::kCold);
  EXPECT_NE(TierOf("c"), Tier::kCold);
  EXPECT_THAT(Falls("a"), ElementsAre(Tier::kHost, Tier::kCold));
  options_.rests = 0;
  manager().Reconfigure(options_, policy_);
  RunAll();
  EXPECT_THAT(manager().Rests(), IsEmpty());
  EXPECT_EQ(mapped(), 0u);
  UseOnDevice("a");
  EXPECT_THAT(manager().Rests(), IsEmpty());
}

TEST_F(TiersTest, ASmallerBudgetTakesPagesBeforeModels) {
  Mapped("idle", 40);
  Use("idle");
  UseOnDevice("a");
  UseMappingNothing("b");
  ASSERT_EQ(mapped(), 80u);
  options_.capacity.mapped_bytes = 50;
  EXPECT_EQ(manager().Reconfigure(options_, policy_), Bytes{}) << "nobody has to be waited for";
  RunAll();
  EXPECT_TRUE(IsResident("idle"));
  EXPECT_EQ(TierOf("a"), Tier::kMapped);
  EXPECT_EQ(mapped(), 40u);
}

TEST_F(TiersTest, AModelThatNobodyAsksForKeepsItsFilesOpenAndNoMemory) {
  options_.idle_unload = minutes(5);
  UseOnDevice("a");
  Pass(minutes(6));
  EXPECT_EQ(TierOf("a"), Tier::kMapped);
  EXPECT_EQ(manager().usage().used(), Bytes{});
  EXPECT_THAT(Falls("a"), ElementsAre(Tier::kMapped));
}

TEST_F(TiersTest, EvictOnRequestGoesDownStepByStep) {
  UseOnDevice("a");
  Answer<bool> first, second, third;
  manager().Evict(Id("a"), first.callback());
  RunAll();
  EXPECT_TRUE(*first);
  EXPECT_EQ(TierOf("a"), Tier::kHost);
  manager().Evict(Id("a"), second.callback());
  RunAll();
  EXPECT_TRUE(*second);
  EXPECT_EQ(TierOf("a"), Tier::kCold);
  EXPECT_EQ(manager().usage().used(), Bytes{});
  manager().Evict(Id("a"), third.callback());
  EXPECT_FALSE(*third);
}

TEST_F(TiersTest, ALoadThatFailsLeavesWhatItFound) {
  UseOnDevice("a");
  UseOnDevice("b");
  loader_.FailLoad(1, absl::ResourceExhaustedError("the device has no more memory"));
  Cold cold = Acquire("a");
  RunAll();
  EXPECT_THAT(cold.status(), Fails(kResourceExhausted, "no more memory"));
  EXPECT_EQ(TierOf("a"), Tier::kHost);
}

TEST_F(TiersTest, AReloadOfWhatChangedKeepsNothingOfTheOld) {
  UseOnDevice("a");
  revision_ = 2;
  Load("a", {.reload = true});
  RunAll();
  EXPECT_THAT(manager().Rests(), IsEmpty());
  EXPECT_EQ(loader_.rests(), 1);
}

TEST_F(TiersTest, HowAModelLeftIsRememberedThoughItFellSince) {
  UseOnDevice("a");
  UseOnDevice("b");
  const EventLog::History history = manager().events().Of(Id("a"));
  EXPECT_EQ(history.last->kind, CacheEventKind::kEvicted);
  const CacheEvent fell{.kind = CacheEventKind::kFell, .bytes = {0, 0, 40}, .tier = Tier::kHost};
  EXPECT_EQ(Describe(fell), "to host: its files stay in memory, with 40 B of mapped memory");
  Use("a");
  EXPECT_THAT(Describe(*manager().events().Of(Id("a")).last), HasSubstr(" from host, with"));
}

}  // namespace
}  // namespace hearth
