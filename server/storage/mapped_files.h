// Who has what mapped: so that the same bytes are mapped once, however many models have them.
//
// Bytes are the same when they are in the same file (device, inode, time of change, size), whatever its
// path; and when two files state the same SHA-256 and size for them. The statement is believed, until it was found
// wrong: whoever writes a model's files decides what its program does, too.
//
// Refers to mappings without keeping them: they live as long as a model uses them. One that was written
// to, poisoned, or whose file is not what it was, is not handed out again.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "server/base/mutex.h"
#include "server/base/status.h"
#include "server/storage/mapped_file.h"
#include "server/storage/weights.h"

namespace hearth {

// Thread-safe.
class MappedFiles {
 public:
  using FilePtr = std::shared_ptr<const MappedFile>;

  explicit MappedFiles(MappedFile::AfterUse after_use = MappedFile::AfterUse::kLeaveCached)
      : after_use_(after_use) {}

  // As MappedFile::Open(), but of a file that is mapped already the mapping that there is.
  absl::StatusOr<FilePtr> Open(const std::filesystem::path& path) ABSL_LOCKS_EXCLUDED(mu_);

  // The same file as it is on disk: `file` itself, or a mapping to go on with when it was written to.
  absl::StatusOr<FilePtr> Untouched(const FilePtr& file) ABSL_LOCKS_EXCLUDED(mu_);

  // Moves storages onto mapped bytes of the same checksum, as far as there are any. Two storages are
  // never moved onto the same bytes: what a program does to one of them must not show in the other.
  //
  // kOffer: those that stay where they are can be found by others from now on, in the same step, so of
  // two loads at once one finds what the other has.
  enum class Own : std::uint8_t { kOffer, kKeep };
  void Share(Weights& weights, Own own) ABSL_LOCKS_EXCLUDED(mu_);

  // The file does not hold what it states. Nothing is moved onto its bytes from now on, and who has them mapped
  // finds them damaged (MappedFile::Intact). False: that was known.
  bool Distrust(const FileId& id) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  struct Content {
    Checksum checksum;
    std::uint64_t size;
    friend auto operator<=>(const Content&, const Content&) = default;
  };
  // Of no use while nobody has the file mapped.
  struct Place {
    FileId file;
    std::uint64_t offset;
    friend auto operator<=>(const Place&, const Place&) = default;
  };
  using FileSet = std::set<FilePtr>;

  // `fresh`, or the usable mapping of the same file that there is already.
  FilePtr Unite(FilePtr fresh) ABSL_LOCKS_EXCLUDED(mu_);
  // One attempt of Share(). Returns the mappings that storages were moved onto, none of `unusable`; all
  // that it looked at stay alive in `seen`, for no mapping ends under the lock.
  FileSet TakePlaces(std::vector<WeightStorage>& storages, const FileSet& unusable, FileSet& seen)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void OfferPlaces(const std::vector<WeightStorage>& storages) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void ForgetUnmapped() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const MappedFile::AfterUse after_use_;
  Mutex mu_;
  std::map<FileId, std::weak_ptr<const MappedFile>> files_ ABSL_GUARDED_BY(mu_);
  std::map<Content, std::vector<Place>> places_ ABSL_GUARDED_BY(mu_);
  std::set<FileId> distrusted_ ABSL_GUARDED_BY(mu_);  // never forgotten: damaged files are few
  std::size_t forget_at_ ABSL_GUARDED_BY(mu_) = 64;  // so many entries: time to forget
};

}  // namespace hearth
