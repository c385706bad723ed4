// Where the time of a load went.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "server/base/clock.h"

namespace hearth {

// In the order they happen.
enum class LoadPhase : std::uint8_t { kMap, kParse, kBind, kToDevice, kPopulate, kWarmUp };

inline constexpr std::size_t kLoadPhaseCount = 6;

// The names used in logs, metrics and replies.
constexpr std::string_view ToString(LoadPhase phase) {
  constexpr std::array<std::string_view, kLoadPhaseCount> kNames = {"map",       "parse",    "bind",
                                                                    "to_device", "populate", "warm_up"};
  return kNames[static_cast<std::size_t>(phase)];
}

struct LoadReport {
  std::array<Duration, kLoadPhaseCount> phases{};  // wall time; zero: did not happen
  std::uint64_t weight_bytes = 0;                  // bytes of tensors bound
  std::uint64_t copied_bytes = 0;                  // of those, copied because they could not be mapped

  Duration& operator[](LoadPhase phase) { return phases[static_cast<std::size_t>(phase)]; }
  Duration operator[](LoadPhase phase) const { return phases[static_cast<std::size_t>(phase)]; }
  Duration total() const {
    Duration sum{};
    for (const Duration d : phases) sum += d;
    return sum;
  }
};

}  // namespace hearth
