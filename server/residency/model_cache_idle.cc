// Models that nobody asks for.
#include <algorithm>
#include <optional>
#include <utility>

#include "server/base/check.h"
#include "server/residency/model_cache.h"

namespace hearth {
namespace {

constexpr Duration kLeastLook = std::chrono::seconds(1);  // so long at least from one look to the next

}  // namespace

// None: as long as nobody else wants the room.
std::optional<Duration> ModelCache::IdleLimit(const CacheEntry& entry) const {
  const Duration asked(entry.slot.keep_alive.load(std::memory_order_relaxed));
  if (asked == kKeepForever) return std::nullopt;
  if (asked != ModelSlot::kNotAsked) return asked;
  if (entry.idle_unload == Duration::zero()) return std::nullopt;
  return entry.idle_unload;
}

std::optional<TimePoint> ModelCache::DueAt(const CacheEntry& entry) const {
  const std::optional<Duration> limit = IdleLimit(entry);
  TimePoint used(Duration(entry.last_used.load(std::memory_order_relaxed)));
  // One that was loaded ahead of its use is not idle before that.
  const bool awaited = entry.expected && entry.hits.load(std::memory_order_relaxed) == 0;
  if (awaited) used = std::max(used, entry.expected->at);
  if (!limit || *limit >= TimePoint::max() - used) return std::nullopt;
  return used + *limit;
}

// A model that leaves when it is idle is in the queue; one whose time came while it was in use says so to whoever
// drops its last handle, and comes back here.
void ModelCache::Schedule(CacheEntry& entry) {
  entry.leave_when_idle.store(false);
  const std::optional<TimePoint> due = DueAt(entry);
  if (entry.state == ModelState::kReady && !entry.slot.pinned() && due) {
    // One that is awaited would be due sooner if it was used sooner.
    const TimePoint now = clock_.Now();
    const Duration look = std::max(*IdleLimit(entry), kLeastLook);
    idle_.Set(entry, *due - now > look ? now + look : *due);
  } else {
    idle_.Remove(entry);
  }
}

bool ModelCache::SetKeepAlive(const ModelHandle& handle, Duration keep_alive) {
  ModelSlot& slot = handle.entry_->slot;
  if (slot.keep_alive.load(std::memory_order_relaxed) == keep_alive.count()) return false;
  MutexLock lock(mu_);
  slot.keep_alive.store(keep_alive.count(), std::memory_order_relaxed);
  if (CacheEntry* current = slot.current.load(std::memory_order_relaxed)) Schedule(*current);
  CheckLocked();
  return true;
}

std::vector<ModelCache::Victim> ModelCache::TakeIdle() {
  MutexLock lock(mu_);
  const TimePoint now = clock_.Now();
  std::vector<Victim> victims;
  while (CacheEntry* entry = idle_.TakeDue(now)) {
    HEARTH_CHECK(entry->state == ModelState::kReady);
    // In this order: either the last handle to be dropped sees the flag, or we see that it was dropped.
    entry->leave_when_idle.store(true);
    if (!entry->pins.TryClose()) continue;
    const std::optional<TimePoint> due = DueAt(*entry);  // nobody can use it any more, so this is its last use
    if (!due || *due > now) {
      entry->pins.Reopen();
      Schedule(*entry);
      continue;
    }
    entry->leaving = EvictionReason::kIdle;
    entry->reservation.BeginUnloading();
    victims.push_back(TakeOut(*entry));
  }
  CheckLocked();
  return victims;
}

std::optional<TimePoint> ModelCache::next_idle() const {
  MutexLock lock(mu_);
  return idle_.next();
}

// Its time came while it was in use, and this was the last handle. By now it may be in use again, or gone.
void ModelCache::FellIdle(CacheEntry& entry) {
  {
    MutexLock lock(mu_);
    if (!entry.leave_when_idle.load()) return;
    Schedule(entry);
    CheckLocked();
  }
  if (hooks_.idle) hooks_.idle();
}

}  // namespace hearth
