// A whole file in memory without reading it.
//
// The mapping is private: pages come from the page cache and are shared by every process that maps
// the file, until something writes to one, which then gets a copy of that page alone. No swap is set
// aside for such copies (MAP_NORESERVE); a 64 GiB file maps on a small machine.
//
// Whoever holds bytes of the mapping holds the shared_ptr. A page that a later truncation took away
// reads as zeros (mapping_guard.h) and leaves the mapping poisoned(); Populate() reports it as
// DATA_LOSS.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "server/base/mutex.h"
#include "server/base/status.h"
#include "server/base/unique_fd.h"
#include "server/model/footprint.h"
#include "server/storage/mapping_guard.h"
#include "server/storage/range_uses.h"
#include "server/storage/read_ahead.h"

namespace hearth {

// A file as messages call it: the last three parts of its path, "vad/1/model.pt". Messages reach
// clients, whom the folders of this machine do not concern.
std::string ShortName(const std::filesystem::path& path);

// The readers of formats word their refusals as sentences that begin with the file: this puts it there.
// REQUIRES: `status` is not OK.
absl::Status AboutFile(const std::filesystem::path& path, const absl::Status& status);

// Thread-safe (what callers write into mutable_data() is theirs to guard).
class MappedFile {
 public:
  // kShared: for any number of models. A write goes through, but written() tells of it.
  // kOwn: for one model, which may write as it likes.
  enum class Access : std::uint8_t { kShared, kOwn };

  // What becomes of pages in the page cache whose last use ends: see Use.
  enum class AfterUse : std::uint8_t { kLeaveCached, kDropCached };

  // For kShared use. Follows symbolic links. NOT_FOUND, PERMISSION_DENIED; INVALID_ARGUMENT for an
  // empty file and for what is not a regular file (a FIFO does not block).
  static absl::StatusOr<std::shared_ptr<const MappedFile>> Open(const std::filesystem::path& path,
                                                                AfterUse after_use = AfterUse::kLeaveCached);

  // A copy of the file in memory that nothing can change, not even this process: what happens to the
  // file, or to where it lies, does not matter any more. Its id() is of its own. The refusals of Open();
  // CANCELLED; DATA_LOSS when the file changes meanwhile; RESOURCE_EXHAUSTED.
  static absl::StatusOr<std::shared_ptr<const MappedFile>> OpenSealed(const std::filesystem::path& path,
                                                                      std::stop_token stop);

  // The same bytes at another address, with none of the writes made to this mapping.
  absl::StatusOr<std::shared_ptr<const MappedFile>> MapAgain(Access access) const;

  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  // Writes stay in this process. A system call cannot write to a kShared mapping: EFAULT.
  std::byte* mutable_data() const { return data_; }
  std::size_t size() const { return size_; }
  int descriptor() const { return fd_.get(); }  // open for reading, as long as this lives
  const std::filesystem::path& path() const { return path_; }
  const FileId& id() const { return id_; }  // as it was when opened
  Extent extent(std::uint64_t offset, std::uint64_t length) const { return {id_, offset, length}; }

  // Brings the pages of a range into memory and maps them, so that the first request does not wait
  // for the disk. At most a window of ReadAhead's at a time, because the process's memory map is locked meanwhile;
  // between two steps `stop` is looked at. The range is cut off at the end of the file. CANCELLED;
  // DATA_LOSS when the file has become shorter or cannot be read; RESOURCE_EXHAUSTED.
  //
  // `ahead`: is told how far this is. For what is not in the page cache. REQUIRES: its next part is
  // this range.
  absl::Status Populate(std::uint64_t offset, std::uint64_t length, std::stop_token stop,
                        ReadAhead* ahead = nullptr) const;

  // Has the disk begin with the file, as far as ReadAhead::kAhead, for somebody who reads or populates it soon; what
  // comes before that happens meanwhile.
  void ReadSoon() const;
  // How much of that was not in the page cache when it was asked for, though CachedBytes() may say now that it is; and
  // forgets it. For whoever tells cold files from warm ones.
  std::uint64_t TakeSoon() const { return soon_.exchange(0, std::memory_order_relaxed); }

  // While it lasts, a page that is not in the page cache is read alone, without those around it. For looks at
  // many places far apart, like the headers of an archive's records: each would otherwise read megabytes. A small
  // file is read as a whole instead: ReadSoon().
  // Where the file was cold and nobody uses it, those pages leave the page cache at the end: Linux reads ahead
  // around single pages that are there already at half the disk's speed (measured, 24 pages in 384 MiB).
  class Scattered {
   public:
    explicit Scattered(const MappedFile& file);
    ~Scattered();
    Scattered(const Scattered&) = delete;
    Scattered& operator=(const Scattered&) = delete;

