#include "server/serving/prewarmer.h"

#include "server/serving/cache_service.h"
#include "tests/serving/serving_fixture.h"

namespace hearth {
namespace {

using std::chrono::minutes;
using std::chrono::seconds;
using testing::HasSubstr;
using testing::Not;

// Models leave a minute after they were asked for.
class PrewarmerTest : public ServingTest {
 protected:
  PrewarmerTest() {
    manager_->Reconfigure({.capacity = {1000, 1000, 1000}, .idle_unload = minutes(1), .gaps = 10}, nullptr);
    prewarmer_.emplace(Prewarmer::Deps{
        *manager_, timer_, clock_, [this](const ModelId& id) { return catalog_->Resolve(id.name, id.version).ok(); }});
    AddModel("job");
    AddModel("other");
  }
  ~PrewarmerTest() override { prewarmer_.reset(); }

  void Ask(const std::string& model) {
    const auto answer = Infer(Request(model));
    RunAll();
    ASSERT_TRUE(answer->has_value() && (*answer)->ok());
  }
  // Second by second, as the timer's thread would.
  void Pass(Duration time) {
    for (; time > Duration{}; time -= seconds(1)) {
      clock_.Advance(seconds(1));
      timer_.RunDue();
      RunAll();
    }
  }
  // They are asked for every five minutes, the last time just now.
  void Learn(const std::vector<std::string>& models = {"job"}) {
    for (std::size_t i = 0; i <= IdleGaps::kFewest; ++i) {
      if (i > 0) Pass(minutes(5));
      for (const std::string& model : models) Ask(model);
    }
  }
  bool IsResident(const std::string& model) { return static_cast<bool>(manager_->Peek({model, 1})); }
  std::string Why(const std::string& model) { return cache_.Explain(model, "")->sentence; }

  CacheService cache_{{*catalog_, *manager_, clock_, *versions_}};
  std::optional<Prewarmer> prewarmer_;
};

TEST_F(PrewarmerTest, AModelOfATimetableIsThereBeforeItIsAskedForAndStaysAwayUntilThen) {
  prewarmer_->SetEnabled(true);
  Learn();
  for (int again = 0; again < 5; ++again) {
    const int loads = loader_.loads("job");
    Pass(minutes(5) - seconds(2));
    EXPECT_FALSE(IsResident("job"));
    Pass(seconds(1));
    EXPECT_TRUE(IsResident("job"));
    Pass(seconds(1));
    Ask("job");
    EXPECT_EQ(loader_.loads("job"), loads + 1) << "the request found it there";
  }
  EXPECT_TRUE(Exposes("hearth_cache_hits_total{model=\"job\",version=\"1\"} 5")) << metrics_.Text();
}

TEST_F(PrewarmerTest, WhyTellsWhatItWasLoadedAheadOf) {
  prewarmer_->SetEnabled(true);
  Learn();
  Pass(minutes(5) - seconds(1));
  EXPECT_THAT(Why("job"), HasSubstr(", loaded ahead of need: asked for every 5m, expected in 1.0s, idle for "));
  Ask("job");
  EXPECT_THAT(Why("job"), HasSubstr(", loaded ahead of need, idle for "));
  Ask("other");
  EXPECT_THAT(Why("other"), Not(HasSubstr("ahead of need")));
}

TEST_F(PrewarmerTest, DoesNothingWhileItIsOff) {
  Learn();
  EXPECT_EQ(loader_.loads("job"), 5);
  Pass(minutes(10));
  EXPECT_EQ(loader_.loads("job"), 5);
  prewarmer_->SetEnabled(true);
  Ask("job");
  prewarmer_->SetEnabled(false);
  Pass(minutes(10));
  EXPECT_EQ(loader_.loads("job"), 6);
}

TEST_F(PrewarmerTest, AModelThatIsNotAskedForAnyMoreIsLoadedOnceInVain) {
  prewarmer_->SetEnabled(true);
  Learn();
  const int loads = loader_.loads("job");
  Pass(minutes(60));
  EXPECT_EQ(loader_.loads("job"), loads + 1);
  EXPECT_FALSE(IsResident("job"));
}

TEST_F(PrewarmerTest, OneThatIsAskedForEarlierIsLeftAlone) {
  prewarmer_->SetEnabled(true);
  Learn();
  Pass(minutes(3));
  Ask("job");
  const int loads = loader_.loads("job");
  Pass(minutes(3));  // a minute after it had been expected
  EXPECT_EQ(loader_.loads("job"), loads);
}

TEST_F(PrewarmerTest, OneThatWasUnloadedOrLeftTheRepositoryIsLeftAlone) {
  prewarmer_->SetEnabled(true);
  Learn({"job", "other"});
  Pass(minutes(1));
  ASSERT_TRUE(manager_->ExpectedUse({"job", 1}) && manager_->ExpectedUse({"other", 1}));
  repository_->Unload("job", [](auto) {});
  std::filesystem::remove_all(root_ / "other");
  ASSERT_TRUE(catalog_->Scan().ok());
  const int loads = loader_.loads("job");
  Pass(minutes(10));
  EXPECT_EQ(loader_.loads("job"), loads);
  EXPECT_EQ(manager_->events().Of({"other", 1}).last->kind, CacheEventKind::kEvicted) << "nor is it tried";
}

TEST_F(PrewarmerTest, ManyAreWaitedForWithOneAlarm) {
  prewarmer_->SetEnabled(true);
  Learn({"job", "other"});
  Pass(minutes(1));
  const std::size_t pending = timer_.pending();
  prewarmer_->SetEnabled(false);
  EXPECT_EQ(timer_.pending(), pending - 1);
}

TEST_F(PrewarmerTest, MayGoWhileItsAlarmIsSet) {
  prewarmer_->SetEnabled(true);
  Learn();
  Pass(minutes(1));
  prewarmer_.reset();
  const int loads = loader_.loads("job");
  Pass(minutes(10));
  EXPECT_EQ(loader_.loads("job"), loads);
}

}  // namespace
}  // namespace hearth
