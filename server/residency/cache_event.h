// One thing that happened to a model in the cache, and what it was about.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "server/base/clock.h"
#include "server/base/status.h"
#include "server/metrics/metrics.h"
#include "server/model/signature.h"
#include "server/model/tier.h"
#include "server/residency/dimensions.h"
#include "server/residency/idle_gaps.h"

namespace hearth {

enum class CacheEventKind : std::uint8_t {
  kQueued,    // somebody asked for it, and a load thread will come
  kLoading,   // there is room, and the load has begun
  kReady,
  kFailed,    // its load
  kEvicted,   // made room for another model, did not fit into a smaller budget, was not asked for in its idle_unload, or
              // went because Evict said so
  kUnloaded,  // left for any other reason
  kRefused,   // asked for while the failure of its load is remembered
  kFell,      // what is left of one that was evicted is on another tier now
  kStalled,   // no load thread is left; its load is one of those that keep them
  kLost,      // a device could not free all of its memory
};

// The word in `hearth events` and on the wire.
constexpr std::string_view ToString(CacheEventKind kind) {
  constexpr std::array<std::string_view, 10> kNames = {"queued",  "loading",  "ready",   "failed",
                                                      "evicted", "unloaded", "refused", "fell",    "stalled",
                                                       "lost"};
  return kNames[static_cast<std::size_t>(kind)];
}

// Why it was this one that had to make room.
struct EvictionCause {
  ModelId made_room_for;
  Bytes needed;                // of what was short, what that model reserved
  double loss = 0;             // what its absence was reckoned to cost (EvictionPolicy::Loss)
  std::size_t rank = 1;        // by that, among the candidates: 1 would be missed the least
  std::size_t candidates = 1;  // models that could have gone, and hold any of what was short
  double demand = 0;           // uses, fading (demand.h)
};

// A value. Fields that a kind does not name are as they are here.
struct CacheEvent {
  CacheEventKind kind = CacheEventKind::kQueued;
  ModelId id{};
  // Set by EventLog::Add.
  std::uint64_t sequence = 0;  // from 1 on, in the order in which they were told, without gaps
  WallTime time{};             // for people
  TimePoint at{};              // for ages

  bool request = false;     // queued: for a request
  bool waited_for = false;  // queued: somebody waits for it
  std::optional<Expectation> expected{};  // queued: the use it is ahead of, where that is foreseen
  Bytes bytes{};            // loading: reserved. ready, unloaded, fell: charged. evicted: that came back, but for what is
                            // lost. lost: that
  Duration took{};          // ready, failed: since a load thread took it
  std::size_t waiters = 0;  // ready, failed: who waited for it. stalled: who waited for any
  std::optional<Duration> away{};  // ready: since it had made room for others
  absl::Status error{};            // failed, refused, stalled: why
  EvictionReason reason = EvictionReason::kCapacity;  // evicted, unloaded
  Duration resident{}, idle{};                        // evicted, unloaded: until then
  std::uint64_t hits = 0;                             // evicted, unloaded: while it was here
  enum class Found : std::uint8_t { kResident, kAbsent, kLoading, kHanging };
  Found found = Found::kResident;                     // unloaded: what it was
  std::optional<EvictionCause> cause{};               // evicted to make room
  Tier tier = Tier::kCold;                            // ready: where its load found it. fell: where it is now
};

// "ahead of need: asked for every 5m, expected in 40s".
std::string Describe(const Expectation& expected, TimePoint now);

// What follows the kind's word in a sentence, without times of the day: "for resnet-50:1: 412 MiB of mapped memory
// needed, 380 MiB came back; ...". May be empty.
std::string Describe(const CacheEvent& event, const DeviceNames& devices = {});

}  // namespace hearth
