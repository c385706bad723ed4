// A reader for the zip files that PyTorch writes.
//
// Every record sits below one folder of the archive's own name (`net/data.pkl`, `net/code/...`,
// `net/data/0`); names here are without it. Weights are stored as they are, so a record can be used
// where it lies; code is usually deflated.
//
// Nothing in the file is trusted. After Open() every record lies inside the file and overlaps no
// other, so View() cannot leave it; what a deflated one unpacks to is bounded by Read()'s caller.
// Checksums are looked at only on demand: torch itself can write archives without them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "server/base/status.h"
#include "server/storage/byte_source.h"

namespace hearth {

// Kernels want it, and round differently on less: below it, answers would not stay equal to the bit.
inline constexpr std::uint64_t kWeightAlignment = 64;

enum class ArchiveKind {
  kTorchScript,  // torch.jit.save: a program and its weights
  kTorchSave,    // torch.save: pickled Python objects, no program
  kOther,
};

// Thread-safe. Refers to the bytes given to Open(), which must outlive it.
class Archive {
 public:
  enum class Method : std::uint8_t { kStored, kDeflated };

  struct Record {
    std::string name;               // "data.pkl", "data/0", "code/__torch__.py"
    std::uint64_t data_offset = 0;  // of the (compressed) bytes, from the start of the file
    std::uint64_t size = 0;
    std::uint64_t compressed_size = 0;  // == size when stored
    Method method = Method::kStored;
    std::uint32_t crc32 = 0;

    // Whether the file's own pages can serve as a tensor's memory.
    bool mappable() const { return method == Method::kStored && data_offset % kWeightAlignment == 0; }
  };

  // INVALID_ARGUMENT, with what the file seems to be or what is wrong with it.
  static absl::StatusOr<Archive> Open(std::span<const std::byte> file);

  ArchiveKind kind() const { return kind_; }
  const std::string& top_folder() const { return top_folder_; }    // "net"; may be empty
  const std::vector<Record>& records() const { return records_; }  // in the order of the file

  const Record* Find(std::string_view name) const;  // null: none
  bool Contains(std::string_view name) const { return Find(name) != nullptr; }

  // The bytes of a stored record where they lie; nothing for a deflated one.
  std::optional<std::span<const std::byte>> View(const Record& record) const;

  // A copy of the record's bytes, unpacked. RESOURCE_EXHAUSTED when it is larger than `max_bytes`,
  // INVALID_ARGUMENT when it does not unpack to the size it declares.
  // REQUIRES: `record` is one of records().
  static constexpr std::uint64_t kDefaultMaxBytes = 1ULL << 30;
  absl::StatusOr<std::vector<std::byte>> Read(const Record& record,
                                              std::uint64_t max_bytes = kDefaultMaxBytes) const;
  // The same into memory of one's own. REQUIRES: out.size() == record.size.
  absl::Status ReadInto(const Record& record, std::span<std::byte> out) const;

  // DATA_LOSS when the content does not have the checksum it was written with. Unpacks in small
  // steps.
  absl::Status VerifyChecksum(const Record& record) const;
  // The same over the archive's file, wherever its bytes come from. REQUIRES: `record` is one of records().
  static absl::Status VerifyChecksum(const Record& record, const ByteSource& file);

 private:
  explicit Archive(std::span<const std::byte> file) : file_(file) {}
  void SelectTopFolder(std::vector<Record> all);
  std::span<const std::byte> Packed(const Record& record) const;

  std::span<const std::byte> file_;
  ArchiveKind kind_ = ArchiveKind::kOther;
  std::string top_folder_;
  std::vector<Record> records_;
  std::vector<std::uint32_t> by_name_;  // indices into records_, sorted by name
};

// OK for an archive that torch.jit.save wrote on a little-endian machine; otherwise
// INVALID_ARGUMENT with what to do. The text continues a sentence that begins with the file's name.
absl::Status RequireTorchScript(const Archive& archive);
// The same of torch.save.
absl::Status RequireTorchSave(const Archive& archive);

}  // namespace hearth
