#include "server/base/folder_watcher.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <fstream>
#include <string>

#include "server/base/mutex.h"

namespace hearth {
namespace {

namespace fs = std::filesystem;

class FolderWatcherTest : public ::testing::Test {
 protected:
  FolderWatcherTest() {
    std::string pattern = ::testing::TempDir() + "/hearth-folders-XXXXXX";
    EXPECT_NE(mkdtemp(pattern.data()), nullptr);
    root_ = pattern;
  }
  ~FolderWatcherTest() override {
    watcher_.reset();
    fs::remove_all(root_);
  }

  // The root and the folders in it.
  std::vector<fs::path> Folders() const {
    std::vector<fs::path> folders = {root_};
    for (const auto& entry : fs::directory_iterator(root_)) {
      if (entry.is_directory()) folders.push_back(entry.path());
    }
    return folders;
  }
  void Start(std::function<std::vector<fs::path>()> folders) {
    auto started = FolderWatcher::Start(std::move(folders), timer_, clock_, {.settle = std::chrono::milliseconds(1)},
                                        [this](const absl::Status& watched) {
                                          MutexLock lock(mu_);
                                          watched_ = watched;
                                          files_ = 0;
                                          for (const auto& entry : fs::recursive_directory_iterator(root_)) {
                                            files_ += entry.is_regular_file() ? 1 : 0;
                                          }
                                          heard_.NotifyAll();
                                        });
    ASSERT_TRUE(started.ok()) << started.status();
    watcher_ = *std::move(started);
  }
  static void Write(const fs::path& file) { std::ofstream(file) << "x"; }
  // Until a report has found so many; for ever if none does.
  void WaitForFiles(int files) {
    MutexLock lock(mu_);
    while (files_ != files) heard_.Wait(mu_);
  }

  fs::path root_;
  SteadyClock clock_;
  ThreadTimer timer_;
  Mutex mu_;
  CondVar heard_;
  int files_ ABSL_GUARDED_BY(mu_) = -1;
  absl::Status watched_ ABSL_GUARDED_BY(mu_);
  std::unique_ptr<FolderWatcher> watcher_;
};

TEST_F(FolderWatcherTest, HearsOfWhatIsWrittenRenamedAndRemoved) {
  fs::create_directory(root_ / "a");
  Start([this] { return Folders(); });
  Write(root_ / "a" / "1");
  WaitForFiles(1);
  Write(root_ / "2");
  WaitForFiles(2);
  fs::rename(root_ / "2", root_ / "a" / "3");
  fs::remove(root_ / "a" / "1");
  WaitForFiles(1);
}

TEST_F(FolderWatcherTest, AFolderThatIsNewIsWatchedFromItsReportOn) {
  Start([this] { return Folders(); });
  for (int i = 0; i < 5; ++i) {
    const fs::path folder = root_ / std::to_string(i);
    fs::create_directory(folder);
    Write(folder / "a");
    WaitForFiles(2 * i + 1);
    Write(folder / "b");
    WaitForFiles(2 * i + 2);
  }
}

TEST_F(FolderWatcherTest, SaysWhenNotEverythingIsWatchedAnyMore) {
  std::atomic<bool> more{false};
  Start([&] {
    std::vector<fs::path> folders = {root_};
    if (more) folders.push_back(root_ / "nowhere");
    return folders;
  });
  Write(root_ / "1");
  WaitForFiles(1);
  {
    MutexLock lock(mu_);
    EXPECT_TRUE(watched_.ok()) << watched_;
  }
  more = true;
  Write(root_ / "2");
  WaitForFiles(2);
  {
    MutexLock lock(mu_);
    EXPECT_EQ(watched_.code(), absl::StatusCode::kNotFound);
  }
  Write(root_ / "3");
  WaitForFiles(3);
}

TEST_F(FolderWatcherTest, AFolderThatIsNotThereCannotBeWatched) {
  const auto started =
      FolderWatcher::Start([this] { return std::vector<fs::path>{root_ / "nowhere"}; }, timer_, clock_, {}, [](const auto&) {});
  EXPECT_EQ(started.status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace hearth
