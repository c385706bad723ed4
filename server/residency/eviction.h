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

// A model that could go: ready, not pinned, not hard-pinned. A snapshot; by the time it is acted
// upon a request may have come for it (ModelCache::TakeVictims then refuses).
struct EvictionCandidate {
  CacheEntry* entry = nullptr;
  std::uint64_t generation = 0;  // which life of `entry` this is
  ModelId id;
  std::shared_ptr<const Footprint> footprint;
  TimePoint last_used{};
  std::uint64_t hits = 0;
};

// Stateless and thread-safe; called without locks.
class EvictionPolicy {
 public:
  virtual ~EvictionPolicy() = default;
  // How much a model is worth keeping. The least goes first.
  virtual double Worth(const EvictionCandidate& candidate, TimePoint now) const = 0;
};

// The one that was asked for longest ago goes first.
class LruPolicy final : public EvictionPolicy {
 public:
  double Worth(const EvictionCandidate& candidate, TimePoint now) const override {
    return -ToSeconds(now - candidate.last_used);
  }
};

// Indices of the candidates that have to go so that `need` fits into `capacity` beside `settled`,
// the candidates being part of it. Taken by increasing worth until they cover the need; then those
// that the others make unnecessary are spared, the most worthy first. Empty: it fits already. None:
// not even all of them would do.
//
// What goes is judged by what would really come back: bytes shared with a model that stays do not.
std::optional<std::vector<std::size_t>> ChooseVictims(
    const std::vector<EvictionCandidate>& candidates, const EvictionPolicy& policy, TimePoint now,
    Ledger settled, const Bytes& capacity, const Footprint& need);

}  // namespace hearth
