#include "server/storage/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "server/base/bytes.h"
#include "server/storage/file_id.h"
#include "server/storage/sealed_copy.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif
#ifndef MLOCK_ONFAULT
#define MLOCK_ONFAULT 1
#endif

namespace hearth {

std::string ShortName(const std::filesystem::path& path) {
  std::filesystem::path name = path.filename();
  std::filesystem::path folder = path.parent_path();
  for (int i = 0; i < 2 && folder.has_filename(); ++i, folder = folder.parent_path()) {
    name = folder.filename() / name;
  }
  return name.string();
}

absl::Status AboutFile(const std::filesystem::path& path, const absl::Status& status) {
  return absl::Status(status.code(), StrCat("'", ShortName(path), "' ", FromAbsl(status.message())));
}

namespace {

constexpr std::uint64_t kReadStep = 1ULL << 20;
constexpr std::uint64_t kColdShare = 32;  // a file with less than one part in so many in the page cache is cold
constexpr long kCachestat = 451;                   // the system call's number on every architecture

absl::Status OpenError(int error_number, const std::string& path) {
  switch (error_number) {
    case ENOENT:
    case ENOTDIR:
      return absl::NotFoundError(StrCat("'", path, "' does not exist"));
    case EACCES:
    case EPERM:
      return absl::PermissionDeniedError(
          StrCat("'", path,
                 "' may not be read by this process; check its owner and mode, and those of "
                 "the folders above it"));
    case ENXIO:  // a socket, or a FIFO nobody writes to
      return absl::InvalidArgumentError(StrCat("'", path, "' is not a regular file"));
    default:
      return ErrnoStatus(error_number, StrCat("'", path, "' cannot be opened"));
  }
}

absl::Status NotAFile(const struct stat& st, const std::string& path) {
  if (S_ISDIR(st.st_mode)) {
    return absl::InvalidArgumentError(StrCat("'", path, "' is a folder, not a file"));
  }
  if (!S_ISREG(st.st_mode)) {
    return absl::InvalidArgumentError(StrCat("'", path, "' is not a regular file"));
  }
  return absl::OkStatus();
}

struct OpenFile {
  UniqueFd fd;
  struct stat st {};
};

absl::StatusOr<OpenFile> OpenRegularFile(const std::filesystem::path& path) {
  const std::string name = ShortName(path);
  OpenFile file;
  // Non-blocking, for a FIFO would otherwise wait for its other end.
  file.fd = UniqueFd(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY));
  if (!file.fd || ::fstat(file.fd.get(), &file.st) != 0) return OpenError(errno, name);
  HEARTH_RETURN_IF_ERROR(NotAFile(file.st, name));
  return file;
}

absl::Status Lost(const std::filesystem::path& path, std::uint64_t offset) {
  return absl::DataLossError(
      StrCat("'", ShortName(path), "' cannot be read at byte ", offset,
             ": it was cut short while in use, or the disk failed; replace model "
             "files by renaming a new one over them, never by writing into them"));
}

// Mapped is not touched: the disk wrote these pages, and in a virtual machine the first touch by a processor
// faults once more, outside, at a microsecond a page. Here it runs beside the disk's next reads.
void TouchPages(const std::byte* data, std::size_t size, std::size_t page) {
  for (std::size_t at = 0; at < size; at += page) {
    static_cast<void>(*static_cast<const volatile std::byte*>(data + at));
  }
}

absl::StatusOr<OpenFile> OpenContent(const std::filesystem::path& path) {
  HEARTH_ASSIGN_OR_RETURN(OpenFile file, OpenRegularFile(path));
  if (file.st.st_size > 0) return file;
  return absl::InvalidArgumentError(
      StrCat("'", ShortName(path), "' is empty; was it copied before it was written?"));
}

}  // namespace

absl::StatusOr<std::shared_ptr<const MappedFile>> MappedFile::Open(
    const std::filesystem::path& path, AfterUse after_use) {
  HEARTH_ASSIGN_OR_RETURN(OpenFile file, OpenContent(path));
  return Map(path, std::move(file.fd), FileIdOf(file.st), Access::kShared, after_use);
}

