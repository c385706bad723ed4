// Spans of time as people write them.
#pragma once

#include <string>
#include <string_view>

#include "server/base/clock.h"
#include "server/base/status.h"

namespace hearth {

// "250ms", "1.5s", "5m", "1h30m"; units are h, m, s, ms, us, ns. A bare number is refused, but for
// 0. Never negative.
[[nodiscard]] absl::StatusOr<Duration> ParseDuration(std::string_view text);

// Exact, in the largest unit that leaves no fraction: "90s", "5m", "0s". ParseDuration reads it
// back. REQUIRES: not negative.
[[nodiscard]] std::string FormatDuration(Duration duration);

// For sentences, to two digits or so: "850us", "12ms", "4.6s", "40s", "5m", "2h 05m", "3d 04h".
[[nodiscard]] std::string RoughDuration(Duration duration);

}  // namespace hearth
