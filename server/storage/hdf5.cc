#include "server/storage/hdf5.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <system_error>
#include <utility>
#include <vector>

#include "server/base/bytes.h"
#include "server/base/unique_fd.h"

namespace hearth {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kMagic = "\x89HDF\r\n\x1a\n";
constexpr int kListerFile = 3;       // the lister's descriptor of the file to list
constexpr int kFirstFree = 16;       // above the descriptors that the lister starts with
constexpr int kCannotStart = 127;    // how a program ends whose libraries are missing
constexpr std::size_t kReadBytes = 256 << 10;

absl::Status Bad(std::string_view what) { return absl::InvalidArgumentError(std::string(what)); }

absl::Status NotInstalled(const fs::path& lister, std::string_view why) {
  return absl::FailedPreconditionError(
      StrCat("is an HDF5 file, and '", lister.filename().string(), "', which lists those, cannot be run (", why,
             "); install it beside hearthd, with libhdf5"));
}

// Killed and waited for, unless it ended before.
class Child {
 public:
  explicit Child(pid_t pid) : pid_(pid) {}
  ~Child() { (void)End(); }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  // Its wait status. One that has closed its output is ending, and keeps the status it ends with.
  int End() {
    if (pid_ <= 0) return status_;
    ::kill(pid_, SIGKILL);
    while (::waitpid(pid_, &status_, 0) < 0 && errno == EINTR) {
    }
    pid_ = -1;
    return status_;
  }

 private:
  pid_t pid_;
  int status_ = 0;  // stays so where children are not waited for (SIGCHLD is ignored)
};

// The settings of a child: nothing of this process but two descriptors and its working directory.
class Spawn {
 public:
  Spawn() {
    ::posix_spawn_file_actions_init(&actions_);
    ::posix_spawnattr_init(&attributes_);
    sigset_t all, none;
    sigfillset(&all);
    sigemptyset(&none);
    // hearthd blocks and ignores some, and a child would inherit that. Of a group of its own, it does not
    // see the Ctrl-C that lets hearthd finish what it is doing.
    ::posix_spawnattr_setsigdefault(&attributes_, &all);
    ::posix_spawnattr_setsigmask(&attributes_, &none);
    ::posix_spawnattr_setpgroup(&attributes_, 0);
    ::posix_spawnattr_setflags(&attributes_,
                               POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETPGROUP);
  }
  ~Spawn() {
    ::posix_spawn_file_actions_destroy(&actions_);
    ::posix_spawnattr_destroy(&attributes_);
  }
  Spawn(const Spawn&) = delete;
  Spawn& operator=(const Spawn&) = delete;

  // An errno, or 0.
  int Start(const fs::path& program, int file, int output, pid_t& pid) {
    ::posix_spawn_file_actions_addopen(&actions_, 0, "/dev/null", O_RDONLY, 0);
    ::posix_spawn_file_actions_adddup2(&actions_, output, 1);
    ::posix_spawn_file_actions_addopen(&actions_, 2, "/dev/null", O_WRONLY, 0);
    ::posix_spawn_file_actions_adddup2(&actions_, file, kListerFile);
    ::posix_spawn_file_actions_addclosefrom_np(&actions_, kListerFile + 1);
    std::string name = program.string();
    // HDF5 has variables that change what it does; of ours, only where libraries lie is its concern.
    std::string libraries;
    if (const char* path = std::getenv("LD_LIBRARY_PATH")) libraries = StrCat("LD_LIBRARY_PATH=", path);
    char* const arguments[] = {name.data(), nullptr};
    char* const environment[] = {libraries.empty() ? nullptr : libraries.data(), nullptr};
    return ::posix_spawn(&pid, name.c_str(), &actions_, &attributes_, arguments, environment);
  }

