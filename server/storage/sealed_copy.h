// A file's content in memory that nothing can change. Behind mapped_file.h; nobody else needs it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <stop_token>

#include "server/base/status.h"
#include "server/base/unique_fd.h"

namespace hearth {

// Copies the first `size` bytes of `file`, which messages call `path`, into a memfd and seals it. `stop` is
// looked at every 16 MiB. CANCELLED; DATA_LOSS when the file is shorter; RESOURCE_EXHAUSTED.
absl::StatusOr<UniqueFd> SealedCopy(int file, std::uint64_t size, const std::filesystem::path& path,
                                    const std::stop_token& stop);

}  // namespace hearth
