#include "server/base/folder_watcher.h"

#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <utility>

#include "server/base/strings.h"

namespace hearth {
namespace {

constexpr std::uint32_t kEvents =
    IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_CREATE | IN_DELETE | IN_ONLYDIR;

void Drain(int fd) {
  std::array<char, 4096> ignored;
  while (::read(fd, ignored.data(), ignored.size()) > 0) {
  }
}

}  // namespace

void FolderWatcher::Wake::Ring() const {
  const std::uint64_t one = 1;
  (void)!::write(fd.get(), &one, sizeof one);  // fails only when it has been rung 2^64 times
}

absl::StatusOr<std::unique_ptr<FolderWatcher>> FolderWatcher::Start(Folders folders, Timer& timer, const Clock& clock,
                                                                    Options options,
                                                                    std::function<void(const absl::Status&)> changed) {
  std::unique_ptr<FolderWatcher> watcher(
      new FolderWatcher(std::move(folders), timer, clock, options, std::move(changed)));
  HEARTH_RETURN_IF_ERROR(watcher->Open());
  HEARTH_RETURN_IF_ERROR(watcher->Watch());
  watcher->thread_ = std::thread([w = watcher.get()] { w->Loop(); });
  pthread_setname_np(watcher->thread_.native_handle(), "watch");
  return watcher;
}

FolderWatcher::FolderWatcher(Folders folders, Timer& timer, const Clock& clock, Options options,
                             std::function<void(const absl::Status&)> changed)
    : folders_(std::move(folders)), timer_(timer), clock_(clock), options_(options), changed_(std::move(changed)) {}

FolderWatcher::~FolderWatcher() {
  if (!thread_.joinable()) return;
  wake_->stop = true;
  wake_->Ring();
  thread_.join();
}

absl::Status FolderWatcher::Open() {
  inotify_ = UniqueFd(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
  if (!inotify_) return ErrnoStatus(errno, "cannot watch files (see fs.inotify.max_user_instances)");
  wake_->fd = UniqueFd(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  if (!wake_->fd) return ErrnoStatus(errno, "cannot watch files");
  return absl::OkStatus();
}

absl::Status FolderWatcher::Watch() {
  absl::Status status;
  std::set<int> watches;
  for (const std::filesystem::path& folder : folders_()) {
    const int watch = ::inotify_add_watch(inotify_.get(), folder.c_str(), kEvents);
    if (watch >= 0) {
      watches.insert(watch);
    } else if (status.ok()) {
      status = ErrnoStatus(errno, StrCat("cannot watch ", folder.string(), " (see fs.inotify.max_user_watches)"));
    }
  }
  for (const int old : watches_) {
    if (!watches.contains(old)) ::inotify_rm_watch(inotify_.get(), old);
  }
  watches_ = std::move(watches);
  return status;
}

void FolderWatcher::Loop() {
  std::array<pollfd, 2> fds = {{{inotify_.get(), POLLIN, 0}, {wake_->fd.get(), POLLIN, 0}}};
  while (true) {
    if (::poll(fds.data(), fds.size(), -1) < 0) continue;  // EINTR
    if (wake_->stop) return;
    if (fds[0].revents != 0) {
      Drain(inotify_.get());
      TellSoon();
    }
    if (fds[1].revents != 0) {
      Drain(wake_->fd.get());
      if (!wake_->tell.exchange(false)) continue;
      telling_soon_ = false;
      changed_(Watch());
    }
  }
}

// Counted from the first report: in a folder in which something always happens the last one never comes.
void FolderWatcher::TellSoon() {
  if (std::exchange(telling_soon_, true)) return;
  timer_.At(clock_.Now() + options_.settle, [wake = wake_] {
    wake->tell = true;
    wake->Ring();
  });
}

}  // namespace hearth
