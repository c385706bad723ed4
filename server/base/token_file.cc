#include "server/base/token_file.h"

#include <algorithm>
#include <string_view>

#include "server/base/small_file.h"

namespace hearth {
namespace {

constexpr std::size_t kMostBytes = 64 * 1024;
constexpr std::string_view kBlanks = " \t\r";

std::string_view Trim(std::string_view line) {
  const std::size_t first = line.find_first_not_of(kBlanks);
  if (first == std::string_view::npos) return {};
  return line.substr(first, line.find_last_not_of(kBlanks) - first + 1);
}

// What can stand in a header after "Bearer ".
bool IsToken(std::string_view text) {
  return text.size() >= kShortestToken && std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c <= '~'; });
}

}  // namespace

absl::StatusOr<std::vector<std::string>> ReadTokenFile(const std::string& path) {
  HEARTH_ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(path, kMostBytes));
  std::vector<std::string> tokens;
  std::size_t number = 0;
  for (std::string_view rest = text; !rest.empty();) {
    const std::size_t end = std::min(rest.find('\n'), rest.size());
    const std::string_view line = Trim(rest.substr(0, end));
    rest.remove_prefix(std::min(end + 1, rest.size()));
    ++number;
    if (line.empty() || line.front() == '#') continue;
    if (!IsToken(line)) {
      return absl::InvalidArgumentError(StrCat(path, ":", number, ": is no token: at least ", kShortestToken,
                                               " printable characters without blanks; openssl rand -hex 32 makes one"));
    }
    tokens.emplace_back(line);
  }
  if (tokens.empty()) {
    return absl::InvalidArgumentError(StrCat(path, " holds no token; openssl rand -hex 32 makes one"));
  }
  return tokens;
}

}  // namespace hearth
