#include "server/base/duration.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"

namespace hearth {
namespace {

using Ns = std::chrono::nanoseconds;

constexpr std::pair<std::string_view, std::int64_t> kUnits[] = {
    {"h", 3'600'000'000'000}, {"m", 60'000'000'000}, {"s", 1'000'000'000},
    {"ms", 1'000'000},        {"us", 1'000},         {"ns", 1}};

std::string_view TakeWhile(std::string_view& text, std::string_view characters) {
  const std::size_t end = std::min(text.find_first_not_of(characters), text.size());
  const std::string_view taken = text.substr(0, end);
  text.remove_prefix(end);
  return taken;
}

// Nanoseconds of "1.5" and "s"; negative when it is not a time.
double Part(std::string_view number, std::string_view unit) {
  double value = 0;
  if (number.empty() || !absl::SimpleAtod(ToAbsl(number), &value)) return -1;
  for (const auto& [name, ns] : kUnits) {
    if (unit == name) return value * static_cast<double>(ns);
  }
  return -1;
}

}  // namespace

absl::StatusOr<Duration> ParseDuration(std::string_view text) {
  constexpr double kLongest = 9.0e18;  // nanoseconds in an int64: 285 years
  double total = 0;
  bool good = !text.empty();
  std::string_view rest = text == "0" ? "0s" : text;
  while (good && !rest.empty()) {
    const std::string_view number = TakeWhile(rest, "0123456789.");
    const double part = Part(number, TakeWhile(rest, "hmnsu"));
    good = part >= 0 && total + part < kLongest;
    total += part;
  }
  if (!good) {
    return absl::InvalidArgumentError(StrCat(
        "'", text, "' is not a time; write a number with a unit, such as 250ms, 10s, 5m or 1h"));
  }
  return std::chrono::duration_cast<Duration>(Ns(std::llround(total)));
}

std::string FormatDuration(Duration duration) {
  const std::int64_t ns = std::chrono::duration_cast<Ns>(duration).count();
  if (ns == 0) return "0s";
  for (const auto& [name, unit] : kUnits) {
    if (ns % unit == 0) return StrCat(ns / unit, name);
  }
  return StrCat(ns, "ns");
}

std::string RoughDuration(Duration duration) {
  const double seconds = std::max(0.0, ToSeconds(duration));
  if (seconds < 0.0009995) return absl::StrFormat("%.0fus", seconds * 1e6);
  if (seconds < 0.9995) return absl::StrFormat("%.0fms", seconds * 1e3);
  if (seconds < 9.95) return absl::StrFormat("%.1fs", seconds);
  const auto whole = static_cast<std::int64_t>(seconds + 0.5);
  if (whole < 60) return StrCat(whole, "s");
  const std::int64_t minutes = (whole + 30) / 60;
  if (minutes < 60) return StrCat(minutes, "m");
  if (minutes < 24 * 60) return absl::StrFormat("%dh %02dm", minutes / 60, minutes % 60);
  const std::int64_t hours = (minutes + 30) / 60;
  return absl::StrFormat("%dd %02dh", hours / 24, hours % 24);
}

}  // namespace hearth
