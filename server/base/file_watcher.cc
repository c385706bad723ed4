#include "server/base/file_watcher.h"

#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <system_error>
#include <utility>

#include "server/base/strings.h"

namespace hearth {
namespace {

namespace fs = std::filesystem;

constexpr std::uint32_t kEvents =
    IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_CREATE | IN_DELETE | IN_ONLYDIR;

// What was reported does not matter, only that something was.
void Drain(int fd) {
  std::array<char, 4096> ignored;
  while (::read(fd, ignored.data(), ignored.size()) > 0) {
  }
}

}  // namespace

void FileWatcher::Wake::Ring() const {
  const std::uint64_t one = 1;
  (void)!::write(fd.get(), &one, sizeof one);  // fails only when it has been rung 2^64 times
}

absl::StatusOr<std::unique_ptr<FileWatcher>> FileWatcher::Start(fs::path file, Timer& timer, const Clock& clock,
                                                                Options options, std::function<void()> changed) {
  std::error_code error;
  const fs::path absolute = fs::absolute(file, error);
  if (error) return ErrnoStatus(error.value(), StrCat("cannot watch ", file.string()));
  std::unique_ptr<FileWatcher> watcher(new FileWatcher(absolute, timer, clock, options, std::move(changed)));
  HEARTH_RETURN_IF_ERROR(watcher->Open());
  HEARTH_RETURN_IF_ERROR(watcher->Watch());
  watcher->content_ = watcher->Read();
  watcher->thread_ = std::thread([w = watcher.get()] { w->Loop(); });
  pthread_setname_np(watcher->thread_.native_handle(), "watch");
  return watcher;
}

FileWatcher::FileWatcher(fs::path file, Timer& timer, const Clock& clock, Options options,
                         std::function<void()> changed)
    : file_(std::move(file)), timer_(timer), clock_(clock), options_(options), changed_(std::move(changed)) {}

FileWatcher::~FileWatcher() {
  if (!thread_.joinable()) return;
  wake_->stop = true;
  wake_->Ring();
  thread_.join();
}

absl::Status FileWatcher::Open() {
  inotify_ = UniqueFd(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
  if (!inotify_) return ErrnoStatus(errno, "cannot watch files (see fs.inotify.max_user_instances)");
  wake_->fd = UniqueFd(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  if (!wake_->fd) return ErrnoStatus(errno, "cannot watch files");
  return absl::OkStatus();
}

// The folders as they are now: where the links lead may have changed.
absl::Status FileWatcher::Watch() {
  const fs::path folder = file_.parent_path();
  const int own = ::inotify_add_watch(inotify_.get(), folder.c_str(), kEvents);
  if (own < 0) {
    return ErrnoStatus(errno, StrCat("cannot watch ", folder.string(), " (see fs.inotify.max_user_watches)"));
  }
  std::set<int> watches = {own};
  std::error_code error;
  const fs::path target = fs::canonical(file_, error);
  if (!error) {
    const int there = ::inotify_add_watch(inotify_.get(), target.parent_path().c_str(), kEvents);
    if (there >= 0) watches.insert(there);
  }
  for (const int old : watches_) {
    if (!watches.contains(old)) ::inotify_rm_watch(inotify_.get(), old);
  }
  watches_ = std::move(watches);
  return absl::OkStatus();
}

void FileWatcher::Loop() {
  std::array<pollfd, 2> fds = {{{inotify_.get(), POLLIN, 0}, {wake_->fd.get(), POLLIN, 0}}};
  while (true) {
    if (::poll(fds.data(), fds.size(), -1) < 0) continue;  // EINTR
    if (wake_->stop) return;
    if (fds[0].revents != 0) {
      Drain(inotify_.get());
      LookSoon();
    }
    if (fds[1].revents != 0) {
      Drain(wake_->fd.get());
      if (wake_->look.exchange(false)) Look();
    }
  }
}

// Counted from the first report: in a folder in which something always happens the last one never comes.
void FileWatcher::LookSoon() {
  if (std::exchange(looking_soon_, true)) return;
  timer_.At(clock_.Now() + options_.settle, [wake = wake_] {
    wake->look = true;
    wake->Ring();
  });
}

void FileWatcher::Look() {
  looking_soon_ = false;
  (void)Watch();  // the folder may be gone; it is as it was then
  std::optional<std::string> content = Read();
  if (!content || content == content_) return;
  content_ = std::move(content);
  changed_();
}

std::optional<std::string> FileWatcher::Read() const {
  std::ifstream in(file_, std::ios::binary);
  if (!in) return std::nullopt;
  std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  if (in.bad()) return std::nullopt;
  return text;
}

}  // namespace hearth
