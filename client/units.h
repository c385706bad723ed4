// Quantities the way people read them, and durations the way they write them.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace hearth::client {

// "0", "512 B", "1.5 KiB", "2.0 GiB".
std::string FormatBytes(std::uint64_t bytes);
// "850 us", "12.3 ms", "4.56 s", "2m 05s", "3h 07m", "2d 04h".
std::string FormatSeconds(double seconds);
// "just now", "12s ago", "5m ago", "3h ago", "2d ago". A clock that runs ahead is "just now".
std::string FormatAge(double seconds);

// "30s", "500ms", "2m", "1.5h"; a bare number is seconds. Nothing for anything else, for zero or less,
// or for more than a year.
std::optional<std::chrono::milliseconds> ParseDuration(std::string_view text);

}  // namespace hearth::client
