#include "server/storage/zip_directory.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace hearth::zip_internal {
namespace {

constexpr std::uint32_t kLocalSignature = 0x04034b50;
constexpr std::uint32_t kCentralSignature = 0x02014b50;
constexpr std::uint32_t kEndSignature = 0x06054b50;
constexpr std::uint32_t kEnd64Signature = 0x06064b50;
constexpr std::uint32_t kEnd64LocatorSignature = 0x07064b50;
constexpr std::uint64_t kLocalSize = 30;
constexpr std::uint64_t kCentralSize = 46;
constexpr std::uint64_t kEndSize = 22;
constexpr std::uint64_t kEnd64Size = 56;
constexpr std::uint64_t kEnd64LocatorSize = 20;
constexpr std::uint64_t kMaxComment = 0xffff;
constexpr std::uint16_t kZip64ExtraId = 0x0001;
constexpr std::uint32_t kIn64 = 0xffffffff;  // "see the zip64 field"
constexpr std::uint16_t kIn64Short = 0xffff;
constexpr std::uint64_t kMaxRecords = 1 << 20;
constexpr std::size_t kMaxNameLength = 4096;

using Bytes = std::span<const std::byte>;

absl::Status Damaged(std::string_view what) {
  return absl::InvalidArgumentError(StrCat("is a damaged zip file: ", what));
}

// Little-endian integer at `offset`. REQUIRES: it lies inside `bytes`.
template <typename T>
T Load(Bytes bytes, std::uint64_t offset) {
  T value = 0;
  for (std::size_t i = 0; i < sizeof(T); ++i) {
    value = static_cast<T>(value | static_cast<T>(static_cast<T>(bytes[offset + i]) << (8 * i)));
  }
  return value;
}

// Whether [offset, offset + length) lies inside [0, size); cannot overflow.
bool Inside(std::uint64_t offset, std::uint64_t length, std::uint64_t size) {
  return offset <= size && length <= size - offset;
}

struct Directory {
  std::uint64_t offset = 0;
  std::uint64_t size = 0;
  std::uint64_t count = 0;
};

// The end record stands last, followed only by a comment whose length it knows.
std::optional<std::uint64_t> FindEnd(Bytes file) {
  if (file.size() < kEndSize) return std::nullopt;
  const std::uint64_t last = file.size() - kEndSize;
  const std::uint64_t first = last > kMaxComment ? last - kMaxComment : 0;
  for (std::uint64_t at = last + 1; at-- > first;) {
    if (Load<std::uint32_t>(file, at) == kEndSignature &&
        Load<std::uint16_t>(file, at + 20) <= file.size() - at - kEndSize) {
      return at;
    }
  }
  return std::nullopt;
}

absl::StatusOr<Directory> ReadEnd64(Bytes file, std::uint64_t locator) {
  if (Load<std::uint32_t>(file, locator + 4) != 0 || Load<std::uint32_t>(file, locator + 16) > 1) {
    return absl::InvalidArgumentError(
        "is one part of a zip file in several parts; join them first");
  }
  const auto at = Load<std::uint64_t>(file, locator + 8);
  if (!Inside(at, kEnd64Size, locator) || Load<std::uint32_t>(file, at) != kEnd64Signature) {
    return Damaged("its zip64 end record is missing");
  }
  if (Load<std::uint32_t>(file, at + 16) != 0 || Load<std::uint32_t>(file, at + 20) != 0 ||
      Load<std::uint64_t>(file, at + 24) != Load<std::uint64_t>(file, at + 32)) {
    return absl::InvalidArgumentError(
        "is one part of a zip file in several parts; join them first");
  }
  return Directory{.offset = Load<std::uint64_t>(file, at + 48),
                   .size = Load<std::uint64_t>(file, at + 40),
                   .count = Load<std::uint64_t>(file, at + 32)};
}

absl::StatusOr<Directory> FindDirectory(Bytes file) {
  const std::optional<std::uint64_t> end = FindEnd(file);
  if (!end) {
    return Damaged("it has no table of contents; it was probably not copied or written to its end");
  }
  Directory directory{.offset = Load<std::uint32_t>(file, *end + 16),
                      .size = Load<std::uint32_t>(file, *end + 12),
                      .count = Load<std::uint16_t>(file, *end + 10)};
  const bool has64 = *end >= kEnd64LocatorSize &&
                     Load<std::uint32_t>(file, *end - kEnd64LocatorSize) == kEnd64LocatorSignature;
  if (has64) {
    HEARTH_ASSIGN_OR_RETURN(directory, ReadEnd64(file, *end - kEnd64LocatorSize));
  } else if (Load<std::uint16_t>(file, *end + 4) != 0 || Load<std::uint16_t>(file, *end + 6) != 0 ||
             Load<std::uint16_t>(file, *end + 8) != directory.count) {
    return absl::InvalidArgumentError(
        "is one part of a zip file in several parts; join them first");
  }
  if (!Inside(directory.offset, directory.size, *end)) {
    return Damaged("its table of contents lies outside the file; it was probably cut short");
  }
  if (directory.count > directory.size / kCentralSize || directory.count > kMaxRecords) {
    return Damaged(StrCat("its table of contents claims ", directory.count, " records"));
  }
  return directory;
}

absl::Status CheckName(std::string_view name) {
  const auto bad = [&](std::string_view why) {
    std::string shown;
    for (const char c : name.substr(0, 80)) shown += (c < ' ' || c > '~') ? '?' : c;
    return absl::InvalidArgumentError(StrCat("has a record named '", shown, "', ", why));
  };
  if (name.empty()) return bad("which is empty");
  if (name.size() > kMaxNameLength) return bad("which is too long");
  if (name.find('\0') != name.npos || name.find('\\') != name.npos) {
    return bad("which is not a name PyTorch writes");
  }
  if (name.front() == '/') return bad("which is an absolute path");
  for (std::size_t start = 0; start <= name.size();) {
    const std::size_t end = std::min(name.find('/', start), name.size());
    if (name.substr(start, end - start) == "..") return bad("which leads out of the archive");
    start = end + 1;
  }
  return absl::OkStatus();
}

// One entry as the table of contents has it.
struct Entry {
  Archive::Record record;
  std::uint64_t header_offset = 0;  // of the local header
  std::uint64_t next = 0;           // of the entry behind this one
};

// Replaces the fields that say "see the zip64 field", in the order in which that field has them.
absl::Status ReadZip64Extra(Bytes extra, Entry& entry) {
  Archive::Record& record = entry.record;
  std::uint64_t* const wanted[] = {&record.size, &record.compressed_size, &entry.header_offset};
  if (std::none_of(std::begin(wanted), std::end(wanted), [](auto* v) { return *v == kIn64; })) {
    return absl::OkStatus();
  }
  while (extra.size() >= 4) {
    const auto id = Load<std::uint16_t>(extra, 0);
    const auto length = Load<std::uint16_t>(extra, 2);
    if (length > extra.size() - 4) break;
    Bytes field = extra.subspan(4, length);
    extra = extra.subspan(4 + std::size_t{length});
    if (id != kZip64ExtraId) continue;
    for (std::uint64_t* const value : wanted) {
      if (*value != kIn64) continue;
      if (field.size() < 8) return Damaged(StrCat("the sizes of '", record.name, "' are missing"));
      *value = Load<std::uint64_t>(field, 0);
      field = field.subspan(8);
    }
    return absl::OkStatus();
  }
  // A value that happens to be 4 GiB - 1 needs no zip64 field.
  return absl::OkStatus();
}

absl::StatusOr<Entry> ReadEntry(Bytes file, std::uint64_t at, std::uint64_t end) {
  if (!Inside(at, kCentralSize, end) || Load<std::uint32_t>(file, at) != kCentralSignature) {
    return Damaged("its table of contents has fewer entries than it says");
  }
  const auto flags = Load<std::uint16_t>(file, at + 8);
  const auto method = Load<std::uint16_t>(file, at + 10);
  const auto name_length = Load<std::uint16_t>(file, at + 28);
  const auto extra_length = Load<std::uint16_t>(file, at + 30);
  const auto comment_length = Load<std::uint16_t>(file, at + 32);
  const auto disk = Load<std::uint16_t>(file, at + 34);
  const std::uint64_t variable = std::uint64_t{name_length} + extra_length + comment_length;
  if (!Inside(at + kCentralSize, variable, end)) {
    return Damaged("an entry of its table of contents is cut short");
  }
  Entry entry;
  Archive::Record& record = entry.record;
  entry.next = at + kCentralSize + variable;
  record.name.assign(reinterpret_cast<const char*>(file.data() + at + kCentralSize), name_length);
  HEARTH_RETURN_IF_ERROR(CheckName(record.name));
  record.crc32 = Load<std::uint32_t>(file, at + 16);
  record.compressed_size = Load<std::uint32_t>(file, at + 20);
  record.size = Load<std::uint32_t>(file, at + 24);
  entry.header_offset = Load<std::uint32_t>(file, at + 42);
  HEARTH_RETURN_IF_ERROR(
      ReadZip64Extra(file.subspan(at + kCentralSize + name_length, extra_length), entry));
  if ((flags & 0x2041) != 0) {  // encrypted, strongly encrypted, or with masked headers
    return absl::InvalidArgumentError(StrCat("has an encrypted record ('", record.name, "')"));
  }
  if (disk != 0 && disk != kIn64Short) {
    return absl::InvalidArgumentError(
        "is one part of a zip file in several parts; join them first");
  }
  if (method != 0 && method != 8) {
    return absl::InvalidArgumentError(StrCat("has a record ('", record.name,
                                             "') packed with method ", method,
                                             "; only stored and deflated ones can be read"));
  }
  record.method = method == 0 ? Archive::Method::kStored : Archive::Method::kDeflated;
  if (record.method == Archive::Method::kStored && record.size != record.compressed_size) {
    return Damaged(StrCat("record '", record.name, "' has two sizes"));
  }
  return entry;
}

// Where the data begins is known to the local header alone: its name and padding may be of lengths
// other than those in the table of contents (PyTorch pads there, to align weights to 64 bytes).
absl::Status LocateData(Bytes file, std::uint64_t limit, Entry& entry) {
  Archive::Record& record = entry.record;
  const std::uint64_t at = entry.header_offset;
  if (!Inside(at, kLocalSize, limit) || Load<std::uint32_t>(file, at) != kLocalSignature) {
    return Damaged(StrCat("record '", record.name, "' has no header where it should begin"));
  }
  const auto name_length = Load<std::uint16_t>(file, at + 26);
  const std::uint64_t variable = std::uint64_t{name_length} + Load<std::uint16_t>(file, at + 28);
  record.data_offset = at + kLocalSize + variable;
  if (!Inside(at + kLocalSize, variable, limit) ||
      !Inside(record.data_offset, record.compressed_size, limit)) {
    return Damaged(StrCat("record '", record.name, "' (", record.compressed_size,
                          " bytes) reaches out of the file"));
  }
  if (name_length != record.name.size() ||
      std::memcmp(file.data() + at + kLocalSize, record.name.data(), name_length) != 0) {
    return Damaged(StrCat("record '", record.name, "' has another name in its header"));
  }
  return absl::OkStatus();
}

absl::Status CheckDisjoint(const std::vector<Entry>& sorted) {
  for (std::size_t i = 1; i < sorted.size(); ++i) {
    const Archive::Record& before = sorted[i - 1].record;
    if (before.data_offset + before.compressed_size > sorted[i].header_offset) {
      return Damaged(
          StrCat("records '", before.name, "' and '", sorted[i].record.name, "' overlap"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckUnique(const std::vector<Entry>& entries) {
  std::vector<std::string_view> names;
  names.reserve(entries.size());
  for (const Entry& entry : entries) names.push_back(entry.record.name);
  std::sort(names.begin(), names.end());
  const auto twice = std::adjacent_find(names.begin(), names.end());
  if (twice == names.end()) return absl::OkStatus();
  return absl::InvalidArgumentError(StrCat("has two records named '", *twice, "'"));
}

}  // namespace

absl::StatusOr<std::vector<Archive::Record>> ReadDirectory(std::span<const std::byte> file) {
  HEARTH_ASSIGN_OR_RETURN(const Directory directory, FindDirectory(file));
  std::vector<Entry> entries;
  entries.reserve(directory.count);
  std::uint64_t at = directory.offset;
  for (std::uint64_t i = 0; i < directory.count; ++i) {
    HEARTH_ASSIGN_OR_RETURN(Entry entry, ReadEntry(file, at, directory.offset + directory.size));
    HEARTH_RETURN_IF_ERROR(LocateData(file, directory.offset, entry));
    at = entry.next;
    entries.push_back(std::move(entry));
  }
  std::sort(entries.begin(), entries.end(),
            [](const Entry& a, const Entry& b) { return a.header_offset < b.header_offset; });
  HEARTH_RETURN_IF_ERROR(CheckUnique(entries));
  HEARTH_RETURN_IF_ERROR(CheckDisjoint(entries));
  std::vector<Archive::Record> records;
  records.reserve(entries.size());
  for (Entry& entry : entries) {
    if (!entry.record.name.ends_with('/')) records.push_back(std::move(entry.record));
  }
  return records;
}

}  // namespace hearth::zip_internal
