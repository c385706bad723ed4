// Tells when the content of files has changed.
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

// The kernel (inotify) reports what happens in the folder of a file and, where links lead elsewhere, in those of the
// links, also of links to folders on the way, and of what they lead to. So it does not matter whether the file is
// written in place, renamed into place, or swapped as Kubernetes does it, where the folder's link `..data` is renamed
// and the file itself is left alone. A moment after such a report, so that a change of several steps is one, the files
// are read, and their content decides.
//
// A file that is gone is waited for, and counts as unchanged meanwhile; of a folder that was removed nothing more is
// heard.
class FileWatcher {
 public:
  struct Options {
    Duration settle = std::chrono::milliseconds(300);  // from the first report to the reading
  };

  // `changed` runs on the watcher's own thread, once for whatever changed together. What the files say now is what they
  // are compared with first. The error is the machine's: a folder is not there, or too much is being watched.
  static absl::StatusOr<std::unique_ptr<FileWatcher>> Start(std::vector<std::filesystem::path> files, Timer& timer,
                                                            const Clock& clock, Options options,
                                                            std::function<void()> changed);
  // Waits for `changed` if it runs; it does not run again. REQUIRES: not from within `changed`.
  ~FileWatcher() = default;
  FileWatcher(const FileWatcher&) = delete;
  FileWatcher& operator=(const FileWatcher&) = delete;

 private:
  FileWatcher(std::vector<std::filesystem::path> files, std::function<void()> changed)
      : files_(std::move(files)), changed_(std::move(changed)) {}
  std::vector<std::filesystem::path> Folders() const;
  void Look();

  const std::vector<std::filesystem::path> files_;  // absolute
  const std::function<void()> changed_;
  std::vector<std::optional<std::string>> contents_;  // of each; confined to the folders' watcher, once that runs
  std::unique_ptr<FolderWatcher> folders_;
};

}  // namespace hearth
