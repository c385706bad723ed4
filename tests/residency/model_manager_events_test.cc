// What the manager writes into the journal, and what Evict and the pins of a call do.
#include "tests/residency/manager_fixture.h"

namespace hearth {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using enum absl::StatusCode;

class EventsTest : public ManagerTest {
 protected:
  // "queued", "ready" ...; of one model, from the beginning.
  std::vector<std::string> Kinds(const std::string& model) {
    std::vector<std::string> kinds;
    std::uint64_t at = 1;
    while (const EventLog::EventPtr event = Next(model, at)) kinds.emplace_back(ToString(event->kind));
    return kinds;
  }
  EventLog::EventPtr Next(const std::string& model, std::uint64_t& at) {
    const EventLog::Found found = manager().events().Read(at, model);
    at = found.next;
    return found.event;
  }
  CacheEvent Last(const std::string& model) { return *manager().events().Of(Id(model)).last; }

  Answer<bool> Evict(const std::string& model) {
    Answer<bool> answer;
    manager().Evict(Id(model), answer.callback());
    return answer;
  }
  bool Metric(const std::string& line) { return metrics_.Text().find(line + "\n") != std::string::npos; }
};

TEST_F(EventsTest, ALoadIsToldFromTheQueueToTheEnd) {
  Exists("a", 40);
  Cold first = Acquire("a");
  Cold second = Acquire("a");
  clock_.Advance(milliseconds(7));
  executor_.RunAll();
  first.Release();
  second.Release();
  EXPECT_THAT(Kinds("a"), ElementsAre("queued", "loading", "ready"));
  std::uint64_t at = 1;
  EXPECT_TRUE(Next("a", at)->request);
  EXPECT_EQ(Next("a", at)->bytes.host_bytes, 40u);
  const CacheEvent ready = Last("a");
  EXPECT_EQ(ready.waiters, 2u);
  EXPECT_EQ(ready.bytes.host_bytes, 40u);
  EXPECT_EQ(ready.away, std::nullopt);
}

TEST_F(EventsTest, ALoadAheadOfRequestsSaysSo) {
  Exists("a", 40);
  Load("a");
  executor_.RunAll();
  std::uint64_t at = 1;
  EXPECT_FALSE(Next("a", at)->request);
}

TEST_F(EventsTest, HitsAndProbesLeaveNoTrace) {
  Resident("a", 40);
  const std::uint64_t before = manager().events().end();
  for (int i = 0; i < 5; ++i) Acquire("a").Release();
  (void)manager().Peek(Id("a"));
  EXPECT_EQ(manager().events().end(), before);
}

TEST_F(EventsTest, AnEvictionSaysForWhomAndHowItWasWeighed) {
  Resident("old", 40);
  Acquire("old").Release();
  Resident("newer", 50);
  clock_.Advance(minutes(40));
  Acquire("newer").Release();
  clock_.Advance(minutes(20));
  Resident("new", 45);
  const CacheEvent evicted = Last("old");
  EXPECT_EQ(evicted.kind, CacheEventKind::kEvicted);
  EXPECT_EQ(evicted.reason, EvictionReason::kCapacity);
  EXPECT_EQ(evicted.bytes.host_bytes, 40u);
  EXPECT_EQ(evicted.hits, 1u);
  EXPECT_EQ(std::chrono::duration_cast<minutes>(evicted.resident), minutes(60));
  EXPECT_EQ(std::chrono::duration_cast<minutes>(evicted.idle), minutes(60));
  ASSERT_TRUE(evicted.cause);
  EXPECT_EQ(evicted.cause->made_room_for, Id("new"));
  EXPECT_EQ(evicted.cause->needed.host_bytes, 45u);
  EXPECT_EQ(evicted.cause->rank, 1u);
  EXPECT_EQ(evicted.cause->candidates, 2u);
  EXPECT_NEAR(evicted.cause->demand, 1.0, 0.1) << "two uses, a half-life ago";
  EXPECT_EQ(Kinds("newer").back(), "ready");
  EXPECT_TRUE(Metric("hearth_eviction_resident_seconds_count 1"));
  EXPECT_TRUE(Metric(R"(hearth_eviction_idle_seconds_bucket{le="3600"} 0)"));
}

TEST_F(EventsTest, OnlyBytesThatReallyComeBackAreToldAsFreed) {
  const Extent shared{{1, 1, 0, 100}, 0, 30};
  auto script = Sized(0);
  script.model.footprint.extents = {shared};
  loader_.Set("stays", script);
  script.model.footprint.host_bytes = 60;
  loader_.Set("goes", script);
  Cold stays = Acquire("stays");
  Acquire("goes");
  executor_.RunAll();
  Resident("new", 70);
  const CacheEvent evicted = Last("goes");
  EXPECT_EQ(evicted.kind, CacheEventKind::kEvicted);
  EXPECT_EQ(evicted.bytes.host_bytes, 60u);
  EXPECT_EQ(evicted.bytes.mapped_bytes, 0u) << "the one that stays has them mapped";
}

TEST_F(EventsTest, AModelThatComesBackSaysHowLongItWasAwayAndSoonIsThrash) {
  Resident("a", 60);
  Resident("b", 60);
  clock_.Advance(seconds(59));
  Resident("a", 60);
  ASSERT_TRUE(Last("a").away);
  EXPECT_EQ(std::chrono::round<seconds>(*Last("a").away), seconds(59));
  EXPECT_TRUE(Metric("hearth_thrash_total 1"));
  clock_.Advance(seconds(61));
  Resident("b", 60);
  EXPECT_TRUE(Metric("hearth_thrash_total 1"));
  EXPECT_TRUE(Metric("hearth_eviction_away_seconds_count 2"));
  manager().Unload(Id("b"), [] {});
  executor_.RunAll();
  Resident("b", 60);
  EXPECT_EQ(Last("b").away, std::nullopt) << "an unload is no eviction";
}

TEST_F(EventsTest, AFailureAndTheRequestsItRefusesAreTold) {
  Exists("a", 40);
  loader_.FailLoad(1, absl::InvalidArgumentError("no archive"));
  Acquire("a");
  executor_.RunAll();
  Acquire("a");
  Acquire("a");
  EXPECT_THAT(Kinds("a"), ElementsAre("queued", "loading", "failed", "refused"));
  const EventLog::History history = manager().events().Of(Id("a"));
  EXPECT_EQ(history.last_failure->error.message(), "no archive");
  EXPECT_EQ(history.last_failure->waiters, 1u);
  EXPECT_EQ(history.refused, 2u);
  EXPECT_TRUE(Metric(R"(hearth_cache_refusals_total{model="a",version="1"} 2)"));
}

TEST_F(EventsTest, ALoadThatFindsNoRoomHasFailedWithoutHavingBegun) {
  Exists("huge", 101);
  Acquire("huge");
  executor_.RunAll();
  EXPECT_THAT(Kinds("huge"), ElementsAre("queued", "failed"));
  EXPECT_EQ(Last("huge").error.code(), kFailedPrecondition);
}

TEST_F(EventsTest, LeavingForAnotherReasonThanRoomIsAnUnload) {
  Resident("a", 40);
  manager().Unload(Id("a"), [] {});
  executor_.RunAll();
  EXPECT_EQ(Last("a").kind, CacheEventKind::kUnloaded);
  EXPECT_EQ(Last("a").reason, EvictionReason::kUnload);
  Resident("b", 40);
  Load("b", {.reload = true});
  executor_.RunAll();
  EXPECT_THAT(Kinds("b"), ElementsAre("queued", "loading", "ready", "queued", "loading", "ready", "unloaded"));
  EXPECT_EQ(Last("b").reason, EvictionReason::kReload);
  Resident("c", 10);
  manager().Shutdown();
  executor_.RunAll();
  EXPECT_EQ(Last("c").reason, EvictionReason::kShutdown);
  Acquire("c");
  EXPECT_EQ(Last("c").kind, CacheEventKind::kUnloaded) << "a server that stops does not fill its journal";
}

TEST_F(EventsTest, AnUnloadIsToldAlsoWhereNothingWasResident) {
  Exists("a", 40);
  manager().Unload(Id("a"), [] {});
  EXPECT_THAT(Kinds("a"), ElementsAre("unloaded"));
  EXPECT_EQ(Last("a").found, CacheEvent::Found::kAbsent);
  Resident("a", 40);
  manager().Unload(Id("a"), [] {});
  executor_.RunAll();
  EXPECT_EQ(Last("a").found, CacheEvent::Found::kResident);
  EXPECT_THAT(Kinds("a"), ElementsAre("unloaded", "queued", "loading", "ready", "unloaded"));
  manager().Unload(Id("a"), [] {});
  EXPECT_EQ(Last("a").found, CacheEvent::Found::kAbsent) << "also of one that was here before";
}

// --- Evict ---

TEST_F(EventsTest, AnIdleModelLeavesWhenItIsToldToAndComesBackWithTheNextRequest) {
  Resident("a", 40);
  const Answer<bool> evicted = Evict("a");
  EXPECT_FALSE(evicted.done()) << "its memory is not back yet";
  executor_.RunAll();
  ASSERT_TRUE(evicted.ok());
  EXPECT_TRUE(*Answer<bool>(evicted));
  EXPECT_EQ(used(), 0u);
  EXPECT_EQ(Last("a").kind, CacheEventKind::kEvicted);
  EXPECT_EQ(Last("a").reason, EvictionReason::kEvict);
  EXPECT_TRUE(Metric(R"(hearth_evictions_total{reason="evict"} 1)"));
  Resident("a", 40);
}

TEST_F(EventsTest, AModelThatIsNotThereNeedNotLeave) {
  Exists("a", 40);
  Answer<bool> evicted = Evict("a");
  ASSERT_TRUE(evicted.ok());
  EXPECT_FALSE(*evicted);
  EXPECT_EQ(manager().events().Of(Id("a")).last, nullptr);
}

TEST_F(EventsTest, AModelInUsePinnedOrOnItsWayIsNotEvicted) {
  Cold held = Held("a", 40);
  EXPECT_THAT(Evict("a").status(), Fails(kFailedPrecondition, "is in use"));
  held.Release();
  manager().Pin(Id("a"));
  EXPECT_THAT(Evict("a").status(), Fails(kFailedPrecondition, "is pinned"));
  EXPECT_TRUE(IsResident("a"));
  Exists("b", 40);
  Cold coming = Acquire("b");
  EXPECT_THAT(Evict("b").status(), Fails(kFailedPrecondition, "is being loaded"));
  executor_.RunAll();
  EXPECT_TRUE(coming.ok());
}

// --- pins ---

TEST_F(EventsTest, EitherPinKeepsAModelAndNeitherTouchesTheOther) {
  Resident("a", 60);
  const auto makes_room = [this](const std::string& model) {
    Exists(model, 60);
    Cold cold = Acquire(model, clock_.Now() + seconds(1));
    executor_.RunAll();
    return !cold.done() || cold.ok();
  };
  EXPECT_TRUE(manager().Pin(Id("a")).asked);
  EXPECT_FALSE(makes_room("b"));
  manager().SetHardPins({Id("a")});
  manager().SetHardPins({});
  EXPECT_TRUE(manager().pins(Id("a")).asked) << "the configuration does not lift it";
  EXPECT_FALSE(makes_room("b"));
  manager().SetHardPins({Id("a")});
  const ModelCache::Pins left = manager().Unpin(Id("a"));
  EXPECT_TRUE(left.configured && !left.asked);
  EXPECT_FALSE(makes_room("b"));
  manager().SetHardPins({});
  EXPECT_TRUE(makes_room("b"));
  EXPECT_FALSE(IsResident("a"));
}

TEST_F(EventsTest, APinOutlivesAnUnload) {
  Resident("a", 60);
  manager().Pin(Id("a"));
  manager().Unload(Id("a"), [] {});
  executor_.RunAll();
  EXPECT_FALSE(IsResident("a"));
  Resident("a", 60);
  EXPECT_TRUE(manager().Snapshot().at(0).pinned);
}

}  // namespace
}  // namespace hearth
