// Where the time of a load went.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "server/base/clock.h"
#include "server/model/tier.h"

namespace hearth {

// In the order they happen.
//   open       open the files and check their structure; the load's estimate is made of that
//   map        map what is not mapped yet, and share what others have mapped
//   verify     compare weights with their checksums, where model.yaml asks for it
//   parse      compile the program; nothing but its lookup when it was kept
//   bind       make tensors of the weights
//   read       copy and unpack the weights that cannot be mapped, or must not be: residency: sealed
//   to_device  copy the weights to an accelerator
//   populate   wait for the mapped pages, which are brought into memory from when they are mapped
//   analyse    find out what the program writes to
//   warm_up    run the model on samples
enum class LoadPhase : std::uint8_t {
  kOpen, kMap, kVerify, kParse, kBind, kRead, kToDevice, kPopulate, kAnalyse, kWarmUp
};

inline constexpr std::size_t kLoadPhaseCount = 10;

// The names used in logs, metrics and replies.
constexpr std::string_view ToString(LoadPhase phase) {
  constexpr std::array<std::string_view, kLoadPhaseCount> kNames = {
      "open", "map", "verify", "parse", "bind", "read", "to_device", "populate", "analyse", "warm_up"};
  return kNames[static_cast<std::size_t>(phase)];
}

// What one phase cost. CPU time and faults are those of the loading thread alone: helpers of a parallel
// phase are not in them.
struct PhaseCost {
  Duration start{};  // since the load began; of the first part, if the phase comes in parts
  Duration wall{};   // zero: did not happen
  Duration cpu{};
  std::uint64_t bytes = 0;  // mapped, copied or brought in
  std::uint64_t minor_faults = 0;
  std::uint64_t major_faults = 0;  // waited for the disk
};

// When a phase was at work. Parts of all phases are disjoint: what happens inside another phase divides it.
struct PhasePart {
  LoadPhase phase{};
  Duration start{};  // since the load began
  Duration wall{};
};

// A program may be parsed class after class while its weights are bound: of that, half as many are kept.
inline constexpr std::size_t kMaxPhaseParts = 64;

struct LoadReport {
  TimePoint began{};
  std::array<PhaseCost, kLoadPhaseCount> phases{};
  std::vector<PhasePart> parts = {};  // of one phase in the order of time; kMaxPhaseParts at most
  std::uint64_t weight_bytes = 0;  // bytes of tensors bound
  std::uint64_t copied_bytes = 0;  // of those, copied because they could not be mapped
  std::uint64_t mapped_bytes = 0;  // of the files' ranges that are mapped as weights
  std::uint64_t cached_bytes = 0;  // of those, in the page cache already when the load began
  std::uint64_t shared_bytes = 0;  // of those, mapped already by other models
  std::uint64_t locked_bytes = 0;  // of those, locked in memory
  bool kept_program = false;       // an earlier load had parsed the program
  Tier from = Tier::kCold;         // where the load found the model; the cache says so

  PhaseCost& operator[](LoadPhase phase) { return phases[static_cast<std::size_t>(phase)]; }
  const PhaseCost& operator[](LoadPhase phase) const { return phases[static_cast<std::size_t>(phase)]; }
  Duration total() const {
    Duration sum{};
    for (const PhaseCost& cost : phases) sum += cost.wall;
    return sum;
  }
};

}  // namespace hearth
