// Has the repository looked at as soon as something is written in it.
#pragma once

#include <filesystem>
#include <memory>
#include <vector>

#include "server/base/clock.h"
#include "server/base/folder_watcher.h"
#include "server/base/timer.h"
#include "server/serving/repository_poller.h"

namespace hearth {

// Watches the roots and all folders in them, links followed, hidden ones left out, and tells the poller. Where that is
// not to be had, because there are more folders than the kernel watches for one user, say, the log says so and the
// poller looks at intervals instead.
//
// Confined to one thread at a time. Outlived by what Deps refers to.
class RepositoryWatcher {
 public:
  struct Deps {
    std::vector<std::filesystem::path> roots;
    RepositoryPoller& poller;
    Timer& timer;
    const Clock& clock;
  };
  explicit RepositoryWatcher(Deps deps);
  ~RepositoryWatcher();  // Set(false, 0s)

  struct Options {
    bool watch = false;
    Duration poll{};  // RepositoryPoller::SetInterval, also while it is watched
  };
  // Looks at every folder, and for what has changed before it was watched. May be told the same again.
  void Set(Options options);

  static constexpr Duration kInstead = std::chrono::seconds(15);  // the interval where there is none, and no watch

 private:
  struct State;
  const std::unique_ptr<State> state_;  // outlives watcher_
  std::unique_ptr<FolderWatcher> watcher_;
};

}  // namespace hearth
