#include "client/units.h"

#include <array>
#include <charconv>
#include <cstdio>

#include "client/strings.h"

namespace hearth::client {
namespace {

template <typename... Args>
std::string Print(const char* format, Args... args) {
  char text[64];
  std::snprintf(text, sizeof(text), format, args...);
  return text;
}

}  // namespace

std::string FormatBytes(std::uint64_t bytes) {
  if (bytes == 0) return "0";
  if (bytes < 1024) return Cat(bytes, " B");
  constexpr std::array<const char*, 6> kUnits = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double value = static_cast<double>(bytes) / 1024;
  std::size_t unit = 0;
  // 1023.95 would be printed as 1024.0.
  while (value >= 1023.95 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  return Print("%.1f %s", value, kUnits[unit]);
}

std::string FormatSeconds(double seconds) {
  if (seconds < 0) seconds = 0;
  if (seconds < 0.0009995) return Print("%.0f us", seconds * 1e6);
  if (seconds < 0.99995) return Print("%.1f ms", seconds * 1e3);
  if (seconds < 59.995) return Print("%.2f s", seconds);
  const auto whole = static_cast<long long>(seconds + 0.5);
  if (whole < 3600) return Print("%lldm %02llds", whole / 60, whole % 60);
  if (whole < 86400) return Print("%lldh %02lldm", whole / 3600, whole / 60 % 60);
  return Print("%lldd %02lldh", whole / 86400, whole / 3600 % 24);
}

std::string FormatAge(double seconds) {
  const auto whole = static_cast<long long>(seconds);
  if (whole < 1) return "just now";
  if (whole < 60) return Print("%llds ago", whole);
  if (whole < 3600) return Print("%lldm ago", whole / 60);
  if (whole < 86400) return Print("%lldh ago", whole / 3600);
  return Print("%lldd ago", whole / 86400);
}

std::optional<std::chrono::milliseconds> ParseDuration(std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc()) return std::nullopt;
  const std::string_view unit(end, static_cast<std::size_t>(text.data() + text.size() - end));
  double scale = 0;
  if (unit == "ms") scale = 1;
  if (unit == "s" || unit.empty()) scale = 1000;
  if (unit == "m" || unit == "min") scale = 60'000;
  if (unit == "h") scale = 3'600'000;
  constexpr double kYear = 366.0 * 24 * 3'600'000;
  const double milliseconds = value * scale;
  if (!(milliseconds >= 1 && milliseconds <= kYear)) return std::nullopt;
  return std::chrono::milliseconds(static_cast<std::int64_t>(milliseconds));
}

}  // namespace hearth::client
