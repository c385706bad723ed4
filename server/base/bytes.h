// Sizes as people write them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "server/base/status.h"

namespace hearth {

// "12GiB", "512 MiB", "1.5GB", "4096": KiB/MiB/GiB/TiB are powers of 1024, kB/KB/MB/GB/TB of 1000,
// a bare number or "B" is bytes; in any case of letters.
[[nodiscard]] absl::StatusOr<std::uint64_t> ParseBytes(std::string_view text);

// "412 MiB": three significant digits, binary units.
[[nodiscard]] std::string FormatBytes(std::uint64_t bytes);

// "12GiB", "1536MiB", "1000": in the largest binary unit that leaves no fraction, so that
// ParseBytes reads the same number back.
[[nodiscard]] std::string FormatBytesExactly(std::uint64_t bytes);

}  // namespace hearth
