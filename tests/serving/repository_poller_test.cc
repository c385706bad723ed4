#include "server/serving/repository_poller.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <set>

#include "tests/serving/serving_fixture.h"

namespace hearth {
namespace {

namespace fs = std::filesystem;
using std::chrono::seconds;
using ::testing::HasSubstr;

class RepositoryPollerTest : public ServingTest {
 protected:
  RepositoryPollerTest() {
    poller_.emplace(RepositoryPoller::Deps{*catalog_, *manager_, timer_, clock_, polls_, [this] { ++rescans_; }});
  }
  ~RepositoryPollerTest() override {
    poller_.reset();
    polls_.RunAll();
  }

  // As if written so long ago, by the test's clock; at once: it is still being written.
  void Written(const fs::path& path, Duration ago) {
    const auto when = std::chrono::floor<seconds>((clock_.WallNow() - ago).time_since_epoch());
    const timespec at{when.count(), 0};
    const timespec times[] = {at, at};
    ASSERT_EQ(::utimensat(AT_FDCWD, path.c_str(), times, 0), 0) << path;
  }
  void Put(const std::string& name, std::int64_t version, const std::string& content, Duration ago = std::chrono::hours(1)) {
    const fs::path folder = root_ / name / std::to_string(version);
    WriteFile(folder / "model.pt", content);
    if (!known_.contains(name)) SetModel(name, EchoModel());
    known_.insert(name);
    Written(folder / "model.pt", ago);
    Written(folder, ago);
  }
  // One interval later.
  void Look() {
    clock_.Advance(kInterval);
    timer_.RunDue();
    polls_.RunAll();
    load_.RunAll();
  }
  absl::StatusOr<std::int64_t> Default(const std::string& model) {
    HEARTH_ASSIGN_OR_RETURN(const ModelId id, catalog_->Resolve(model, std::nullopt));
    return id.version;
  }

