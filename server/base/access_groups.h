// The groups that calls belong to, over whatever they come: who may call what is said of groups.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string_view>
#include <utility>

namespace hearth {

enum class AccessGroup : std::uint8_t {
  kHealth,      // live, ready, a model's ready
  kMetadata,    // what there is: server, models, their configuration, the repository's index, the log's settings
  kInference,
  kStatistics,  // how it fares: metrics, statistics, the cache's state and journal
  kRepository,  // load and unload
  kControl,     // whatever else changes something: pins, evictions, reloads, the log's level, shared memory
};
inline constexpr std::array<std::pair<std::string_view, AccessGroup>, 6> kAccessGroups = {{
    {"health", AccessGroup::kHealth},
    {"metadata", AccessGroup::kMetadata},
    {"inference", AccessGroup::kInference},
    {"statistics", AccessGroup::kStatistics},
    {"repository", AccessGroup::kRepository},
    {"control", AccessGroup::kControl},
}};
constexpr std::string_view ToString(AccessGroup group) { return kAccessGroups[static_cast<std::size_t>(group)].first; }

// Some of them. A value.
class AccessGroups {
 public:
  constexpr AccessGroups() = default;
  constexpr AccessGroups(std::initializer_list<AccessGroup> groups) {
    for (const AccessGroup group : groups) Add(group);
  }
  static constexpr AccessGroups FromBits(std::uint32_t bits) {
    AccessGroups groups;
    groups.bits_ = bits;
    return groups;
  }
  static constexpr AccessGroups All() { return FromBits((1U << kAccessGroups.size()) - 1); }

  constexpr void Add(AccessGroup group) { bits_ |= Bit(group); }
  constexpr bool Has(AccessGroup group) const { return (bits_ & Bit(group)) != 0; }
  constexpr std::uint32_t bits() const { return bits_; }
  friend constexpr AccessGroups operator&(AccessGroups a, AccessGroups b) { return FromBits(a.bits_ & b.bits_); }
  friend constexpr bool operator==(AccessGroups, AccessGroups) = default;

 private:
  static constexpr std::uint32_t Bit(AccessGroup group) { return 1U << static_cast<std::uint32_t>(group); }
  std::uint32_t bits_ = 0;
};

// Where calls come in; called as its section of the configuration.
enum class Listener : std::uint8_t { kGrpc, kRest, kHttp };
inline constexpr std::array<std::string_view, 3> kListeners = {"grpc", "rest", "http"};
constexpr std::string_view ToString(Listener listener) { return kListeners[static_cast<std::size_t>(listener)]; }

}  // namespace hearth
