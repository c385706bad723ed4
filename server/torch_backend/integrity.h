// Weights against the checksums that their files state.
#pragma once

#include <stop_token>

#include "server/base/status.h"
#include "server/storage/weights.h"
#include "server/torch_backend/script_archive.h"

namespace hearth {

// Reads all that has a checksum, on as many threads as there are processors. DATA_LOSS names the first
// tensor or record that differs, and its file. CANCELLED.
absl::Status VerifyChecksums(const Weights& weights, const std::stop_token& stop);
absl::Status VerifyChecksums(const ScriptArchive& program, const std::stop_token& stop);

}  // namespace hearth