   private:
    const MappedFile& file_;
    bool alone_ = false;  // pages are read so
  };

  // How much of a range is in the page cache: cold or warm, to within a page at its ends. 0 where the
  // kernel does not say.
  std::uint64_t CachedBytes(std::uint64_t offset, std::uint64_t length) const;

  // Whether the mapped file itself is as it was opened, by its size and the time of its last change:
  // DATA_LOSS when it was cut short or written to, for its bytes are not to be trusted then. One cheap
  // system call; for after each run.
  absl::Status Intact() const;

  // The same, and whether the path still leads to it.
  //   DATA_LOSS            the mapped file itself was cut short or written to: its bytes are not to
  //   be
  //                        trusted
  //   FAILED_PRECONDITION  the path names another file by now; the mapped bytes are the old ones,
  //   whole NOT_FOUND            the path is gone; likewise
  absl::Status Unchanged() const;

  // A read has found a page gone since the file was mapped, and seen zeros. Never reset.
  bool poisoned() const { return guard_.poisoned(); }

  // A kShared mapping was written to: what it holds is the file's bytes no more. Never reset.
  bool written() const { return guard_.written(); }

  // The file's bytes were found not to be what they should: Intact() says so from now on, to all who have it mapped.
  void SetDamaged() const { damaged_.store(true, std::memory_order_relaxed); }

  // A model's use of parts of a mapping. Parts that nobody uses any more leave this process's memory
  // with the last use, though the rest of the mapping may stay. With kDropCached, what nobody has mapped of
  // the file then leaves the page cache, too. Move-only; keeps the mapping alive.
  class Use {
   public:
    Use() = default;  // of nothing
    Use(std::shared_ptr<const MappedFile> file, std::vector<ByteRange> ranges);
    Use(Use&&) noexcept = default;
    Use& operator=(Use&& other) noexcept;
    ~Use() { Release(); }

    const MappedFile& file() const { return *file_; }  // REQUIRES: not of nothing
    // Of the ranges, what nobody used when this use began: theirs to populate who came first.
    const std::vector<ByteRange>& first() const { return first_; }

    // Pages of the ranges that are in memory, or come there, stay there as long as this does.
    // RESOURCE_EXHAUSTED when this process may not lock so much; nothing is locked then.
    // REQUIRES: is not locked.
    absl::Status Lock();
    void Unlock();  // may always be called

   private:
    void Release();
    std::shared_ptr<const MappedFile> file_;
    std::vector<ByteRange> ranges_, first_;
    std::vector<ByteRange> locked_;  // whole pages
  };

 private:
  struct Unmap {
    std::size_t size;
    void operator()(std::byte* data) const;
  };
  using Mapping = std::unique_ptr<std::byte, Unmap>;

  MappedFile(std::filesystem::path path, UniqueFd fd, FileId id, Mapping mapping, AfterUse after_use);
  static absl::StatusOr<std::shared_ptr<const MappedFile>> Map(const std::filesystem::path& path,
                                                               UniqueFd fd, FileId id, Access access,
                                                               AfterUse after_use);
  bool in_use() const ABSL_LOCKS_EXCLUDED(mu_);
  void Drop(const ByteRange& range) const;
  absl::Status LockPages(const std::vector<ByteRange>& pages) const ABSL_LOCKS_EXCLUDED(mu_);
  void UnlockPages(const std::vector<ByteRange>& pages) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // Constant after construction.
  const std::filesystem::path path_;
  const UniqueFd fd_;
  const FileId id_;
  const std::size_t size_;
  const Mapping mapping_;
  std::byte* const data_;
  const AfterUse after_use_;
  mutable std::atomic<bool> damaged_{false};
  mutable std::atomic<std::uint64_t> soon_{0};
  mutable Mutex mu_;
  mutable RangeUses uses_ ABSL_GUARDED_BY(mu_);
  mutable RangeUses locks_ ABSL_GUARDED_BY(mu_);  // the kernel does not count them
  MappingGuard
      guard_;  // last: it lets go of the addresses before they are unmapped and given to others
};

// A small text file, copied. The refusals of Open(), but an empty file is an empty string;
// INVALID_ARGUMENT when it has more than `max_bytes`.
absl::StatusOr<std::string> ReadSmallFile(const std::filesystem::path& path, std::size_t max_bytes);

namespace mapped_file_internal {
// What Populate() does on kernels before 5.14: reads the range through the descriptor, which fills
// the page cache and cannot raise SIGBUS; mapping the pages is then left to the first access.
absl::Status PopulateByReading(int fd, std::uint64_t offset, std::uint64_t length,
                               const std::filesystem::path& path, std::stop_token stop);
}  // namespace mapped_file_internal

}  // namespace hearth
