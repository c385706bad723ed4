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

}  // namespace hearth
