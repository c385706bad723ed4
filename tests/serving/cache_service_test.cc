#include "server/serving/cache_service.h"

#include "server/base/duration.h"
#include "tests/serving/serving_fixture.h"

namespace hearth {
namespace {

using std::chrono::minutes;
using std::chrono::seconds;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

class CacheServiceTest : public ServingTest {
 protected:
  fakes::FakeModel::Options Sized(std::uint64_t host) {
    auto model = EchoModel();
    model.footprint.host_bytes = host;
    return model;
  }
  std::string Why(const std::string& model, const std::string& version = "") {
    const absl::StatusOr<Explanation> explanation = cache_.Explain(model, version);
    return explanation.ok() ? explanation->sentence : explanation.status().ToString();
  }
  absl::StatusOr<CacheService::Evicted> Evict(const std::string& model) {
    absl::StatusOr<CacheService::Evicted> result = absl::UnknownError("not answered");
    cache_.Evict(model, "", [&](auto evicted) { result = std::move(evicted); });
    RunAll();
    return result;
  }

  CacheService cache_{{*catalog_, *manager_, clock_, *versions_}};
};

TEST_F(CacheServiceTest, WhyTellsThatALoadHangsAndSinceWhenItIsUnderWay) {
  AddModel("m");
  fakes::FakeLoader::Script script;
  script.model = EchoModel();
  script.on_load = [&](const ModelSpec&, const std::stop_token&) {
    clock_.Advance(kLoadTimeout);
    timer_.RunDue();
    clock_.Advance(minutes(5));
    EXPECT_EQ(Why("m"), StrCat("loading for ", RoughDuration(kLoadTimeout + minutes(5)),
                               ", and hangs (cache.load_timeout): requests are refused until it ends"));
    repository_->Unload("m", [](auto) {});
    EXPECT_THAT(Why("m"), HasSubstr("until it ends, and then until it is loaded explicitly"));
  };
  loader_.Set("m", std::move(script));
  repository_->Load("m", kNoDeadline, [](auto) {});
  RunAll();
  EXPECT_THAT(Why("m"), StartsWith("not resident"));
}

// --- Tiers ---

TEST_F(CacheServiceTest, WhyTellsWhatIsLeftOfAModelAndWhereOneThatIsBackCameFrom) {
  AddModelOnDevice("m");
  MakeResident("m");
  EXPECT_THAT(Why("m"), Not(HasSubstr("loaded from")));
  ASSERT_TRUE(Evict("m").ok());
  EXPECT_THAT(Why("m"), AllOf(HasSubstr("not resident: evicted "), HasSubstr("; its files stay open and in memory (host)")));
  MakeResident("m");
  EXPECT_THAT(Why("m"), HasSubstr(", loaded from host"));
  ASSERT_TRUE(Evict("m").ok());
  ASSERT_TRUE(Evict("m")->was_resident) << "what was left of it goes";
  EXPECT_THAT(Why("m"), Not(HasSubstr("its files")));
}

TEST_F(CacheServiceTest, AnUnloadOfAllVersionsLeavesNothingOfOneThatIsNotThereAnyMore) {
  AddModelOnDevice("m");
  MakeResident("m");
  ASSERT_TRUE(Evict("m").ok());
  AddModel("m", EchoModel(), "", 2);
  std::filesystem::remove_all(root_ / "m" / "1");
  ASSERT_TRUE(catalog_->Scan().ok());
  ASSERT_EQ(manager_->TierOf({"m", 1}), Tier::kHost);
  repository_->Unload("m", [](auto) {});
  RunAll();
  EXPECT_EQ(manager_->TierOf({"m", 1}), Tier::kCold);
}

// --- Prefetch ---

TEST_F(CacheServiceTest, PrefetchReturnsAtOnceAndTheModelIsThereForItsFirstRequest) {
  AddModel("m");
  const auto found = cache_.Prefetch("m", "");
  ASSERT_TRUE(found.ok());
  EXPECT_EQ(found->before, ModelState::kAbsent);
  EXPECT_EQ(Row("m")->state, ModelState::kQueued);
  RunAll();
  EXPECT_EQ(Row("m")->state, ModelState::kReady);
  EXPECT_EQ(Row("m")->hits, 0u);
  EXPECT_EQ(cache_.Prefetch("m", "1")->before, ModelState::kReady);
}

TEST_F(CacheServiceTest, AHintThatIsRepeatedDoesNotPileUp) {
  AddModel("m");
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(cache_.Prefetch("m", "").ok());
  EXPECT_EQ(Row("m")->waiters, 1u);
  RunAll();
  EXPECT_EQ(loader_.loads("m"), 1);
}

TEST_F(CacheServiceTest, PrefetchDisplacesNothingThatIsInDemandAndSaysSo) {
  AddModel("wanted", Sized(600));
  AddModel("m", Sized(700));
  for (int i = 0; i < 2; ++i) {
    Infer(Request("wanted"));
    RunAll();
  }
  ASSERT_TRUE(cache_.Prefetch("m", "").ok());
  RunAll();
  EXPECT_EQ(Row("wanted")->state, ModelState::kReady);
  EXPECT_THAT(Why("m"), AllOf(HasSubstr("not resident: failed "), HasSubstr("without displacing")));
}

TEST_F(CacheServiceTest, PrefetchOfABrokenModelDoesNotTryAgainBeforeItsBackOffIsOver) {
  AddModel("m");
  loader_.FailLoad(1, absl::InvalidArgumentError("no archive"));
  ASSERT_TRUE(cache_.Prefetch("m", "").ok());
  RunAll();
  const absl::Status again = cache_.Prefetch("m", "").status();
  EXPECT_THAT(again.ToString(), HasSubstr("no archive"));
  EXPECT_TRUE(RetryAfter(again));
  clock_.Advance(seconds(6));
  EXPECT_TRUE(cache_.Prefetch("m", "").ok());
  RunAll();
  EXPECT_EQ(Row("m")->state, ModelState::kReady);
}

TEST_F(CacheServiceTest, WhatIsNotInTheRepositoryIsNotFound) {
  AddModel("m");
  for (const auto& [model, version] : {std::pair{"nobody", ""}, std::pair{"m", "7"}}) {
    EXPECT_EQ(cache_.Prefetch(model, version).status().code(), absl::StatusCode::kNotFound);
    EXPECT_EQ(cache_.Pin(model, version).status().code(), absl::StatusCode::kNotFound);
    EXPECT_EQ(cache_.Unpin(model, version).status().code(), absl::StatusCode::kNotFound);
    EXPECT_EQ(cache_.Explain(model, version).status().code(), absl::StatusCode::kNotFound);
  }
  EXPECT_EQ(Evict("nobody").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(cache_.Pin("m", "x").status().code(), absl::StatusCode::kInvalidArgument);
}

// --- Pin, Unpin, Evict ---

TEST_F(CacheServiceTest, APinIsTheVersionsThatWasTheHighestThen) {
  AddModel("m");
  EXPECT_EQ(*cache_.Pin("m", ""), (ModelId{"m", 1}));
  AddModel("m", EchoModel(), "", 2);
  EXPECT_TRUE(manager_->pins({"m", 1}).asked);
  EXPECT_FALSE(manager_->pins({"m", 2}).asked);
}

TEST_F(CacheServiceTest, WhatTheConfigurationPinsStaysPinned) {
  AddModel("m");
  manager_->SetHardPins({{"m", 1}});
  ASSERT_TRUE(cache_.Pin("m", "").ok());
  const absl::Status refused = cache_.Unpin("m", "").status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(refused.ToString(), HasSubstr("the configuration pins it"));
  EXPECT_FALSE(manager_->pins({"m", 1}).asked) << "lifted all the same";
  manager_->SetHardPins({});
  EXPECT_TRUE(cache_.Unpin("m", "").ok()) << "also when there was none";
}

TEST_F(CacheServiceTest, AnEvictionLeavesTheCatalogAsItIs) {
  AddModel("m");
  MakeResident("m");
  const auto evicted = Evict("m");
  ASSERT_TRUE(evicted.ok()) << evicted.status();
  EXPECT_TRUE(evicted->was_resident);
  EXPECT_FALSE(Row("m"));
  EXPECT_FALSE(Evict("m")->was_resident);
  const Answer answer = Infer(Request("m"));
  RunAll();
  EXPECT_TRUE((*answer)->ok()) << "the next request loads it again";
}

// --- Explain ---

TEST_F(CacheServiceTest, ExplainsAModelThatNobodyHasAskedFor) {
  AddModel("m");
  EXPECT_EQ(Why("m"), "not resident: nobody has asked for it since the server started");
}

TEST_F(CacheServiceTest, ExplainsAnEvictionAndWhatCameOfIt) {
  AddModel("old", Sized(600));
  AddModel("new", Sized(700));
  MakeResident("old");
  clock_.Advance(minutes(40));
  MakeResident("new");
  clock_.Advance(minutes(5));
  EXPECT_EQ(Why("old"),
            "not resident: evicted 5m ago for new:1: 700 B of host memory needed, 600 B of host memory held by it alone; the "
            "coldest of 1 candidate by score, not asked for lately; resident for 40m, idle for 40m");
  EXPECT_EQ(Why("new"), "resident for 5m, idle for 5m");
  MakeResident("old");
  EXPECT_THAT(Why("old"), StartsWith("resident for 0us, idle for 0us; before that evicted 5m ago for new:1: "));
}

TEST_F(CacheServiceTest, ExplainsAFailureAndWhenItIsTriedAgain) {
  AddModel("m");
  loader_.FailLoad(1, absl::InvalidArgumentError("no archive"));
  Infer(Request("m"));
  RunAll();
  Infer(Request("m"));
  clock_.Advance(seconds(2));
  EXPECT_THAT(Why("m"), AllOf(HasSubstr("failed 2.0s ago after 0us: no archive (INVALID_ARGUMENT)"),
                              HasSubstr("refused for another 3.0s, 1 refused so far")));
  clock_.Advance(seconds(4));
  EXPECT_THAT(Why("m"), HasSubstr("the next request tries again"));
}

TEST_F(CacheServiceTest, ExplainsWhoWaitsAndForWhat) {
  AddModel("busy", Sized(900));
  AddModel("m", Sized(500));
  const Answer held = Infer(Request("busy"));
  load_.RunAll();
  Infer(Request("m"));
  load_.RunAll();
  EXPECT_THAT(Why("m"), AllOf(StartsWith("queued for "), HasSubstr(", 1 waits for it; there is no room yet: "),
                              HasSubstr("models in use")));
  EXPECT_THAT(Why("busy"), HasSubstr("in use by 1 request"));
  RunAll();
}

TEST_F(CacheServiceTest, ExplainsPinsAndUnloads) {
  AddModel("m");
  MakeResident("m");
  ASSERT_TRUE(cache_.Pin("m", "").ok());
  EXPECT_THAT(Why("m"), HasSubstr(", pinned on request"));
  manager_->SetHardPins({{"m", 1}});
  EXPECT_THAT(Why("m"), HasSubstr(", pinned by the configuration and on request"));
  repository_->Unload("m", [](const absl::Status&) {});
  RunAll();
  EXPECT_THAT(Why("m"), AllOf(HasSubstr("not resident: unloaded 0us ago by an explicit unload"),
                              HasSubstr("requests are refused until it is loaded explicitly")));
}

TEST_F(CacheServiceTest, NothingOfThisIsAUse) {
  AddModel("m");
  MakeResident("m");
  const TimePoint used = Row("m")->last_used;
  clock_.Advance(minutes(1));
  ASSERT_TRUE(cache_.Explain("m", "").ok());
  ASSERT_TRUE(cache_.Pin("m", "").ok());
  ASSERT_TRUE(cache_.Unpin("m", "").ok());
  ASSERT_TRUE(cache_.Prefetch("m", "").ok());
  EXPECT_EQ(Row("m")->last_used, used);
  EXPECT_EQ(Row("m")->hits, 0u);
}

}  // namespace
}  // namespace hearth
