#include "server/torch_backend/integrity.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "server/base/parallel.h"
#include "server/torch_backend/sha256.h"

namespace hearth {
namespace {

constexpr std::uint64_t kStep = 16ULL << 20;

absl::Status ReadAhead(const MappedFile& file, std::uint64_t offset, std::uint64_t length,
                       const std::stop_token& stop) {
  return file.Populate(offset, length, stop, MappedFile::ReadAhead::kYes);
}

absl::Status VerifySha256(const WeightStorage& storage, const std::string& tensor, const std::stop_token& stop) {
  Sha256 sha256;
  for (std::uint64_t at = 0; at < storage.size; at += kStep) {
    const std::uint64_t step = std::min(kStep, storage.size - at);
    HEARTH_RETURN_IF_ERROR(ReadAhead(*storage.file, storage.offset + at, step, stop));
    sha256.Add(storage.file->bytes().data() + storage.offset + at, step);
  }
  const std::string digest = sha256.Finish();
  if (std::memcmp(digest.data(), storage.checksum->data(), digest.size()) == 0) return absl::OkStatus();
  return AboutFile(storage.file->path(),
                   absl::DataLossError(StrCat("does not have the SHA-256 stated for tensor '", tensor,
                                              "': the file is damaged; copy it again from where it came from")));
}

}  // namespace

absl::Status VerifyChecksums(const Weights& weights, const std::stop_token& stop) {
  std::vector<std::string> names(weights.storages.size());  // of a tensor in each
  for (const WeightTensor& tensor : weights.tensors) names[tensor.storage] = tensor.name;
  return ParallelFor(names.size(), std::thread::hardware_concurrency(), [&](std::size_t i) -> absl::Status {
    const WeightStorage& storage = weights.storages[i];
    if (storage.checksum && !storage.unpack) return VerifySha256(storage, names[i], stop);
    if (!storage.verify) return absl::OkStatus();
    HEARTH_RETURN_IF_ERROR(ReadAhead(*storage.file, storage.offset, storage.size, stop));
    const absl::Status verified = storage.verify();
    return verified.ok() ? verified : AboutFile(storage.file->path(), verified);
  });
}

absl::Status VerifyChecksums(const ScriptArchive& program, const std::stop_token& stop) {
  const std::vector<Archive::Record>& records = program.archive.records();
  return ParallelFor(records.size(), std::thread::hardware_concurrency(), [&](std::size_t i) -> absl::Status {
    HEARTH_RETURN_IF_ERROR(ReadAhead(*program.file, records[i].data_offset, records[i].compressed_size, stop));
    const absl::Status verified = program.archive.VerifyChecksum(records[i]);
    return verified.ok() ? verified : AboutFile(program.file->path(), verified);
  });
}

}  // namespace hearth
