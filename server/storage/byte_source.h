// A file's bytes, a part at a time, from wherever they come.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

#include "server/base/status.h"

namespace hearth {

// For one thread, until the next call: the part may lie where the next one will.
struct ByteSource {
  std::uint64_t step = 0;  // the most that is asked for at once
  // REQUIRES: inside the file; length <= step.
  std::function<absl::StatusOr<std::span<const std::byte>>(std::uint64_t offset, std::uint64_t length)> read;
};

// Whether bytes of a file have the checksum that it states. DATA_LOSS names what has not, but not the file;
// otherwise what `read` says. Thread-safe.
using VerifyChecksum = std::function<absl::Status(const ByteSource& file)>;

}  // namespace hearth
