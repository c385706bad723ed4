// Tells when the content of a file has changed.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "server/base/clock.h"
#include "server/base/folder_watcher.h"
#include "server/base/status.h"
#include "server/base/timer.h"

namespace hearth {

// The kernel (inotify) reports what happens in the folder of the file and, where links lead elsewhere, in that of what
// they lead to. So it does not matter whether the file is written in place, renamed into place, or swapped as
// Kubernetes does it, where the folder's link `..data` is renamed and the file itself is left alone. A moment after
// such a report, so that a change of several steps is one, the file is read, and its content decides.
//
// A file that is gone is waited for, and counts as unchanged meanwhile; of a folder that was removed nothing more is
// heard.
class FileWatcher {
 public:
  struct Options {
    Duration settle = std::chrono::milliseconds(300);  // from the first report to the reading
  };

  // `changed` runs on the watcher's own thread. What the file says now is what it is compared with first. The error
  // is the machine's: the folder is not there, or too much is being watched.
  static absl::StatusOr<std::unique_ptr<FileWatcher>> Start(std::filesystem::path file, Timer& timer,
                                                            const Clock& clock, Options options,
                                                            std::function<void()> changed);
  // Waits for `changed` if it runs; it does not run again. REQUIRES: not from within `changed`.
  ~FileWatcher() = default;
  FileWatcher(const FileWatcher&) = delete;
  FileWatcher& operator=(const FileWatcher&) = delete;

 private:
  FileWatcher(std::filesystem::path file, std::function<void()> changed)
      : file_(std::move(file)), changed_(std::move(changed)) {}
  std::vector<std::filesystem::path> Folders() const;
  void Look();
  std::optional<std::string> Read() const;

  const std::filesystem::path file_;  // absolute
  const std::function<void()> changed_;
  std::optional<std::string> content_;  // confined to the folders' watcher, once that runs
  std::unique_ptr<FolderWatcher> folders_;
};

}  // namespace hearth
