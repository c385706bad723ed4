// Models that left and will be asked for again: what is learned of when (idle_gaps.h).
#include <algorithm>
#include <utility>

#include "server/residency/model_cache.h"

namespace hearth {
namespace {

constexpr Duration kLeastMargin = std::chrono::seconds(1);

}  // namespace

// The first use since it left.
void ModelCache::NoteReturn(ModelSlot& slot, TimePoint at) {
  if (!std::exchange(slot.away, false)) return;
  slot.foreseen = false;
  if (options_.gaps == 0 || at <= slot.last_use) return;
  if (slot.gaps == nullptr) {
    if (gaps_ == options_.gaps) ForgetGaps();
    ++gaps_;
    slot.gaps = std::make_unique<IdleGaps>();
  }
  slot.gaps->Add(at - slot.last_use);
}

// For want of room, or because nobody asked for it; nobody can use it any more.
void ModelCache::NoteAway(CacheEntry& entry) {
  ModelSlot& slot = entry.slot;
  if (entry.hits.load(std::memory_order_relaxed) > 0) {
    NoteReturn(slot, TimePoint(Duration(entry.first_hit.load(std::memory_order_relaxed))));
    slot.last_use = TimePoint(Duration(entry.last_used.load(std::memory_order_relaxed)));
  }
  slot.away = slot.last_use != TimePoint{};  // or nobody has ever asked for it
}

// Those of the model that was not asked for for longest.
void ModelCache::ForgetGaps() {
  ModelSlot* oldest = nullptr;
  for (const auto& slot : index_.slots()) {
    if (slot->gaps == nullptr) continue;
    if (oldest == nullptr || slot->last_use < oldest->last_use) oldest = slot.get();
  }
  oldest->gaps.reset();
  --gaps_;
}

std::optional<Expectation> ModelCache::ExpectedUse(const ModelId& id) const {
  MutexLock lock(mu_);
  const ModelSlot* slot = index_.Find(id);
  if (slot == nullptr || !slot->away || slot->foreseen || slot->gaps == nullptr) return std::nullopt;
  const bool coming = slot->incoming != nullptr && IsComing(slot->incoming->state);
  if (coming || slot->current.load(std::memory_order_relaxed) != nullptr) return std::nullopt;
  const std::optional<IdleGaps::Period> period = slot->gaps->Regular();
  if (!period) return std::nullopt;
  const Duration margin = std::max(kLeastMargin, slot->reload / 2);
  return Expectation{.every = period->typical,
                     .at = slot->last_use + period->typical,
                     .load_at = slot->last_use + period->earliest - slot->reload - margin};
}

ModelCache::Prewarms ModelCache::prewarms() const {
  MutexLock lock(mu_);
  Prewarms prewarms = prewarms_;
  for (const auto& slot : index_.slots()) {
    const CacheEntry* current = slot->current.load(std::memory_order_relaxed);
    if (current != nullptr && IsPrewarmUsed(*current)) ++prewarms.used;
  }
  return prewarms;
}

bool ModelCache::IsPrewarmUsed(const CacheEntry& entry) const {
  return entry.expected && (entry.expectation_met || entry.hits.load(std::memory_order_relaxed) > 0);
}

// It is about to leave; nobody can use it any more.
void ModelCache::CountPrewarm(CacheEntry& entry) {
  if (IsPrewarmUsed(entry)) ++prewarms_.used;
  entry.expected.reset();
}

}  // namespace hearth
