#include "server/storage/archive.h"

#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <utility>

#include "server/base/bytes.h"
#include "server/base/check.h"
#include "server/storage/foreign_file.h"
#include "server/storage/zip_directory.h"

namespace hearth {
namespace {

// Deflate cannot do better than 1032 to 1: who declares more lies, and is caught before anything is
// allocated for it.
constexpr std::uint64_t kMaxDeflateRatio = 1032;
constexpr std::size_t kMaxPiece = std::size_t{1} << 30;  // zlib counts in 32 bits
constexpr std::size_t kVerifyStep = 256 << 10;

// What a file that is no zip file most likely is.
absl::Status NotAnArchive(std::span<const std::byte> file) {
  if (const std::optional<std::string_view> foreign = ForeignFile(file)) {
    return absl::InvalidArgumentError(std::string(*foreign));
  }
  if (StartsWith(file, "\x89HDF\r\n\x1a\n")) {
    return absl::InvalidArgumentError(
        "is an HDF5 file, which has weights and no program; put it beside a program.pt, which `hearth pack` makes");
  }
  return absl::InvalidArgumentError(
      "is not a TorchScript archive; models are files written by torch.jit.save(torch.jit.script(model), path), or "
      "by `hearth pack`");
}

using Place = std::function<std::span<std::byte>(std::uint64_t produced)>;
using Sink = std::function<void(std::span<const std::byte>)>;

// The next packed bytes, kMaxPiece at most; none at the end.
using Feed = std::function<absl::StatusOr<std::span<const std::byte>>()>;

Feed FeedOf(std::span<const std::byte> packed) {
  return [packed]() mutable -> absl::StatusOr<std::span<const std::byte>> {
    const auto piece = packed.first(std::min<std::size_t>(packed.size(), kMaxPiece));
    packed = packed.subspan(piece.size());
    return piece;
  };
}

// Inflates what `feed` gives, piece by piece: `place` says where the next bytes go, `sink` gets them once
// they are there. An error when fewer or more than `size` bytes come out; never writes more than
// that.
absl::Status Inflate(const Feed& feed, std::uint64_t size, const Place& place, const Sink& sink) {
  z_stream stream{};
  if (::inflateInit2(&stream, -MAX_WBITS) != Z_OK) {
    return absl::ResourceExhaustedError("out of memory for unpacking");
  }
  const std::unique_ptr<z_stream, int (*)(z_stream*)> end(&stream, ::inflateEnd);
  const absl::Status damaged = absl::InvalidArgumentError("its packed bytes are damaged");
  std::byte
      spare{};  // takes what comes after the last byte, so that a stream that goes on is noticed
  for (std::uint64_t produced = 0;;) {
    if (stream.avail_in == 0) {
      HEARTH_ASSIGN_OR_RETURN(const std::span<const std::byte> piece, feed());
      stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(piece.data()));
      stream.avail_in = static_cast<uInt>(piece.size());
    }
    std::span<std::byte> room = produced < size ? place(produced) : std::span(&spare, 1);
    room = room.first(std::min<std::size_t>(room.size(), kMaxPiece));
    stream.next_out = reinterpret_cast<Bytef*>(room.data());
    stream.avail_out = static_cast<uInt>(room.size());
    const int result =
        ::inflate(&stream, Z_NO_FLUSH);  // Z_BUF_ERROR: no progress, input is used up
    const std::size_t got = room.size() - stream.avail_out;
    if ((result != Z_OK && result != Z_STREAM_END) || got > size - produced) return damaged;
    sink(room.first(got));
    produced += got;
    if (result == Z_STREAM_END) return produced == size ? absl::OkStatus() : damaged;
  }
}

}  // namespace

