// Whole files in and out. Errors name the path and say why.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace hearth::client {

// A request cannot carry more than 2 GiB, so a larger file is refused before it fills the memory.
inline constexpr std::size_t kMaxFileBytes = std::size_t{1} << 31;

// Regular files, pipes and /dev/stdin. INVALID_ARGUMENT for a directory or more than `max_bytes`.
absl::StatusOr<std::string> ReadFile(const std::string& path, std::size_t max_bytes = kMaxFileBytes);
// Would WriteFile() get as far as opening the file? Touches nothing.
absl::Status CheckWritable(const std::string& path);
// Creates or replaces the file.
absl::Status WriteFile(const std::string& path, std::string_view content);

}  // namespace hearth::client
