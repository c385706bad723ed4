#include "server/serving/repository_watcher.h"

#include "server/base/thread_pool.h"
#include "tests/serving/serving_fixture.h"

namespace hearth {
namespace {

namespace fs = std::filesystem;
using std::chrono::hours;
using std::chrono::seconds;

// The kernel's reports, and the poller on real time: a file is as old as the kernel says.
class RepositoryWatcherTest : public ServingTest {
 protected:
  ~RepositoryWatcherTest() override {
    watcher_.reset();
    poller_.reset();
    polls_.Shutdown();
  }

  void Start() {
    poller_.emplace(RepositoryPoller::Deps{*catalog_, *manager_, real_timer_, real_clock_, polls_, [this] {
                                             MutexLock lock(mu_);
                                             scanned_.NotifyAll();
                                           }});
    watcher_.emplace(RepositoryWatcher::Deps{{root_}, *poller_, real_timer_, real_clock_});
    watcher_->Set({.watch = true});
  }
  // Until it is the one that answers; for ever if it never is.
  void WaitForVersion(const std::string& model, std::int64_t version) {
    MutexLock lock(mu_);
    while (true) {
      const auto id = catalog_->Resolve(model, std::nullopt);
      if (version == 0 ? absl::IsNotFound(id.status()) : id.ok() && id->version == version) return;
      scanned_.Wait(mu_);
    }
  }

  SteadyClock real_clock_;
  ThreadTimer real_timer_;
  ThreadPool polls_{{"polls", 1, {}}};
  Mutex mu_;
  CondVar scanned_;
  std::optional<RepositoryPoller> poller_;
  std::optional<RepositoryWatcher> watcher_;
};

TEST_F(RepositoryWatcherTest, ModelsAndVersionsThatComeAndGoAreNoticedWithoutAnInterval) {
  WriteFile(root_ / "m/1/model.pt", "one");
  Start();
  WaitForVersion("m", 1);  // was there before
  WriteFile(root_ / "m/2/model.pt", "two");
  WaitForVersion("m", 2);
  WriteFile(root_ / "new/1/model.pt", "one");
  WaitForVersion("new", 1);
  WriteFile(root_ / "new/2/model.pt", "two");
  WaitForVersion("new", 2);
  fs::remove_all(root_ / "new/2");
  WaitForVersion("new", 1);
  fs::remove_all(root_ / "m");
  WaitForVersion("m", 0);
}

TEST_F(RepositoryWatcherTest, LinksAreFollowedAlsoInCircles) {
  std::string pattern = testing::TempDir() + "/elsewhere-XXXXXX";
  ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
  const fs::path elsewhere = pattern;
  WriteFile(elsewhere / "1/model.pt", "one");
  fs::create_directory_symlink(elsewhere, root_ / "m");
  fs::create_directory_symlink("..", elsewhere / "up");
  fs::create_directory_symlink(root_, elsewhere / "back");
  Start();
  WaitForVersion("m", 1);
  WriteFile(elsewhere / "2/model.pt", "two");
  WaitForVersion("m", 2);
  watcher_.reset();
  fs::remove_all(elsewhere);
}

// On the test's time.
class UnwatchedTest : public ServingTest {
 protected:
  UnwatchedTest() {
    poller_.emplace(RepositoryPoller::Deps{*catalog_, *manager_, timer_, clock_, polls_, [this] { ++rescans_; }});
  }
  ~UnwatchedTest() override {
    poller_.reset();
    polls_.RunAll();
  }
  int RescansAfter(Duration time) {
    polls_.RunAll();
    const int before = rescans_;
    clock_.Advance(time);
    timer_.RunDue();
    polls_.RunAll();
    return rescans_ - before;
  }

  fakes::ManualExecutor polls_;
  int rescans_ = 0;
  std::optional<RepositoryPoller> poller_;
};

TEST_F(UnwatchedTest, WhereItCannotBeWatchedItIsLookedAtInstead) {
  RepositoryWatcher watcher({{root_, root_ / "nowhere"}, *poller_, timer_, clock_});
  watcher.Set({.watch = true});
  EXPECT_EQ(RescansAfter(RepositoryWatcher::kInstead - seconds(1)), 0);
  EXPECT_EQ(RescansAfter(seconds(1)), 1);
  EXPECT_EQ(RescansAfter(RepositoryWatcher::kInstead), 1) << "again and again";
  watcher.Set({.watch = true, .poll = hours(1)});
  EXPECT_EQ(RescansAfter(RepositoryWatcher::kInstead), 0) << "there is an interval";
  EXPECT_EQ(RescansAfter(hours(1)), 1);
  watcher.Set({});
  EXPECT_EQ(RescansAfter(hours(1)), 0);
}

TEST_F(UnwatchedTest, WhatCanBeWatchedByTheNextReloadIsNotLookedAtAnyMore) {
  RepositoryWatcher watcher({{root_, root_ / "later"}, *poller_, timer_, clock_});
  watcher.Set({.watch = true});
  fs::create_directory(root_ / "later");
  watcher.Set({.watch = true});
  EXPECT_EQ(RescansAfter(RepositoryWatcher::kInstead), 0);
}

TEST_F(UnwatchedTest, AnIntervalGoesWithAWatchAndStaysWithoutOne) {
  RepositoryWatcher watcher({{root_}, *poller_, timer_, clock_});
  watcher.Set({.watch = true, .poll = hours(1)});
  EXPECT_EQ(RescansAfter(hours(1)), 1);
  watcher.Set({.watch = false, .poll = hours(1)});
  EXPECT_EQ(RescansAfter(hours(1)), 1);
}

}  // namespace
}  // namespace hearth