absl::StatusOr<Archive> Archive::Open(std::span<const std::byte> file) {
  if (!StartsWith(file, "PK\x03\x04") && !StartsWith(file, "PK\x05\x06")) return NotAnArchive(file);
  HEARTH_ASSIGN_OR_RETURN(std::vector<Record> records, zip_internal::ReadDirectory(file));
  Archive archive(file);
  archive.SelectTopFolder(std::move(records));
  const auto any_below = [&](std::string_view folder) {
    return std::any_of(archive.records_.begin(), archive.records_.end(), [&](const Record& r) {
      return std::string_view(r.name).starts_with(folder);
    });
  };
  if (archive.Contains("data.pkl")) {
    const bool program = archive.Contains("constants.pkl") || any_below("code/");
    archive.kind_ = program ? ArchiveKind::kTorchScript : ArchiveKind::kTorchSave;
  }
  return archive;
}

// The folder is the one that holds data.pkl; without one, the first record's. Records elsewhere
// (such as the `__MACOSX` of a re-zipped archive) are left out.
void Archive::SelectTopFolder(std::vector<Record> all) {
  const auto folder_of = [](std::string_view name) {
    const std::size_t slash = name.find('/');
    return slash == name.npos ? std::string_view() : name.substr(0, slash);
  };
  const auto main = std::find_if(all.begin(), all.end(), [&](const Record& r) {
    const std::string_view folder = folder_of(r.name);
    return std::string_view(r.name).substr(folder.empty() ? 0 : folder.size() + 1) == "data.pkl";
  });
  if (main != all.end()) {
    top_folder_ = folder_of(main->name);
  } else if (!all.empty()) {
    top_folder_ = folder_of(all.front().name);
  }
  const std::string prefix = top_folder_.empty() ? "" : top_folder_ + "/";
  for (Record& record : all) {
    if (!record.name.starts_with(prefix)) continue;
    record.name.erase(0, prefix.size());
    records_.push_back(std::move(record));
  }
  by_name_.resize(records_.size());
  std::iota(by_name_.begin(), by_name_.end(), 0);
  std::sort(by_name_.begin(), by_name_.end(),
            [&](std::uint32_t a, std::uint32_t b) { return records_[a].name < records_[b].name; });
}

const Archive::Record* Archive::Find(std::string_view name) const {
  const auto found = std::lower_bound(
      by_name_.begin(), by_name_.end(), name,
      [&](std::uint32_t index, std::string_view wanted) { return records_[index].name < wanted; });
  if (found == by_name_.end() || records_[*found].name != name) return nullptr;
  return &records_[*found];
}

std::span<const std::byte> Archive::Packed(const Record& record) const {
  return file_.subspan(record.data_offset, record.compressed_size);
}

std::optional<std::span<const std::byte>> Archive::View(const Record& record) const {
  if (record.method != Method::kStored) return std::nullopt;
  return Packed(record);
}

absl::StatusOr<std::vector<std::byte>> Archive::Read(const Record& record,
                                                     std::uint64_t max_bytes) const {
  if (record.size > max_bytes) {
    return absl::ResourceExhaustedError(StrCat("record '", record.name, "' has ",
                                               FormatBytes(record.size), "; at most ",
                                               FormatBytes(max_bytes), " are allowed here"));
  }
  if (record.method == Method::kDeflated &&
      record.size / kMaxDeflateRatio > record.compressed_size) {
    return absl::InvalidArgumentError(
        StrCat("record '", record.name, "' claims to unpack to more than deflate allows"));
  }
  HEARTH_ASSIGN_OR_RETURN(std::vector<std::byte> out,
                          CatchAsStatus(StrCat("record '", record.name, "'"), [&] {
                            return std::vector<std::byte>(static_cast<std::size_t>(record.size));
                          }));
  HEARTH_RETURN_IF_ERROR(ReadInto(record, out));
  return out;
}

absl::Status Archive::ReadInto(const Record& record, std::span<std::byte> out) const {
  HEARTH_CHECK(out.size() == record.size);
  if (record.method == Method::kStored) {
    if (!out.empty()) std::memcpy(out.data(), file_.data() + record.data_offset, out.size());
    return absl::OkStatus();
  }
  return Annotate(
      Inflate(
          FeedOf(Packed(record)), record.size, [&](std::uint64_t at) { return out.subspan(at); },
          [](std::span<const std::byte>) {}),
      StrCat("record '", record.name, "'"));
}

