// The life of one entry of the cache.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace hearth {

//   absent -> queued -> loading -> ready -> draining -> unloading -> absent
//                |         |          +------ unpinned ------^
//                +---------+-> failed -> queued   asked for again after the back-off, or by Load
//                                     -> absent   not worth remembering, or Unload
//
// An entry is one generation of a model: while an old one drains or unloads, a new one may already
// be queued, and a reload puts the new one beside the old. What holds in each state:
//
//               model   bytes charged       pins        waiters
//   absent      -       -                   closed, 0   -
//   queued      -       - (or a claim)      closed, 0   any
//   loading     -       estimated peak      closed, 0   any
//   ready       yes     measured            open        -
//   draining    yes     measured            closed      -
//   unloading   -  (1)  until it is gone    closed, 0   -
//   failed      -       -                   closed, 0   -
//
// A destructor that is stuck (ModelCache::Strand) leaves its bytes charged as loading, which nobody counts on.
//
// (1) with whoever destroys it: destroying may block, so it never happens under the cache's lock.
//
// ModelCache::CheckInvariants() is this table as code; tests/residency/model_state_test.cc walks
// all pairs of states. The three change together.
enum class ModelState : std::uint8_t {
  kAbsent, kQueued, kLoading, kReady, kDraining, kUnloading, kFailed,
};

inline constexpr std::size_t kModelStateCount = 7;

// The word used in `hearth ps`, logs and replies.
constexpr std::string_view ToString(ModelState state) {
  constexpr std::array<std::string_view, kModelStateCount> kNames = {
      "absent", "queued", "loading", "ready", "draining", "unloading", "failed"};
  return kNames[static_cast<std::size_t>(state)];
}

// The only definition of what may follow what.
constexpr bool CanFollow(ModelState from, ModelState to) {
  using enum ModelState;
  switch (from) {
    case kAbsent: return to == kQueued;
    case kQueued: return to == kLoading || to == kFailed;
    case kLoading: return to == kReady || to == kFailed;
    case kReady: return to == kDraining || to == kUnloading;
    case kDraining: return to == kUnloading;
    case kUnloading: return to == kAbsent;
    case kFailed: return to == kQueued || to == kAbsent;
  }
  return false;
}

// A load of this entry is on its way.
constexpr bool IsComing(ModelState state) {
  return state == ModelState::kQueued || state == ModelState::kLoading;
}
// Not acquirable any more, and its bytes are not back yet.
constexpr bool IsLeaving(ModelState state) {
  return state == ModelState::kDraining || state == ModelState::kUnloading;
}

}  // namespace hearth