absl::StatusOr<std::shared_ptr<const MappedFile>> MappedFile::OpenSealed(const std::filesystem::path& path,
                                                                         std::stop_token stop) {
  HEARTH_ASSIGN_OR_RETURN(OpenFile file, OpenContent(path));
  HEARTH_ASSIGN_OR_RETURN(UniqueFd copy, SealedCopy(file.fd.get(), FileIdOf(file.st).size, path, stop));
  struct stat after {}, copied {};
  if (::fstat(file.fd.get(), &after) != 0 || ::fstat(copy.get(), &copied) != 0) {
    return ErrnoStatus(errno, StrCat("'", ShortName(path), "' cannot be examined"));
  }
  if (FileIdOf(after) != FileIdOf(file.st)) {
    return absl::DataLossError(StrCat("'", ShortName(path),
                                      "' was written to while it was copied; replace model files by renaming a "
                                      "new one over them"));
  }
  return Map(path, std::move(copy), FileIdOf(copied), Access::kShared, AfterUse::kLeaveCached);
}

absl::StatusOr<std::shared_ptr<const MappedFile>> MappedFile::MapAgain(Access access) const {
  const int fd = ::fcntl(fd_.get(), F_DUPFD_CLOEXEC, 0);
  if (fd < 0) return ErrnoStatus(errno, StrCat("'", ShortName(path_), "' cannot be mapped again"));
  return Map(path_, UniqueFd(fd), id_, access, after_use_);
}

absl::StatusOr<std::shared_ptr<const MappedFile>> MappedFile::Map(const std::filesystem::path& path,
                                                                  UniqueFd fd, FileId id, Access access,
                                                                  AfterUse after_use) {
  const auto size = static_cast<std::size_t>(id.size);
  const bool own = access == Access::kOwn;
  void* data = ::mmap(nullptr, size, own ? PROT_READ | PROT_WRITE : PROT_READ,
                      MAP_PRIVATE | MAP_NORESERVE, fd.get(), 0);
  if (data == MAP_FAILED) {
    const int error_number = errno;
    return ErrnoStatus(error_number, StrCat("'", ShortName(path), "' (", FormatBytes(id.size),
                                            ") cannot be mapped into memory"));
  }
  std::shared_ptr<MappedFile> file(
      new MappedFile(path, std::move(fd), id, Mapping(static_cast<std::byte*>(data), Unmap{size}), after_use));
  HEARTH_RETURN_IF_ERROR(file->guard_.Protect(
      data, size, own ? MappingGuard::Writes::kFree : MappingGuard::Writes::kNoted));
  return std::shared_ptr<const MappedFile>(std::move(file));
}

void MappedFile::Unmap::operator()(std::byte* data) const { ::munmap(data, size); }

MappedFile::MappedFile(std::filesystem::path path, UniqueFd fd, FileId id, Mapping mapping, AfterUse after_use)
    : path_(std::move(path)),
      fd_(std::move(fd)),
      id_(id),
      size_(static_cast<std::size_t>(id.size)),
      mapping_(std::move(mapping)),
      data_(mapping_.get()),
      after_use_(after_use) {}

MappedFile::Use::Use(std::shared_ptr<const MappedFile> file, std::vector<ByteRange> ranges)
    : file_(std::move(file)), ranges_(std::move(ranges)) {
  MutexLock lock(file_->mu_);
  for (const ByteRange& range : ranges_) file_->uses_.Add(range, first_);
}

MappedFile::Use& MappedFile::Use::operator=(Use&& other) noexcept {
  if (this == &other) return *this;
  Release();
  file_ = std::move(other.file_);
  ranges_ = std::move(other.ranges_);
  first_ = std::move(other.first_);
  locked_ = std::move(other.locked_);
  return *this;
}

void MappedFile::Use::Release() {
  if (file_ == nullptr) return;  // moved from
  Unlock();  // what is locked cannot be dropped
  std::vector<ByteRange> last;
  {
    MutexLock lock(file_->mu_);
    for (const ByteRange& range : ranges_) file_->uses_.Remove(range, last);
  }
  for (const ByteRange& range : last) file_->Drop(range);
  if (!last.empty() && file_->after_use_ == AfterUse::kDropCached) {
    // Of the whole file: the page cache holds many pages as one, and gives them back only together. What
    // somebody has mapped stays.
    ::posix_fadvise(file_->fd_.get(), 0, 0, POSIX_FADV_DONTNEED);
  }
  file_.reset();
}

absl::Status MappedFile::Use::Lock() {
  const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  std::vector<ByteRange> pages;
  for (const ByteRange& range : ranges_) {
    if (range.size() > 0) pages.push_back({range.begin / page * page, (range.end + page - 1) / page * page});
  }
  HEARTH_RETURN_IF_ERROR(file_->LockPages(pages));
  locked_ = std::move(pages);
  return absl::OkStatus();
}

void MappedFile::Use::Unlock() {
  if (locked_.empty()) return;
  MutexLock lock(file_->mu_);
  file_->UnlockPages(std::exchange(locked_, {}));
}

