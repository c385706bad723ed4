// Loads and unloads that do not come to their end.
#include "server/residency/load_watch.h"
#include "server/residency/model_manager.h"

#include "tests/residency/manager_fixture.h"

namespace hearth {
namespace {

using std::chrono::minutes;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using enum absl::StatusCode;

class HangTest : public ManagerTest {
 protected:
  HangTest() {
    options_.load_timeout = minutes(10);
    options_.max_cold_wait = minutes(60);
  }

  // What a thread that is stuck sees of the world: time goes by.
  void Passes(Duration time) {
    clock_.Advance(time);
    timer_.RunDue();
  }
  // In the middle of the load of `model`, on its thread.
  void During(const std::string& model, std::function<void(std::stop_token)> what) {
    fakes::FakeLoader::Script script = Sized(40);
    script.on_load = [what = std::move(what)](const ModelSpec&, std::stop_token stop) { what(std::move(stop)); };
    loader_.Set(model, std::move(script));
  }
  double Hung(const std::string& task) {
    for (const Metrics::Sample& sample : manager().Samples()) {
      if (sample.name == "hearth_hung_tasks" && sample.labels.at(0).second == task) return sample.value;
    }
    return -1;
  }
};

TEST_F(HangTest, ALoadThatHangsFailsItsWaitersAndItsModelIsRefusedUntilItEnds) {
  Cold first = Acquire("vad");
  During("vad", [&](const std::stop_token& stop) {
    Passes(minutes(9));
    EXPECT_FALSE(first.done());
    EXPECT_FALSE(stop.stop_requested());
    Passes(minutes(2));
    ASSERT_TRUE(first.done());
    EXPECT_EQ(first.status().code(), kUnavailable);
    EXPECT_THAT(std::string(first.status().message()), HasSubstr("hangs"));
    EXPECT_TRUE(stop.stop_requested()) << "should it look";
    Cold second = Acquire("vad");
    ASSERT_TRUE(second.done());
    EXPECT_EQ(second.status().code(), kUnavailable);
    EXPECT_EQ(manager().usage().loading.host_bytes, 40u) << "its bytes may be there";
    EXPECT_EQ(Hung("load"), 1);
  });
  executor_.RunAll();
  EXPECT_EQ(Hung("load"), 0);
  EXPECT_EQ(manager().usage().used().host_bytes, 0u);
  Exists("vad", 40);
  Cold third = Acquire("vad");
  executor_.RunAll();
  EXPECT_TRUE(third.ok()) << third.status();
}

TEST_F(HangTest, OthersAreLoadedMeanwhile) {
  Cold vad = Acquire("vad");
  During("vad", [&](const std::stop_token&) {
    Passes(minutes(11));
    EXPECT_EQ(executor_.replaced(), 1);
    Exists("asr", 60);
    Cold asr = Acquire("asr");
    executor_.RunAll();
    EXPECT_TRUE(asr.ok()) << asr.status();
  });
  executor_.RunAll();
  EXPECT_EQ(executor_.replaced(), 0) << "the thread is back";
}

TEST_F(HangTest, AReloadThatHangsLeavesTheModelBeforeInService) {
  Resident("vad", 40);
  During("vad", [&](const std::stop_token&) {
    Passes(minutes(11));
    EXPECT_TRUE(manager().TryAcquire(Id("vad")));
  });
  Answer<LoadReport> reload = Load("vad", {.reload = true});
  executor_.RunAll();
  EXPECT_EQ(reload.status().code(), kUnavailable);
  EXPECT_THAT(States("vad"), ElementsAre("ready"));
}

TEST_F(HangTest, AnEstimateMayHangToo) {
  fakes::FakeLoader::Script script = Sized(40);
  script.on_estimate = [&] { Passes(minutes(11)); };
  loader_.Set("vad", script);
  Cold cold = Acquire("vad");
  executor_.RunAll();
  EXPECT_EQ(cold.status().code(), kUnavailable);
}

TEST_F(HangTest, ADestructorThatIsStuckHoldsUpNobody) {
  fakes::FakeLoader::Script script = Sized(40);
  script.model.on_destroy = [&] {
    Passes(minutes(11));
    EXPECT_EQ(executor_.replaced(), 1);
    EXPECT_EQ(Hung("unload"), 1);
    EXPECT_EQ(used(), 40u) << "they are not free before they are";
    Exists("asr", 60);
    Cold asr = Acquire("asr");
    executor_.RunAll();
    EXPECT_TRUE(asr.ok()) << asr.status();
  };
  loader_.Set("vad", script);
  Load("vad");
  executor_.RunAll();
  manager().Unload(Id("vad"), [] {});
  executor_.RunAll();
  EXPECT_EQ(executor_.replaced(), 0);
  EXPECT_EQ(Hung("unload"), 0);
}

TEST_F(HangTest, WhoWasPromisedTheBytesOfADestructorThatIsStuckLooksElsewhere) {
  Resident("idle", 30);
  fakes::FakeLoader::Script script = Sized(40);
  bool looked = false;
  script.model.on_destroy = [&] {
    if (std::exchange(looked, true)) return;
    Exists("big", 60);  // with what is on its way it fits
    Cold big = Acquire("big");
    executor_.RunAll();
    EXPECT_FALSE(big.done());
    EXPECT_TRUE(IsResident("idle"));
    Passes(minutes(11));
    executor_.RunAll();
    EXPECT_TRUE(big.ok()) << big.status();
    EXPECT_FALSE(IsResident("idle")) << "in its place";
    EXPECT_EQ(manager().usage().used().host_bytes, 100u);
  };
  loader_.Set("stuck", script);
  Load("stuck");
  executor_.RunAll();
  manager().Unload(Id("stuck"), [] {});
  executor_.RunAll();
  EXPECT_TRUE(looked);
  EXPECT_EQ(used(), 60u);
}

TEST_F(HangTest, ADestructorThatIsStuckHoldsUpTheLoadThatItMakesRoomForAndNobodyElse) {
  Resident("idle", 30);
  fakes::FakeLoader::Script script = Sized(60);
  bool looked = false;
  Exists("new", 60);
  Cold first;
  script.model.on_destroy = [&] {
    if (std::exchange(looked, true)) return;
    Passes(minutes(11));
    EXPECT_EQ(first.status().code(), kUnavailable);
    EXPECT_EQ(Hung("unload"), 1);
    EXPECT_EQ(executor_.replaced(), 1) << "it is one thread";
    Exists("other", 40);
    Cold other = Acquire("other");
    executor_.RunAll();
    EXPECT_TRUE(other.ok()) << other.status();
    EXPECT_FALSE(IsResident("idle")) << "in its place";
  };
  loader_.Set("stuck", script);
  Load("stuck");
  executor_.RunAll();
  manager().TryAcquire(Id("idle"));
  first = Acquire("new");
  executor_.RunAll();
  EXPECT_TRUE(looked);
  EXPECT_EQ(executor_.replaced(), 0);
  Cold again = Acquire("new");
  executor_.RunAll();
  EXPECT_TRUE(again.ok()) << again.status();
}

TEST_F(HangTest, ThatOneHasComeToItsEndIsToldAsThat) {
  Cold cold = Acquire("vad");
  During("vad", [&](const std::stop_token&) { Passes(minutes(11)); });
  executor_.RunAll();
  const EventLog::EventPtr last = manager().events().Of(Id("vad")).last;
  EXPECT_EQ(last->kind, CacheEventKind::kFailed);
  EXPECT_THAT(last->error, Fails(absl::StatusCode::kAborted, "it had hung"));
}

TEST_F(HangTest, WithoutATimeoutALoadMayTakeForEver) {
  options_.load_timeout = {};
  Cold cold = Acquire("vad", clock_.Now() + std::chrono::hours(1000));
  During("vad", [&](const std::stop_token&) { Passes(std::chrono::hours(999)); });
  executor_.RunAll();
  EXPECT_TRUE(cold.ok()) << cold.status();
}

TEST_F(HangTest, AnUnloadOfAModelWhoseLoadHangsIsDoneAtOnceAndWhatItBringsIsDropped) {
  Cold cold = Acquire("vad");
  bool done = false;
  During("vad", [&](const std::stop_token&) {
    Passes(minutes(11));
    manager().Unload(Id("vad"), [&] { done = true; });
    EXPECT_TRUE(done);
    EXPECT_EQ(manager().CheckFreed(Id("vad")), absl::OkStatus());
    const EventLog::EventPtr last = manager().events().Of(Id("vad")).last;
    EXPECT_EQ(last->kind, CacheEventKind::kUnloaded);
    EXPECT_EQ(Describe(*last), "by an explicit unload while its load hangs; the thread is still stuck");
    EXPECT_EQ(Hung("load"), 1);
    EXPECT_EQ(used(), 40u);
  });
  executor_.RunAll();
  EXPECT_THAT(States("vad"), IsEmpty());
  EXPECT_EQ(used(), 0u);
}

TEST_F(HangTest, AnUnloadThatWaitsForALoadIsDoneWhenThatHangs) {
  Cold cold = Acquire("vad");
  bool done = false;
  During("vad", [&](const std::stop_token&) {
    manager().Unload(Id("vad"), [&] { done = true; });
    Passes(minutes(9));
    EXPECT_FALSE(done);
    Passes(minutes(2));
    EXPECT_TRUE(done);
  });
  executor_.RunAll();
  EXPECT_TRUE(done);
}

TEST_F(HangTest, AnUnloadOfAModelWhoseDestructorIsStuckIsDoneWhenThatIsKnownAndSaysSo) {
  fakes::FakeLoader::Script script = Sized(40);
  bool done = false, again = false;
  script.model.on_destroy = [&] {
    Passes(minutes(9));
    EXPECT_FALSE(done);
    Passes(minutes(2));
    EXPECT_TRUE(done);
    EXPECT_THAT(manager().CheckFreed(Id("vad")), Fails(kDeadlineExceeded, "its memory is not back"));
    EXPECT_TRUE(manager().Snapshot().at(0).hangs);
    manager().Unload(Id("vad"), [&] { again = true; });
    EXPECT_TRUE(again);
  };
  loader_.Set("vad", script);
  Load("vad");
  executor_.RunAll();
  manager().Unload(Id("vad"), [&] { done = true; });
  executor_.RunAll();
  EXPECT_EQ(manager().CheckFreed(Id("vad")), absl::OkStatus());
}

TEST_F(HangTest, ThatTheModelBeforeIsStuckAfterAReloadIsKnownToo) {
  fakes::FakeLoader::Script script = Sized(40);
  bool done = false;
  script.model.on_destroy = [&] {
    Passes(minutes(11));
    EXPECT_THAT(manager().CheckFreed(Id("vad")), Fails(kDeadlineExceeded, "its memory is not back"));
    EXPECT_EQ(Hung("unload"), 1);
    Exists("asr", 60);
    Cold asr = Acquire("asr");
    executor_.RunAll();
    EXPECT_TRUE(asr.ok()) << "it goes for that, and not what is stuck: " << asr.status();
    EXPECT_FALSE(IsResident("vad"));
    done = true;
  };
  loader_.Set("vad", script);
  Load("vad");
  executor_.RunAll();
  Exists("vad", 40);
  Load("vad", {.reload = true});
  executor_.RunAll();
  EXPECT_TRUE(done);
}

TEST_F(HangTest, AnEvictionThatIsStuckSaysSo) {
  fakes::FakeLoader::Script script = Sized(40);
  Answer<bool> evicted;
  script.model.on_destroy = [&] {
    EXPECT_FALSE(evicted.done());
    Passes(minutes(11));
    EXPECT_THAT(evicted.status(), Fails(kDeadlineExceeded, "its memory is not back"));
  };
  loader_.Set("vad", script);
  Load("vad");
  executor_.RunAll();
  manager().Evict(Id("vad"), evicted.callback());
  executor_.RunAll();
  EXPECT_TRUE(evicted.done());
}

TEST_F(HangTest, ARowTellsThatItsLoadHangsAndSinceWhenItIsLoading) {
  Cold cold = Acquire("vad");
  const TimePoint began = clock_.Now();
  During("vad", [&](const std::stop_token&) {
    Passes(minutes(9));
    EXPECT_FALSE(manager().Snapshot().at(0).hangs);
    Passes(minutes(2));
    const ModelCache::Row row = manager().Snapshot().at(0);
    EXPECT_TRUE(row.hangs);
    EXPECT_EQ(row.since, began);
    EXPECT_THAT(row.error, Fails(kUnavailable, "hangs"));
  });
  executor_.RunAll();
}

TEST_F(HangTest, WhenNoLoadThreadIsLeftWhoWaitsAndWhoAsksIsRefusedUntilOneIsBack) {
  executor_.SetReplacements(1);
  Resident("kept", 5);
  Exists("queued", 5);
  Exists("ahead", 5);
  Cold queued;
  Answer<LoadReport> ahead;
  Cold first = Acquire("vad");
  During("asr", [&](const std::stop_token&) {
    queued = Acquire("queued");
    ahead = Load("ahead", {.priority = LoadPriority::kBackground});
    Passes(minutes(9));
    EXPECT_FALSE(queued.done());
    EXPECT_EQ(manager().CheckLoads(), absl::OkStatus());
    Passes(minutes(2));
    EXPECT_THAT(queued.status(), Fails(kUnavailable, "no load thread is left for what somebody waits for: the loads of asr:1, vad:1 hang"));
    EXPECT_EQ(manager().events().Read(manager().events().end() - 1, "").event->kind, CacheEventKind::kStalled);
    EXPECT_EQ(Acquire("new").status(), queued.status());
    EXPECT_EQ(manager().events().Of(Id("new")).refused, 1u);
    EXPECT_EQ(Load("new").status(), queued.status());
    EXPECT_EQ(manager().CheckLoads(), queued.status());
    EXPECT_TRUE(Acquire("kept").ok()) << "what is resident is given out";
    background_.RunAll();
    EXPECT_TRUE(ahead.ok()) << ahead.status();
    EXPECT_TRUE(IsResident("queued")) << "nobody waits for it, so it is loaded where there is a thread";
  });
  During("vad", [&](const std::stop_token&) {
    Passes(minutes(11));
    Cold second = Acquire("asr");
    executor_.RunAll();
    EXPECT_EQ(manager().CheckLoads(), absl::OkStatus()) << "one is back";
    EXPECT_EQ(executor_.replaced(), 1);
  });
  executor_.RunAll();
  EXPECT_EQ(executor_.replaced(), 0);
  Exists("asr", 40);
  Cold asr = Acquire("asr");
  executor_.RunAll();
  EXPECT_TRUE(asr.ok()) << asr.status();
}

TEST_F(HangTest, VictimsBehindOneThatIsStuckAreFreedAllTheSame) {
  fakes::FakeLoader::Script script = Sized(60);
  bool looked = false;
  script.model.on_destroy = [&] {
    if (std::exchange(looked, true)) return;
    EXPECT_EQ(used(), 100u);
    Passes(minutes(11));
    executor_.RunAll();
    EXPECT_EQ(used(), 60u);
  };
  loader_.Set("stuck", script);
  Load("stuck");
  executor_.RunAll();
  Resident("behind", 40);
  Exists("new", 90);
  Cold cold = Acquire("new");
  executor_.RunAll();
  EXPECT_TRUE(looked);
  EXPECT_EQ(cold.status().code(), kUnavailable);
  EXPECT_EQ(used(), 0u);
}

class LoadWatchTest : public testing::Test {
 protected:
  void Passes(Duration time) {
    clock_.Advance(time);
    timer_.RunDue();
  }
  fakes::ManualClock clock_;
  fakes::ManualTimer timer_{clock_};
  std::vector<std::string> hangs_;
  std::vector<std::string> stalls_;
  LoadWatch watch_{timer_, clock_, [this](const LoadWatch::Hang& hang) { hangs_.push_back(hang.work.id.name); },
                   [this](const LoadWatch::Stall& stall) {
                     EXPECT_EQ(stall.number, stalls_.size() + 1);
                     std::string text;
                     for (const ModelId& id : stall.stuck) text += id.name;
                     stalls_.push_back(text);
                   }};
};

TEST_F(LoadWatchTest, TellsOnceOfEachThatIsLate) {
  const auto a = watch_.Begin({{"a", 1}, 1}, seconds(10));
  Passes(seconds(5));
  const auto b = watch_.Begin({{"b", 1}, 2}, seconds(10));
  Passes(seconds(5));
  EXPECT_THAT(hangs_, ElementsAre("a"));
  Passes(seconds(5));
  EXPECT_THAT(hangs_, ElementsAre("a", "b"));
  Passes(seconds(100));
  EXPECT_THAT(hangs_, ElementsAre("a", "b"));
}

TEST_F(LoadWatchTest, WhoHasMoreToDoMayTakeLonger) {
  auto a = watch_.Begin({{"a", 1}, 1}, seconds(10));
  a.Allow(seconds(20));
  Passes(seconds(29));
  EXPECT_TRUE(hangs_.empty());
  Passes(seconds(1));
  EXPECT_THAT(hangs_, ElementsAre("a"));
}

TEST_F(LoadWatchTest, WhoFoundNoReplacementGetsTheNextThatIsFree) {
  fakes::ManualExecutor executor;
  executor.SetReplacements(1);
  std::unique_ptr<LoadWatch::Scope> a(new auto(watch_.Begin({{"a", 1}, 1, &executor}, seconds(10))));
  std::unique_ptr<LoadWatch::Scope> b(new auto(watch_.Begin({{"b", 1}, 2, &executor}, seconds(20))));
  Passes(seconds(10));
  EXPECT_EQ(executor.replaced(), 1);
  EXPECT_TRUE(stalls_.empty());
  Passes(seconds(10));
  EXPECT_THAT(stalls_, ElementsAre("ab")) << "there is one thread, and one more";
  Passes(seconds(10));
  a.reset();
  EXPECT_EQ(executor.replaced(), 1) << "it goes to the other";
  EXPECT_THAT(stalls_, ElementsAre("ab", ""));
  b.reset();
  EXPECT_EQ(executor.replaced(), 0);
  EXPECT_THAT(stalls_, ElementsAre("ab", ""));
}

TEST_F(LoadWatchTest, WhoIsDoneIsForgotten) {
  { const auto a = watch_.Begin({{"a", 1}, 1}, seconds(10)); }
  Passes(seconds(11));
  EXPECT_TRUE(hangs_.empty());
}

}  // namespace
}  // namespace hearth
