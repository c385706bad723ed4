// The walk over a pickle that lies in an archive, its storages in the archive's other records.
#pragma once

#include <string>

#include "server/base/status.h"
#include "server/storage/archive.h"
#include "server/storage/pickle_walker.h"

namespace hearth {

// Walks <name>.pkl; the storage of key k has its bytes in the record <name>/k. INVALID_ARGUMENT; the
// text continues a sentence that begins with the file's name.
absl::StatusOr<PickleSummary> WalkArchive(const Archive& archive, const std::string& name,
                                          PickleDialect dialect, TensorNames names = TensorNames::kNo);

}  // namespace hearth
