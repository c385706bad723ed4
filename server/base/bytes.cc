#include "server/base/bytes.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iterator>
#include <limits>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"

namespace hearth {
namespace {

constexpr std::uint64_t kMost = std::numeric_limits<std::int64_t>::max();

constexpr std::pair<std::string_view, std::uint64_t> kUnits[] = {{"", 1},
                                                                 {"B", 1},
                                                                 {"KiB", 1ull << 10},
                                                                 {"MiB", 1ull << 20},
                                                                 {"GiB", 1ull << 30},
                                                                 {"TiB", 1ull << 40},
                                                                 {"kB", 1'000},
                                                                 {"MB", 1'000'000},
                                                                 {"GB", 1'000'000'000},
                                                                 {"TB", 1'000'000'000'000}};

}  // namespace

absl::StatusOr<std::uint64_t> ParseBytes(std::string_view text) {
  const std::string_view trimmed = FromAbsl(absl::StripAsciiWhitespace(ToAbsl(text)));
  const std::size_t end = std::min(trimmed.find_first_not_of("0123456789."), trimmed.size());
  const std::string number(trimmed.substr(0, end));
  const absl::string_view unit = absl::StripLeadingAsciiWhitespace(ToAbsl(trimmed.substr(end)));
  const auto* known =
      std::find_if(std::begin(kUnits), std::end(kUnits), [&](const auto& u) {
        return absl::EqualsIgnoreCase(ToAbsl(u.first), unit);
      });
  if (!number.empty() && known != std::end(kUnits)) {
    // Whole numbers are exact; a fraction is rounded to a byte.
    std::uint64_t whole = 0;
    double value = 0;
    if (absl::SimpleAtoi(number, &whole)) {
      if (!__builtin_mul_overflow(whole, known->second, &whole) && whole <= kMost) return whole;
    } else if (absl::SimpleAtod(number, &value) &&
               value * static_cast<double>(known->second) < static_cast<double>(kMost)) {
      return static_cast<std::uint64_t>(std::llround(value * static_cast<double>(known->second)));
    }
  }
  return absl::InvalidArgumentError(
      StrCat("'", text, "' is not a size; write a number with a unit, such as 512MiB or 12GiB"));
}

std::string FormatBytesExactly(std::uint64_t bytes) {
  static constexpr std::string_view kNames[] = {"", "KiB", "MiB", "GiB", "TiB"};
  std::size_t unit = 0;
  while (bytes != 0 && bytes % 1024 == 0 && unit + 1 < std::size(kNames)) {
    bytes /= 1024;
    ++unit;
  }
  return StrCat(bytes, kNames[unit]);
}

std::string FormatBytes(std::uint64_t bytes) {
  static constexpr const char* kNames[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  auto value = static_cast<double>(bytes);
  std::size_t unit = 0;
  while (value >= 1023.5 && unit + 1 < std::size(kNames)) {
    value /= 1024;
    ++unit;
  }
  char buffer[32];
  const int decimals = unit == 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  std::snprintf(buffer, sizeof buffer, "%.*f %s", decimals, value, kNames[unit]);
  return buffer;
}

}  // namespace hearth
