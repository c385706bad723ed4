// Which models go when room is needed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "server/base/clock.h"
#include "server/model/footprint.h"
#include "server/model/signature.h"
#include "server/residency/ledger.h"

namespace hearth {

struct CacheEntry;
struct ModelSlot;

// A model that could go: ready, not pinned, not hard-pinned; or the pages of a rest. A snapshot; by the time it is
// acted upon a request may have come for it (ModelCache::TakeVictims then refuses).
struct EvictionCandidate {
  CacheEntry* entry = nullptr;   // null: a rest
  ModelSlot* rest_of = nullptr;  // null: a model
  std::uint64_t generation = 0;  // which life of `entry` this is, or which rest
  ModelId id;
  std::shared_ptr<const Footprint> footprint;
  TimePoint ready_at{};
  TimePoint last_used{};
  std::uint64_t hits = 0;
  double demand = 0;   // uses, fading (demand.h); also of earlier lives
  Duration reload{};   // what its loads took, as measured; the last ones count most
  bool young = false;  // has not been here for as long as the configuration promises
};

// Whether `candidate` may go for a load that nobody waits for, of a model with `demand`. Unlike a policy, which says
// who goes first, this says who does not go at all: who was used within a half-life, or is young, or is asked for
// about as often as what would come. Two models cannot take turns: who has just come counts as used, and who goes for
// the other's greater demand has less than half of it.
bool MayBeDisplaced(const EvictionCandidate& candidate, double demand, TimePoint now, Duration half_life);

// Stateless and thread-safe; called without locks.
class EvictionPolicy {
 public:
  virtual ~EvictionPolicy() = default;
  // What would be lost with the candidate, from now on. Comparable among the candidates of one choice.
  virtual double Loss(const EvictionCandidate& candidate, TimePoint now) const = 0;
  // Whether losses of several add up, and are to be held against the bytes that come back for them. Otherwise the
  // least goes first, however small.
  virtual bool adds_up() const = 0;
};

// The one that was asked for longest ago goes first.
class LruPolicy final : public EvictionPolicy {
 public:
  double Loss(const EvictionCandidate& candidate, TimePoint now) const override {
    return -ToSeconds(now - candidate.last_used);
  }
  bool adds_up() const override { return false; }
};

// Greedy-Dual-Size-Frequency, with a fading count in place of its clock: time that requests would wait for the model
// to come back, by how often it is asked for and what its loads took.
class GdsfPolicy final : public EvictionPolicy {
 public:
  double Loss(const EvictionCandidate& candidate, TimePoint) const override {
    return candidate.demand * ToSeconds(candidate.reload + kAnyLoad);
  }
  bool adds_up() const override { return true; }

 private:
  static constexpr Duration kAnyLoad = std::chrono::milliseconds(1);  // no load is for nothing
};

// Indices of the candidates that have to go so that `need` fits into `capacity` beside `settled`, the candidates being
// part of it. Empty: it fits already. None: not even all of them would do.
//
// They are taken by increasing loss, for each byte that really comes back where it is short if losses add up, rests
// before all models and young ones last; until they cover the need. Then those that the others make unnecessary are spared, the greatest loss
// first. Where losses add up, one that covers the need alone goes in their place if that loses less.
//
// What goes is judged by what would really come back: bytes shared with a model that stays do not. Too much on a device
// that `need` does not use is no matter here (CapacityFor).
std::optional<std::vector<std::size_t>> ChooseVictims(
    const std::vector<EvictionCandidate>& candidates, const EvictionPolicy& policy, TimePoint now,
    Ledger settled, const Bytes& capacity, const Footprint& need);

// What really comes back with each of `chosen`, indices of the candidates that leave in this order; the sum is what all
// of them bring. `settled` as above.
std::vector<Bytes> BytesThatComeBack(const std::vector<EvictionCandidate>& candidates,
                                     const std::vector<std::size_t>& chosen, Ledger settled);

// By how much `need` beside `settled` is more than `capacity`, in each dimension; 0 where it is not, and on devices that
// `need` does not use.
Bytes Lacking(const Footprint& need, Ledger settled, const Bytes& capacity);

// The same for a capacity that became too small for `settled`: who has to go so that it fits, or, if not even all of
// them would do, so that it comes as close as it can. Empty: it fits, or nobody could help.
std::vector<std::size_t> ChooseExcess(const std::vector<EvictionCandidate>& candidates, const EvictionPolicy& policy,
                                      TimePoint now, Ledger settled, const Bytes& capacity);

// What `settled` would come to without any of the candidates.
Bytes HeldWithout(const std::vector<EvictionCandidate>& candidates, Ledger settled);

}  // namespace hearth