absl::Status Archive::VerifyChecksum(const Record& record) const {
  return VerifyChecksum(record, {kMaxPiece, [this](std::uint64_t offset, std::uint64_t length) {
                                   return absl::StatusOr<std::span<const std::byte>>(file_.subspan(offset, length));
                                 }});
}

absl::Status Archive::VerifyChecksum(const Record& record, const ByteSource& file) {
  std::uint64_t at = 0;  // in the packed bytes
  const Feed next = [&]() -> absl::StatusOr<std::span<const std::byte>> {
    const std::uint64_t step = std::min({file.step, std::uint64_t{kMaxPiece}, record.compressed_size - at});
    if (step == 0) return std::span<const std::byte>();
    at += step;
    return file.read(record.data_offset + at - step, step);
  };
  uLong crc = ::crc32_z(0, nullptr, 0);
  const auto add = [&crc](std::span<const std::byte> bytes) {
    crc = ::crc32_z(crc, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size());
  };
  if (record.method == Method::kStored) {
    while (at < record.compressed_size) {
      HEARTH_ASSIGN_OR_RETURN(const std::span<const std::byte> bytes, next());
      add(bytes);
    }
  } else {
    std::vector<std::byte> window(kVerifyStep);
    const absl::Status unpacked = Inflate(
        next, record.size,
        [&](std::uint64_t out) {
          return std::span(window).first(std::min<std::uint64_t>(window.size(), record.size - out));
        },
        add);
    if (absl::IsInvalidArgument(unpacked)) {
      return absl::DataLossError(StrCat("record '", record.name, "' does not unpack"));
    }
    HEARTH_RETURN_IF_ERROR(unpacked);
  }
  if (crc == record.crc32) return absl::OkStatus();
  return absl::DataLossError(
      StrCat("record '", record.name,
             "' does not have its checksum: the file is damaged, or it was written "
             "with torch.serialization.set_crc32_options(False)"));
}

namespace {

absl::Status RequireLittleEndian(const Archive& archive) {
  const Archive::Record* order = archive.Find("byteorder");
  if (order == nullptr) return absl::OkStatus();
  HEARTH_ASSIGN_OR_RETURN(const std::vector<std::byte> text, archive.Read(*order, 64));
  if (StartsWith(text, "little")) return absl::OkStatus();
  return absl::InvalidArgumentError(
      "was written on a big-endian machine; save it again on a little-endian one");
}

}  // namespace

absl::Status RequireTorchScript(const Archive& archive) {
  switch (archive.kind()) {
    case ArchiveKind::kTorchScript:
      break;
    case ArchiveKind::kTorchSave:
      return absl::InvalidArgumentError(
          "is a torch.save file, a pickled module or weights (no program inside); where PyTorch runs, turn it into "
          "a model with `hearth pack`, or save the module with torch.jit.save(torch.jit.script(model), path)");
    case ArchiveKind::kOther:
      if (archive.Contains("model.json")) {
        return absl::InvalidArgumentError(
            "was written by PyTorch 1.2 or older; load it there and save it again with a newer "
            "one");
      }
      return absl::InvalidArgumentError(
          "is a zip file, but not a TorchScript archive (it has no data.pkl); models are files written by "
          "torch.jit.save(torch.jit.script(model), path), or by `hearth pack`");
  }
  return RequireLittleEndian(archive);
}

absl::Status RequireTorchSave(const Archive& archive) {
  switch (archive.kind()) {
    case ArchiveKind::kTorchSave:
      return RequireLittleEndian(archive);
    case ArchiveKind::kTorchScript:
      return absl::InvalidArgumentError(
          "is a TorchScript archive, not a file of weights; serve it as model.pt");
    case ArchiveKind::kOther:
      break;
  }
  return absl::InvalidArgumentError(
      "is a zip file, but torch.save did not write it (it has no data.pkl)");
}

}  // namespace hearth
