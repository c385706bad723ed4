#include "server/torch_backend/integrity.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <span>
#include <string>
#include <thread>
#include <utility>

#include "server/base/parallel.h"
#include "server/torch_backend/sha256.h"

namespace hearth {
namespace {

using Bytes = absl::StatusOr<std::span<const std::byte>>;

constexpr std::uint64_t kStep = 16ULL << 20;
constexpr std::uint64_t kLeisurelyStep = 1ULL << 20;

VerifyChecksum Sha256Of(const WeightStorage& storage, std::string tensor) {
  return [offset = storage.offset, size = storage.size, checksum = *storage.checksum,
          tensor = std::move(tensor)](const ByteSource& file) -> absl::Status {
    Sha256 sha256;
    for (std::uint64_t at = 0; at < size; at += file.step) {
      HEARTH_ASSIGN_OR_RETURN(const auto bytes, file.read(offset + at, std::min(file.step, size - at)));
      sha256.Add(bytes.data(), bytes.size());
    }
    const std::string digest = sha256.Finish();
    if (std::memcmp(digest.data(), checksum.data(), digest.size()) == 0) return absl::OkStatus();
    return absl::DataLossError(StrCat("does not have the SHA-256 stated for tensor '", tensor,
                                      "': the file is damaged; copy it again from where it came from"));
  };
}

// `verify`, telling whose bytes they are.
VerifyChecksum OfTensor(VerifyChecksum verify, std::string tensor) {
  return [verify = std::move(verify), tensor = std::move(tensor)](const ByteSource& file) -> absl::Status {
    absl::Status verified = verify(file);
    if (!absl::IsDataLoss(verified)) return verified;
    return absl::DataLossError(StrCat("is damaged in tensor '", tensor, "': ", FromAbsl(verified.message())));
  };
}

template <typename File>
absl::Status Verify(const Checksummed<File>& part, const ByteSource& bytes) {
  absl::Status verified = part.verify(bytes);
  return absl::IsDataLoss(verified) ? AboutFile(part.file->path(), verified) : verified;
}

}  // namespace

std::vector<Checksummed<MappedFile>> ChecksummedParts(const Weights& weights) {
  std::vector<std::string> names(weights.storages.size());  // of a tensor in each
  for (const WeightTensor& tensor : weights.tensors) names[tensor.storage] = tensor.name;
  std::vector<Checksummed<MappedFile>> parts;
  for (std::size_t i = 0; i < names.size(); ++i) {
    const WeightStorage& storage = weights.storages[i];
    if (storage.checksum && !storage.unpack) {
      parts.push_back({storage.file, Sha256Of(storage, std::move(names[i]))});
    } else if (storage.verify) {
      parts.push_back({storage.file, OfTensor(storage.verify, std::move(names[i]))});
    }
  }
  return parts;
}

std::vector<Checksummed<MappedFile>> ChecksummedParts(const ScriptArchive& program) {
  std::vector<Checksummed<MappedFile>> parts;
  for (const Archive::Record& record : program.archive.records()) {
    parts.push_back(
        {program.file, [record](const ByteSource& file) { return Archive::VerifyChecksum(record, file); }});
  }
  return parts;
}

Verdict VerifyChecksums(const std::vector<Checksummed<MappedFile>>& parts, const std::stop_token& stop) {
  std::vector<char> damaged(parts.size(), 0);
  Verdict verdict;
  verdict.status = ParallelFor(parts.size(), std::thread::hardware_concurrency(), [&](std::size_t i) {
    const MappedFile& file = *parts[i].file;
    absl::Status verified = Verify(parts[i], {kStep, [&](std::uint64_t offset, std::uint64_t length) -> Bytes {
                                                ReadAhead ahead(file.descriptor(), {offset, offset + length});
                                                HEARTH_RETURN_IF_ERROR(file.Populate(offset, length, stop, &ahead));
                                                return file.bytes().subspan(offset, length);
                                              }});
    damaged[i] = absl::IsDataLoss(verified) ? 1 : 0;
    return verified;
  });
  if (!absl::IsDataLoss(verdict.status)) return verdict;
  const auto first = std::find(damaged.begin(), damaged.end(), 1);  // as ParallelFor has it
  verdict.damaged = parts[static_cast<std::size_t>(first - damaged.begin())].file->id();
  return verdict;
}

absl::StatusOr<std::vector<Checksummed<FileReader>>> ForReading(const std::vector<Checksummed<MappedFile>>& parts) {
  std::map<std::shared_ptr<const MappedFile>, std::shared_ptr<const FileReader>> readers;
  std::vector<Checksummed<FileReader>> unmapped;
  for (const Checksummed<MappedFile>& part : parts) {
    std::shared_ptr<const FileReader>& reader = readers[part.file];
    if (reader == nullptr) {
      HEARTH_ASSIGN_OR_RETURN(reader, FileReader::Of(*part.file));
    }
    unmapped.push_back({reader, part.verify});
  }
  return unmapped;
}

Verdict VerifyAtLeisure(const std::vector<Checksummed<FileReader>>& parts, const std::stop_token& stop) {
  std::vector<std::byte> buffer(kLeisurelyStep);
  for (const Checksummed<FileReader>& part : parts) {
    const auto read = [&](std::uint64_t offset, std::uint64_t length) -> Bytes {
      if (stop.stop_requested()) return absl::CancelledError("stopped while reading the file");
      const std::span<std::byte> bytes = std::span(buffer).first(length);
      HEARTH_RETURN_IF_ERROR(part.file->Read(offset, bytes));
      return bytes;
    };
    absl::Status verified = Verify(part, {kLeisurelyStep, read});
    if (absl::IsDataLoss(verified)) return {std::move(verified), part.file->id()};
    if (!verified.ok()) return {std::move(verified)};
  }
  return {absl::OkStatus()};
}

}  // namespace hearth