// On fault: an ordinary lock would copy every page of a mapping that is writable, or becomes so. It reads
// nothing, so it may happen under the lock, and has to: the pages must not be unlocked by another in between.
absl::Status MappedFile::LockPages(const std::vector<ByteRange>& pages) const {
  MutexLock lock(mu_);
  std::vector<ByteRange> first;
  for (const ByteRange& range : pages) locks_.Add(range, first);
  for (const ByteRange& range : first) {
    if (::syscall(SYS_mlock2, data_ + range.begin, range.size(), MLOCK_ONFAULT) == 0) continue;
    const int error_number = errno;
    UnlockPages(pages);
    return absl::ResourceExhaustedError(
        StrCat("'", ShortName(path_), "' cannot be locked in memory (", std::strerror(error_number),
               "); raise the limit of locked memory: LimitMEMLOCK= of a systemd unit, --ulimit memlock= of a "
               "container, ulimit -l of a shell, or give hearthd CAP_IPC_LOCK"));
  }
  return absl::OkStatus();
}

void MappedFile::UnlockPages(const std::vector<ByteRange>& pages) const {
  std::vector<ByteRange> last;
  for (const ByteRange& range : pages) locks_.Remove(range, last);
  // As system calls both, for sanitizers take the functions out.
  for (const ByteRange& range : last) ::syscall(SYS_munlock, data_ + range.begin, range.size());
}

// Whole pages alone: others may use the ones at the ends. Whoever comes to use them again meanwhile
// finds them in the page cache, or reads them anew.
void MappedFile::Drop(const ByteRange& range) const {
  const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  const std::uint64_t begin = (range.begin + page - 1) / page * page;
  const std::uint64_t end = range.end == size_ ? (range.end + page - 1) / page * page : range.end / page * page;
  if (begin < end) ::madvise(data_ + begin, static_cast<std::size_t>(end - begin), MADV_DONTNEED);
}

absl::Status MappedFile::Populate(std::uint64_t offset, std::uint64_t length,
                                  std::stop_token stop, ReadAhead* ahead) const {
  if (offset >= size_ || length == 0) return absl::OkStatus();
  const std::uint64_t end = offset + std::min<std::uint64_t>(length, size_ - offset);
  const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  std::uint64_t at = offset / page * page;
  if (ahead != nullptr) ahead->Advance(0);
  while (at < end) {
    if (stop.stop_requested()) return absl::CancelledError("stopped while reading the file");
    const std::uint64_t step = std::min(ReadAhead::kWindow, end - at);
    if (::madvise(data_ + at, static_cast<std::size_t>(step), MADV_POPULATE_READ) == 0) {
      if (ahead != nullptr) {
        ahead->Advance(step);
        TouchPages(data_ + at, static_cast<std::size_t>(step), page);
      }
      if (poisoned()) return Lost(path_, at);
      at += step;
      continue;
    }
    switch (errno) {
      case EINTR:
      case EAGAIN:
        continue;
      case EINVAL:  // a kernel that does not know the advice
      case ENOSYS:
        return mapped_file_internal::PopulateByReading(fd_.get(), at, end - at, path_,
                                                       std::move(stop));
      case ENOMEM:
        return absl::ResourceExhaustedError(
            StrCat("out of memory while reading '", ShortName(path_), "'"));
      default:  // EFAULT, EHWPOISON: no page there
        return Lost(path_, at);
    }
  }
  return absl::OkStatus();
}

void MappedFile::ReadSoon() const {
  const std::uint64_t length = std::min<std::uint64_t>(size_, ReadAhead::kAhead);
  const std::uint64_t cached = CachedBytes(0, length);
  if (cached >= length) return;
  soon_.store(length - cached, std::memory_order_relaxed);
  ReadAhead(fd_.get(), {0, length}).Advance(0);
}

// Only advice: that a kernel may not take it changes nothing but time.
MappedFile::Scattered::Scattered(const MappedFile& file) : file_(file) {
  if (file.in_use() || file.CachedBytes(0, file.size_) >= file.size_ / kColdShare) return;
  if (file.size_ <= ReadAhead::kAhead) {
    file.ReadSoon();
    return;
  }
  alone_ = true;
  ::madvise(file_.data_, file_.size_, MADV_RANDOM);
}

MappedFile::Scattered::~Scattered() {
  if (!alone_) return;
  ::madvise(file_.data_, file_.size_, MADV_NORMAL);
  MutexLock lock(file_.mu_);  // nobody's use begins meanwhile
  if (!file_.uses_.empty()) return;
  file_.Drop({0, file_.size_});
  ::posix_fadvise(file_.fd_.get(), 0, 0, POSIX_FADV_DONTNEED);
}

