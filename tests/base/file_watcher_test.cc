#include "server/base/file_watcher.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <fstream>
#include <future>
#include <optional>
#include <string>

#include "server/base/mutex.h"

namespace hearth {
namespace {

namespace fs = std::filesystem;

class FileWatcherTest : public ::testing::Test {
 protected:
  FileWatcherTest() {
    std::string pattern = ::testing::TempDir() + "/hearth-watch-XXXXXX";
    EXPECT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    file_ = folder_ / "hearth.yaml";
  }
  ~FileWatcherTest() override {
    watcher_.reset();
    fs::remove_all(folder_);
  }

  void Start() {
    auto started = FileWatcher::Start({file_}, timer_, clock_, {.settle = std::chrono::milliseconds(1)}, [this] {
      std::ifstream in(file_);
      std::string text;
      std::getline(in, text);
      MutexLock lock(mu_);
      seen_ = text;
      ++calls_;
      heard_.NotifyAll();
    });
    ASSERT_TRUE(started.ok()) << started.status();
    watcher_ = *std::move(started);
  }
  static void Write(const fs::path& file, const std::string& text) { std::ofstream(file) << text << "\n"; }
  void RenameIntoPlace(const std::string& text) {
    Write(folder_ / "new", text);
    fs::rename(folder_ / "new", file_);
  }
  // Until the callback has seen `text`; for ever if it never does.
  void WaitFor(const std::string& text) {
    MutexLock lock(mu_);
    while (seen_ != text) heard_.Wait(mu_);
  }
  int calls() {
    MutexLock lock(mu_);
    return calls_;
  }

  fs::path folder_;
  fs::path file_;
  SteadyClock clock_;
  ThreadTimer timer_;
  Mutex mu_;
  CondVar heard_;
  std::string seen_ ABSL_GUARDED_BY(mu_);
  int calls_ ABSL_GUARDED_BY(mu_) = 0;
  std::unique_ptr<FileWatcher> watcher_;
};

TEST_F(FileWatcherTest, HearsOfAFileThatIsWrittenInPlaceAndOfOneThatIsRenamedIntoPlace) {
  Write(file_, "a");
  Start();
  Write(file_, "b");
  WaitFor("b");
  RenameIntoPlace("c");
  WaitFor("c");
}

TEST_F(FileWatcherTest, WhatStaysTheSameIsNoChange) {
  Write(file_, "a");
  Start();
  Write(file_, "a");
  RenameIntoPlace("a");
  Write(folder_ / "other", "b");
  fs::last_write_time(file_, fs::file_time_type::clock::now());
  RenameIntoPlace("b");  // comes after all of them
  WaitFor("b");
  EXPECT_EQ(calls(), 1);
}

TEST_F(FileWatcherTest, AFileThatIsGoneIsWaitedFor) {
  Write(file_, "a");
  Start();
  fs::remove(file_);
  RenameIntoPlace("b");
  WaitFor("b");
  fs::remove(file_);
  Write(file_, "c");
  WaitFor("c");
}

TEST_F(FileWatcherTest, AFileThatIsNotThereYetIsHeardOfWhenItComes) {
  Start();
  Write(file_, "a");
  WaitFor("a");
}

// hearth.yaml -> ..data/hearth.yaml, ..data -> ..1, and then ..data is renamed to lead to ..2; ..1 goes.
TEST_F(FileWatcherTest, HearsOfAConfigMapOfKubernetesThatIsSwapped) {
  const auto publish = [&](const std::string& version, const std::string& text) {
    fs::create_directory(folder_ / version);
    Write(folder_ / version / "hearth.yaml", text);
    fs::create_directory_symlink(version, folder_ / "..data_tmp");
    fs::rename(folder_ / "..data_tmp", folder_ / "..data");
  };
  publish("..1", "a");
  fs::create_symlink("..data/hearth.yaml", file_);
  Start();
  publish("..2", "b");
  fs::remove_all(folder_ / "..1");
  WaitFor("b");
  publish("..3", "c");
  fs::remove_all(folder_ / "..2");
  WaitFor("c");
}

TEST_F(FileWatcherTest, HearsOfAFileThatALinkLeadsToInAnotherFolder) {
  fs::create_directory(folder_ / "elsewhere");
  Write(folder_ / "elsewhere" / "real.yaml", "a");
  fs::create_symlink("elsewhere/real.yaml", file_);
  Start();
  Write(folder_ / "elsewhere" / "real.yaml", "b");
  WaitFor("b");
}

TEST_F(FileWatcherTest, HearsOfAFolderOnTheWayThatIsALinkAndIsTurnedElsewhere) {
  for (const char* version : {"v1", "v2"}) {
    fs::create_directory(folder_ / version);
    Write(folder_ / version / "hearth.yaml", version);
  }
  fs::create_directory(folder_ / "links");
  fs::create_directory_symlink("../v1", folder_ / "links" / "now");
  fs::create_directory_symlink("links/now", folder_ / "way");
  file_ = folder_ / "way" / "hearth.yaml";
  Start();
  fs::create_directory_symlink("../v2", folder_ / "links" / "next");
  fs::rename(folder_ / "links" / "next", folder_ / "links" / "now");
  WaitFor("v2");
}

TEST_F(FileWatcherTest, SeveralFilesThatChangeTogetherAreOneChange) {
  const fs::path other = folder_ / "other.yaml";
  Write(file_, "a");
  Write(other, "a");
  auto started = FileWatcher::Start({file_, other}, timer_, clock_, {.settle = std::chrono::milliseconds(300)}, [&] {
    std::ifstream first(file_), second(other);
    std::string text, more;
    std::getline(first, text);
    std::getline(second, more);
    MutexLock lock(mu_);
    seen_ = text + more;
    ++calls_;
    heard_.NotifyAll();
  });
  ASSERT_TRUE(started.ok()) << started.status();
  watcher_ = *std::move(started);
  Write(other, "b");
  WaitFor("ab");
  Write(file_, "c");
  Write(other, "c");
  WaitFor("cc");
}

TEST_F(FileWatcherTest, AFolderThatIsNotThereCannotBeWatched) {
  const auto started = FileWatcher::Start({folder_ / "no" / "hearth.yaml"}, timer_, clock_, {}, [] {});
  EXPECT_EQ(started.status().code(), absl::StatusCode::kNotFound);
}

// The timer's task outlives the watcher.
TEST_F(FileWatcherTest, CanGoWhileItIsAboutToLook) {
  Write(file_, "a");
  auto started = FileWatcher::Start({file_}, timer_, clock_, {.settle = std::chrono::hours(1)}, [] { FAIL(); });
  ASSERT_TRUE(started.ok());
  Write(file_, "b");
}

}  // namespace
}  // namespace hearth
