// The table of contents of a zip file. Behind archive.h; nobody else needs it.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "server/base/status.h"
#include "server/storage/archive.h"

namespace hearth::zip_internal {

// Every file in it, in the order of the file, with whole names; folders are left out. All of them
// lie inside `file` and none overlaps another. Names are unique, relative, and free of "..".
absl::StatusOr<std::vector<Archive::Record>> ReadDirectory(std::span<const std::byte> file);

}  // namespace hearth::zip_internal