bool MappedFile::in_use() const {
  MutexLock lock(mu_);
  return !uses_.empty();
}

std::uint64_t MappedFile::CachedBytes(std::uint64_t offset, std::uint64_t length) const {
  if (offset >= size_ || length == 0) return 0;
  length = std::min<std::uint64_t>(length, size_ - offset);
  const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  struct Range {
    std::uint64_t offset, length;
  } range{offset, length};
  struct Counts {
    std::uint64_t cached, dirty, writeback, evicted, recently_evicted;
  } counts{};
  if (::syscall(kCachestat, fd_.get(), &range, &counts, 0) == 0) {
    return std::min(counts.cached * page, length);
  }
  // Before Linux 6.5.
  const std::uint64_t begin = offset / page * page;
  std::vector<unsigned char> resident((offset + length - begin + page - 1) / page);
  if (::mincore(data_ + begin, static_cast<std::size_t>(offset + length - begin), resident.data()) != 0) return 0;
  const auto pages = std::count_if(resident.begin(), resident.end(), [](unsigned char c) { return (c & 1) != 0; });
  return std::min(static_cast<std::uint64_t>(pages) * page, length);
}

absl::StatusOr<std::string> ReadSmallFile(const std::filesystem::path& path,
                                          std::size_t max_bytes) {
  HEARTH_ASSIGN_OR_RETURN(const OpenFile file, OpenRegularFile(path));
  // As large as it says, and a byte to see the end by; it may grow meanwhile.
  std::string text(std::min(static_cast<std::size_t>(file.st.st_size), max_bytes) + 1, '\0');
  std::size_t size = 0;
  while (true) {
    if (size == text.size()) {
      if (size > max_bytes) break;
      text.resize(std::min(2 * size, max_bytes + 1));
    }
    const ::ssize_t got = ::read(file.fd.get(), text.data() + size, text.size() - size);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return ErrnoStatus(errno, StrCat("'", ShortName(path), "' cannot be read"));
    if (got == 0) break;
    size += static_cast<std::size_t>(got);
  }
  if (size > max_bytes) {
    return absl::InvalidArgumentError(
        StrCat("'", ShortName(path), "' is larger than ", FormatBytes(max_bytes)));
  }
  text.resize(size);
  return text;
}

absl::Status mapped_file_internal::PopulateByReading(int fd, std::uint64_t offset,
                                                     std::uint64_t length,
                                                     const std::filesystem::path& path,
                                                     std::stop_token stop) {
  std::vector<std::byte> scratch(static_cast<std::size_t>(std::min(kReadStep, length)));
  const std::uint64_t end = offset + length;
  while (offset < end) {
    if (stop.stop_requested()) return absl::CancelledError("stopped while reading the file");
    const auto want =
        static_cast<std::size_t>(std::min<std::uint64_t>(scratch.size(), end - offset));
    const ::ssize_t got = ::pread(fd, scratch.data(), want, static_cast<::off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return Lost(path, offset);
    offset += static_cast<std::uint64_t>(got);
  }
  return absl::OkStatus();
}

absl::Status MappedFile::Intact() const {
  struct stat st {};
  if (::fstat(fd_.get(), &st) != 0) {
    return ErrnoStatus(errno, StrCat("'", ShortName(path_), "' cannot be examined"));
  }
  const FileId now = FileIdOf(st);
  if (damaged_.load(std::memory_order_relaxed)) {
    return absl::DataLossError(StrCat("'", ShortName(path_), "' was found damaged while in use"));
  }
  if (now == id_ && !poisoned()) return absl::OkStatus();
  std::string what = poisoned() ? "cut short while in use" : "written to while in use";
  if (now.size < id_.size) what = StrCat("cut short while in use, from ", id_.size, " to ", now.size, " bytes");
  return absl::DataLossError(StrCat("'", ShortName(path_), "' was ", what,
                                    "; replace model files by renaming a new one over them"));
}

absl::Status MappedFile::Unchanged() const {
  HEARTH_RETURN_IF_ERROR(Intact());
  const std::string name = ShortName(path_);
  struct stat st {};
  if (::stat(path_.c_str(), &st) != 0) return OpenError(errno, name);
  const FileId there = FileIdOf(st);
  if (there.device != id_.device || there.inode != id_.inode) {
    return absl::FailedPreconditionError(
        StrCat("'", name, "' has been replaced since it was opened"));
  }
  return absl::OkStatus();
}

}  // namespace hearth