 private:
  posix_spawn_file_actions_t actions_;
  posix_spawnattr_t attributes_;
};

// A copy that none of the lister's own descriptors can be.
UniqueFd CopyAbove(int descriptor) { return UniqueFd(::fcntl(descriptor, F_DUPFD_CLOEXEC, kFirstFree)); }

// All of it, until whoever writes has closed it.
absl::StatusOr<std::string> ReadToEnd(int pipe, const hdf5_internal::ListerLimits& limits) {
  const auto deadline = std::chrono::steady_clock::now() + limits.time;
  std::string text;
  std::vector<char> buffer(kReadBytes);
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    ::pollfd wait{.fd = pipe, .events = POLLIN, .revents = 0};
    const int ready = left.count() <= 0 ? 0 : ::poll(&wait, 1, static_cast<int>(left.count()));
    if (ready < 0 && errno == EINTR) continue;
    if (ready < 0) return ErrnoStatus(errno, "cannot be listed");
    if (ready == 0) {
      return Bad(StrCat("cannot be listed: hearth-hdf5-list was not done after ", ToSeconds(limits.time),
                        " s; is the file damaged, or the disk slow?"));
    }
    const ::ssize_t got = ::read(pipe, buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return ErrnoStatus(errno, "cannot be listed");
    if (got == 0) return text;
    text.append(buffer.data(), static_cast<std::size_t>(got));
    if (text.size() > limits.bytes) {
      return Bad(StrCat("cannot be listed: it takes more than ", FormatBytes(limits.bytes),
                        " to say what lies where; write it with larger chunks"));
    }
  }
}

// How it ended, where it did not come to its end.
absl::Status Outcome(const fs::path& lister, int status) {
  if (WIFEXITED(status) && WEXITSTATUS(status) == kCannotStart) {
    return NotInstalled(lister, "its libraries are missing");
  }
  if (!WIFSIGNALED(status)) return absl::OkStatus();  // it has said what there is to say
  if (WTERMSIG(status) == SIGXCPU) {
    return Bad("cannot be listed: libhdf5 took too long; the file is damaged, or has too many chunks");
  }
  return Bad(StrCat("cannot be listed: libhdf5 did not survive it (signal ", WTERMSIG(status),
                    "); the file is damaged"));
}

// Whether the last line is the one that a list ends with.
bool IsWhole(std::string_view listing) {
  constexpr std::string_view kEnd = "{\"end\":";
  if (listing.empty()) return false;
  listing.remove_suffix(listing.back() == '\n' ? 1 : 0);
  const std::size_t line = listing.rfind('\n');
  return listing.substr(line == listing.npos ? 0 : line + 1).starts_with(kEnd);
}

}  // namespace

absl::StatusOr<std::string> hdf5_internal::RunLister(const fs::path& lister, int descriptor,
                                                     const ListerLimits& limits) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return ErrnoStatus(errno, "cannot be listed");
  const UniqueFd from(ends[0]);
  UniqueFd to(ends[1]);
  pid_t pid = -1;
  {
    const UniqueFd file = CopyAbove(descriptor), output = CopyAbove(to.get());
    if (!file || !output) return ErrnoStatus(errno, "cannot be listed");
    if (const int error = Spawn().Start(lister, file.get(), output.get(), pid); error != 0) {
      return NotInstalled(lister, std::strerror(error));
    }
  }
  Child child(pid);
  to.Reset();
  HEARTH_ASSIGN_OR_RETURN(std::string listing, ReadToEnd(from.get(), limits));
  const int status = child.End();
  if (!IsWhole(listing)) HEARTH_RETURN_IF_ERROR(Outcome(lister, status));
  return listing;
}

bool LooksLikeHdf5(std::span<const std::byte> file) { return StartsWith(file, kMagic); }

fs::path Hdf5ListerBesideProgram() {
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  return program.parent_path() / "hearth-hdf5-list";
}

absl::StatusOr<Weights> ReadHdf5(const std::shared_ptr<const MappedFile>& file, const fs::path& lister) {
  HEARTH_ASSIGN_OR_RETURN(const std::string listing, hdf5_internal::RunLister(lister, file->descriptor(), {}));
  HEARTH_ASSIGN_OR_RETURN(Weights weights, hdf5_internal::ParseListing(listing, file->bytes()));
  for (WeightStorage& storage : weights.storages) storage.file = file;
  return weights;
}

}  // namespace hearth
