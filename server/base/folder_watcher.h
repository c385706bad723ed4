// Tells when something happens in folders.
#pragma once

#include <atomic>
#include <filesystem>
#include <functional>
#include <memory>
#include <set>
#include <thread>
#include <vector>

#include "server/base/clock.h"
#include "server/base/status.h"
#include "server/base/timer.h"
#include "server/base/unique_fd.h"

namespace hearth {

// By the kernel (inotify), which knows what this machine writes; what others write to a file system that they share
// it does not report. What was reported is not told, only that something was: a file written and closed, created,
// removed or renamed; and not before a moment has passed since the first report, so that a change of several steps is
// one. Which folders those are is asked for again each time, for some may be new.
class FolderWatcher {
 public:
  struct Options {
    Duration settle = std::chrono::milliseconds(300);  // from the first report to `changed`
  };
  using Folders = std::function<std::vector<std::filesystem::path>()>;

  // `folders` and `changed` run on the watcher's own thread, but for the first call of `folders`. `changed` is told
  // whether everything is watched from then on; if not, what could be is. The error is the machine's: a folder is not
  // there, or too much is being watched.
  static absl::StatusOr<std::unique_ptr<FolderWatcher>> Start(Folders folders, Timer& timer, const Clock& clock,
                                                              Options options,
                                                              std::function<void(const absl::Status& watched)> changed);
  // Waits for `changed` if it runs; it does not run again. REQUIRES: not from within `changed`.
  ~FolderWatcher();
  FolderWatcher(const FolderWatcher&) = delete;
  FolderWatcher& operator=(const FolderWatcher&) = delete;

 private:
  // How others wake the thread. Shared with the timer's task, which may outlive us.
  struct Wake {
    void Ring() const;
    UniqueFd fd;
    std::atomic<bool> stop{false};
    std::atomic<bool> tell{false};
  };

  FolderWatcher(Folders folders, Timer& timer, const Clock& clock, Options options,
                std::function<void(const absl::Status&)> changed);
  absl::Status Open();
  absl::Status Watch();
  void Loop();
  void TellSoon();

  const Folders folders_;
  Timer& timer_;
  const Clock& clock_;
  const Options options_;
  const std::function<void(const absl::Status&)> changed_;
  const std::shared_ptr<Wake> wake_ = std::make_shared<Wake>();

  // Confined to the thread, once it runs.
  UniqueFd inotify_;
  std::set<int> watches_;
  bool telling_soon_ = false;

  std::thread thread_;
};

}  // namespace hearth
