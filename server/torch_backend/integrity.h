// Weights against the checksums that their files state.
#pragma once

#include <memory>
#include <optional>
#include <stop_token>
#include <vector>

#include "server/base/status.h"
#include "server/storage/byte_source.h"
#include "server/storage/file_reader.h"
#include "server/storage/mapped_file.h"
#include "server/storage/weights.h"
#include "server/torch_backend/script_archive.h"

namespace hearth {

// Something that has a checksum, a tensor's bytes or a record of an archive, in a file that is mapped, or in
// one that is only open.
template <typename File>
struct Checksummed {
  std::shared_ptr<const File> file;
  VerifyChecksum verify;  // refers to nothing of where it comes from
};

std::vector<Checksummed<MappedFile>> ChecksummedParts(const Weights& weights);
std::vector<Checksummed<MappedFile>> ChecksummedParts(const ScriptArchive& program);

// What came of it. DATA_LOSS names what differs, and its file, which is then `damaged`. CANCELLED.
struct Verdict {
  absl::Status status;
  std::optional<FileId> damaged = std::nullopt;
};

// Reads them where they are mapped, on as many threads as there are processors.
Verdict VerifyChecksums(const std::vector<Checksummed<MappedFile>>& parts, const std::stop_token& stop);

// Without the mappings.
absl::StatusOr<std::vector<Checksummed<FileReader>>> ForReading(const std::vector<Checksummed<MappedFile>>& parts);

// The same as VerifyChecksums() on the calling thread, which may be one that hardly ever runs: it holds nothing
// that others wait for, and looks at `stop` before each MiB.
Verdict VerifyAtLeisure(const std::vector<Checksummed<FileReader>>& parts, const std::stop_token& stop);

}  // namespace hearth