  static constexpr Duration kInterval = seconds(15);
  std::set<std::string> known_;
  fakes::ManualExecutor polls_;
  int rescans_ = 0;
  std::optional<RepositoryPoller> poller_;
};

TEST_F(RepositoryPollerTest, LooksAtEachIntervalAndNotWhenItIsZero) {
  Look();
  EXPECT_EQ(rescans_, 0);
  poller_->SetInterval(kInterval);
  Look();
  Look();
  EXPECT_EQ(rescans_, 2);
  poller_->SetInterval({});
  Look();
  EXPECT_EQ(rescans_, 2);
  EXPECT_EQ(timer_.pending(), 0u);
}

TEST_F(RepositoryPollerTest, AnotherIntervalReplacesTheOneThatIsUnderWay) {
  poller_->SetInterval(std::chrono::hours(1));
  poller_->SetInterval(kInterval);
  EXPECT_EQ(timer_.pending(), 1u);
  Look();
  EXPECT_EQ(rescans_, 1);
}

TEST_F(RepositoryPollerTest, ServesWhatIsNewAndANewVersionIsTheDefault) {
  poller_->SetInterval(kInterval);
  Put("m", 1, "one");
  EXPECT_EQ(Default("m").status().code(), absl::StatusCode::kNotFound);
  Look();
  EXPECT_EQ(*Default("m"), 1);
  Put("m", 2, "two");
  Look();
  EXPECT_EQ(*Default("m"), 2);
}

TEST_F(RepositoryPollerTest, WhatIsStillBeingWrittenWaits) {
  poller_->SetInterval(kInterval);
  Put("m", 1, "one");
  Look();
  Put("m", 2, "tw", -kInterval);  // as of the next look: just now
  Put("new", 1, "ha", -kInterval);
  WriteFile(root_ / "bare.pt", "ha");
  Written(root_ / "bare.pt", -kInterval);
  Look();
  EXPECT_EQ(*Default("m"), 1);
  EXPECT_EQ(Default("new").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Default("bare").status().code(), absl::StatusCode::kNotFound);
  Look();
  EXPECT_EQ(*Default("m"), 2);
  EXPECT_EQ(*Default("new"), 1);
  EXPECT_EQ(*Default("bare"), 1);
}

TEST_F(RepositoryPollerTest, LoadsAChangedModelAnewInTheBackgroundOnceItStaysAsItIs) {
  Put("m", 1, "one");
  ASSERT_TRUE(catalog_->Scan().ok());
  MakeResident("m");
  poller_->SetInterval(kInterval);
  Look();
  EXPECT_EQ(loader_.loads("m"), 1) << "nothing changed";
  Put("m", 1, "another");
  Look();
  EXPECT_EQ(loader_.loads("m"), 1) << "it may still be written";
  Put("m", 1, "yet another");
  Look();
  EXPECT_EQ(loader_.loads("m"), 1);
  Look();
  EXPECT_EQ(loader_.loads("m"), 2);
  Look();
  Look();
  EXPECT_EQ(loader_.loads("m"), 2);
}

TEST_F(RepositoryPollerTest, AChangedModelThatIsBadIsTriedOnceForEachContentAndTheOldOneStays) {
  Put("m", 1, "one");
  ASSERT_TRUE(catalog_->Scan().ok());
  MakeResident("m");
  poller_->SetInterval(kInterval);
  loader_.FailLoad(1, absl::InvalidArgumentError("not a zip archive"));
  Put("m", 1, "bad");
  for (int i = 0; i < 5; ++i) Look();
  EXPECT_EQ(loader_.loads("m"), 2);
  EXPECT_EQ(Row("m")->state, ModelState::kReady);
  Put("m", 1, "good");
  for (int i = 0; i < 5; ++i) Look();
  EXPECT_EQ(loader_.loads("m"), 3);
}

TEST_F(RepositoryPollerTest, WhatIsGoneIsUnloadedWhenItsRequestsAreDone) {
  Put("m", 1, "one");
  ASSERT_TRUE(catalog_->Scan().ok());
  MakeResident("m");
  poller_->SetInterval(kInterval);
  {
    const ModelHandle busy = manager_->TryAcquire({"m", 1});
    fs::remove_all(root_ / "m");
    Look();
    EXPECT_EQ(Row("m")->state, ModelState::kDraining);
    EXPECT_EQ(Default("m").status().code(), absl::StatusCode::kNotFound);
  }
  load_.RunAll();
  EXPECT_FALSE(Row("m"));
}

TEST_F(RepositoryPollerTest, NothingIsLeftOfAModelThatIsGone) {
  AddModelOnDevice("m");
  Written(root_ / "m" / "1" / "model.pt", std::chrono::hours(1));
  poller_->SetInterval(kInterval);
  MakeResident("m");
  manager_->Evict({"m", 1}, [](auto) {});
  Look();
  EXPECT_EQ(manager_->TierOf({"m", 1}), Tier::kHost);
  fs::remove_all(root_ / "m");
  Look();
  EXPECT_EQ(manager_->TierOf({"m", 1}), Tier::kCold);
  EXPECT_EQ(loader_.rests(), 0);
}

TEST_F(RepositoryPollerTest, ARepositoryThatCannotBeReadChangesNothing) {
  Put("m", 1, "one");
  ASSERT_TRUE(catalog_->Scan().ok());
  MakeResident("m");
  poller_->SetInterval(kInterval);
  fs::rename(root_, root_.string() + "-away");
  Look();
  EXPECT_EQ(*Default("m"), 1);
  EXPECT_EQ(Row("m")->state, ModelState::kReady);
  fs::rename(root_.string() + "-away", root_);
}

TEST_F(RepositoryPollerTest, MayGoWhileALookIsPosted) {
  poller_->SetInterval(kInterval);
  clock_.Advance(kInterval);
  timer_.RunDue();
  poller_.reset();
  polls_.RunAll();
  EXPECT_EQ(rescans_, 0);
}

// --- Told that something was written: no interval ---

constexpr Duration kSettle = RepositoryPoller::kSettle;

TEST_F(RepositoryPollerTest, LooksAtOnceWhenItIsToldAndNotAgainWhereNothingHasToWait) {
  Put("m", 1, "one");
  poller_->Changed();
  polls_.RunAll();
  EXPECT_EQ(*Default("m"), 1);
  EXPECT_EQ(timer_.pending(), 0u);
}

TEST_F(RepositoryPollerTest, LooksOnceHoweverOftenItIsToldBeforeItDoes) {
  for (int i = 0; i < 10; ++i) poller_->Changed();
  EXPECT_EQ(polls_.queued(), 1u);
  polls_.RunAll();
  EXPECT_EQ(rescans_, 1);
  poller_->Changed();
  polls_.RunAll();
  EXPECT_EQ(rescans_, 2);
}

TEST_F(RepositoryPollerTest, WhatIsStillBeingWrittenIsLookedAtAgainUntilItIsSettled) {
  Put("m", 1, "o", -seconds(1));
  poller_->Changed();
  polls_.RunAll();
  EXPECT_EQ(Default("m").status().code(), absl::StatusCode::kNotFound);
  const auto look_after = [&](Duration time) {
    const int before = rescans_;
    clock_.Advance(time);
    timer_.RunDue();
    polls_.RunAll();
    return rescans_ - before;
  };
  EXPECT_EQ(look_after(kSettle - std::chrono::milliseconds(1)), 0);
  EXPECT_EQ(look_after(std::chrono::milliseconds(1)), 1);
  ASSERT_EQ(look_after(2 * kSettle), 1);
  EXPECT_EQ(*Default("m"), 1) << "half a second after it was written";
  EXPECT_EQ(timer_.pending(), 0u);
}

TEST_F(RepositoryPollerTest, WhatNeverSettlesIsLookedAtLessAndLessOftenUntilSomethingIsWritten) {
  Put("m", 1, "o", -std::chrono::hours(10));
  poller_->Changed();
  for (int second = 0; second < 600; ++second) {
    polls_.RunAll();
    clock_.Advance(seconds(1));
    timer_.RunDue();
  }
  EXPECT_GE(rescans_, 600 / 15);
  EXPECT_LE(rescans_, 600 / 15 + 8);
  polls_.RunAll();
  const int before = rescans_;
  poller_->Changed();
  polls_.RunAll();
  clock_.Advance(kSettle);
  timer_.RunDue();
  polls_.RunAll();
  EXPECT_EQ(rescans_, before + 2);
}

TEST_F(RepositoryPollerTest, AChangedModelIsLoadedAnewHalfASecondAfterItWasToldOf) {
  Put("m", 1, "one");
  ASSERT_TRUE(catalog_->Scan().ok());
  MakeResident("m");
  Put("m", 1, "another");
  poller_->Changed();
  polls_.RunAll();
  load_.RunAll();
  EXPECT_EQ(loader_.loads("m"), 1) << "it may still be written";
  clock_.Advance(kSettle);
  timer_.RunDue();
  polls_.RunAll();
  load_.RunAll();
  EXPECT_EQ(loader_.loads("m"), 2);
  const int looks = rescans_;
  clock_.Advance(std::chrono::hours(1));
  timer_.RunDue();
  polls_.RunAll();
  EXPECT_EQ(rescans_, looks) << "there is nothing to look at again";
}

TEST_F(RepositoryPollerTest, MayGoWhileItIsToLookAgain) {
  Put("m", 1, "o", -seconds(1));
  poller_->Changed();
  polls_.RunAll();
  EXPECT_EQ(timer_.pending(), 1u);
  poller_->Changed();
  poller_.reset();
  polls_.RunAll();
  EXPECT_EQ(timer_.pending(), 0u);
  EXPECT_EQ(rescans_, 1);
}

// Without any poll.
TEST_F(RepositoryPollerTest, AModelThatFailedIsTriedAtOnceByARequestWhenItsFilesAreOthers) {
  Put("m", 1, "bad");
  ASSERT_TRUE(catalog_->Scan().ok());
  loader_.FailLoad(1, absl::InvalidArgumentError("not a zip archive"));
  const Answer first = Infer(Request("m"));
  RunAll();
  ASSERT_FALSE((*first)->ok());
  const Answer second = Infer(Request("m"));
  ASSERT_TRUE(second->has_value()) << "in the back-off";
  EXPECT_THAT(Text((*second)->status()), HasSubstr("not a zip archive"));
  EXPECT_EQ(loader_.loads("m"), 1);
  Put("m", 1, "good");
  const Answer third = Infer(Request("m"));
  RunAll();
  EXPECT_TRUE((*third)->ok()) << (*third)->status();
}

TEST_F(RepositoryPollerTest, AnEstimateThatFailedIsForgottenTooWhenTheFilesAreOthers) {
  Put("m", 1, "bad");
  ASSERT_TRUE(catalog_->Scan().ok());
  loader_.FailEstimate(1, absl::InvalidArgumentError("not a zip archive"));
  const Answer first = Infer(Request("m"));
  RunAll();
  ASSERT_FALSE((*first)->ok());
  ASSERT_FALSE((**Infer(Request("m"))).ok());
  Put("m", 1, "good");
  const Answer third = Infer(Request("m"));
  RunAll();
  EXPECT_TRUE((*third)->ok()) << (*third)->status();
}

}  // namespace
}  // namespace hearth
