// Bearer tokens, from the file that keeps them out of the configuration.
#pragma once

#include <string>
#include <vector>

#include "server/base/status.h"

namespace hearth {

inline constexpr std::size_t kShortestToken = 16;

// One a line; several are all good, so that a new one can be there before the old one goes. Empty lines, lines that begin
// with '#' and blanks around a token do not count. INVALID_ARGUMENT: there is none, or a line is no token; otherwise the
// file cannot be read. No message has any of the file's text.
absl::StatusOr<std::vector<std::string>> ReadTokenFile(const std::string& path);

}  // namespace hearth
