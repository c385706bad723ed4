// How much of a model is still there when it is not ready.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace hearth {

// A model on a device falls from there to the highest of these that there is room for, and then step by step; its load
// begins on the one that it is found on. Ascending.
//   cold    nothing but its program, if that is kept
//   mapped  its files are open, checked and mapped; their pages are wherever the kernel has them
//   host    their pages are in memory, too, and stay there
enum class Tier : std::uint8_t { kCold, kMapped, kHost };

inline constexpr std::size_t kTierCount = 3;

// The word in `hearth ps`, metrics, logs and replies.
constexpr std::string_view ToString(Tier tier) {
  constexpr std::array<std::string_view, kTierCount> kNames = {"cold", "mapped", "host"};
  return kNames[static_cast<std::size_t>(tier)];
}

}  // namespace hearth
