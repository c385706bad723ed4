// What people see of the cache, and what must always be true of it.
#include <algorithm>
#include <tuple>
#include <utility>

#include "server/base/check.h"
#include "server/residency/model_cache.h"

namespace hearth {

std::vector<ModelCache::Row> ModelCache::Snapshot() const {
  std::vector<std::pair<std::uint64_t, Row>> rows;
  {
    MutexLock lock(mu_);
    for (const auto& slot : index_.slots()) {
      for (const auto& entry : slot->entries) {
        if (entry->state == ModelState::kAbsent) continue;
        Row row;
        row.id = slot->id;
        row.state = entry->state;
        row.pins = entry->pins.count();
        row.hits = entry->hits.load(std::memory_order_relaxed);
        if (const auto& footprint = entry->reservation.footprint()) {
          row.device_bytes = footprint->device_bytes;
          row.device = footprint->device;
          row.host_bytes = footprint->host_bytes;
          row.mapped_bytes = footprint->mapped_bytes();
          row.window_bytes = footprint->window_bytes;
        }
        row.last_used = TimePoint(Duration(entry->last_used.load(std::memory_order_relaxed)));
        row.loaded_at = entry->loaded_at;
        row.revision = entry->revision;
        row.pinned = slot->pinned() && !IsLeaving(entry->state);
        row.waiters = waiters_.count(entry.get());
        row.priority = entry->priority;
        row.since = entry->state == ModelState::kLoading ? entry->loading_at : entry->queued_at;
        row.hangs = entry->stuck();
        row.expected = entry->expected;
        row.load_report = entry->report;
        row.error = entry->hangs.value_or(entry->blocked.value_or(entry->error));
        row.retry_at = entry->retry_at;
        rows.emplace_back(entry->generation, std::move(row));
      }
    }
  }
  std::sort(rows.begin(), rows.end(), [](const auto& a, const auto& b) {
    return std::tie(a.second.id, a.first) < std::tie(b.second.id, b.first);
  });
  std::vector<Row> sorted;
  sorted.reserve(rows.size());
  for (auto& [generation, row] : rows) sorted.push_back(std::move(row));
  return sorted;
}

namespace {

// The file is at fault, and not what happened around it: the next load would find the same.
bool IsTheFiles(const absl::Status& error) {
  return absl::IsInvalidArgument(error) || absl::IsFailedPrecondition(error) || absl::IsUnimplemented(error) ||
         absl::IsDataLoss(error) || absl::IsOutOfRange(error);
}

}  // namespace

bool ModelCache::IsRefused(const ModelId& id) const {
  MutexLock lock(mu_);
  const ModelSlot* const slot = index_.Find(id);
  if (slot == nullptr || slot->incoming == nullptr) return false;
  const CacheEntry& incoming = *slot->incoming;
  if (incoming.hangs) return true;
  return incoming.state == ModelState::kFailed && (clock_.Now() < incoming.retry_at || IsTheFiles(incoming.error));
}

bool ModelCache::shutting_down() const {
  MutexLock lock(mu_);
  return shutting_down_;
}

void ModelCache::CheckInvariants() const {
  MutexLock lock(mu_);
  CheckTable();
}

void ModelCache::CheckLocked() const {
#ifndef NDEBUG
  CheckTable();
#endif
}

void ModelCache::CheckTable() const {
  Ledger ledger;
  std::size_t waiting = 0;
  std::size_t queued = 0;
  std::size_t rests = 0;
  std::size_t gaps = 0;
  for (const auto& slot : index_.slots()) {
    const CacheEntry* ready = nullptr;
    const CacheEntry* incoming = nullptr;
    for (const auto& owned : slot->entries) {
      const CacheEntry& entry = *owned;
      CheckEntry(entry);
      if (entry.reservation) ledger.Add(*entry.reservation.footprint(), entry.reservation.phase());
      waiting += waiters_.count(&entry);
      queued += entry.state == ModelState::kQueued && !entry.taken ? 1 : 0;
      if (entry.state == ModelState::kReady) {
        HEARTH_CHECK(ready == nullptr);
        ready = &entry;
      }
      if (IsComing(entry.state) || entry.state == ModelState::kFailed) {
        HEARTH_CHECK(incoming == nullptr);
        incoming = &entry;
      }
    }
    HEARTH_CHECK(slot->current.load(std::memory_order_relaxed) == ready);
    HEARTH_CHECK(slot->incoming == incoming);
    CheckRest(*slot);
    gaps += slot->gaps != nullptr ? 1 : 0;
    const KeptRest& rest = slot->rest;
    if (rest.reservation) ledger.Add(*rest.reservation.footprint(), rest.reservation.phase());
    rests += rest.files != nullptr ? 1 : 0;
  }
  HEARTH_CHECK(waiting == waiters_.count());
  HEARTH_CHECK(queued == queue_.size());
  HEARTH_CHECK(gaps == gaps_ && gaps <= options_.gaps);
  HEARTH_CHECK(rests == rests_.size() && rests <= options_.rests);
  const MemoryBudget::Usage usage = budget_.usage();
  HEARTH_CHECK(usage.resident == ledger.held(HoldPhase::kResident));
  HEARTH_CHECK(usage.loading == ledger.held(HoldPhase::kLoading));
  HEARTH_CHECK(usage.unloading == ledger.held(HoldPhase::kUnloading));
  HEARTH_CHECK(usage.used() <= usage.ceiling);
  HEARTH_CHECK(budget_.Settled().used() <= usage.ceiling);
}

// The table in model_state.h, row by row.
void ModelCache::CheckEntry(const CacheEntry& entry) const {
  using enum ModelState;
  const ModelState state = entry.state;
  const bool has_model = entry.model != nullptr;
  HEARTH_CHECK(has_model == (state == kReady || state == kDraining));
  const bool charged = static_cast<bool>(entry.reservation);
  HEARTH_CHECK(charged == (state == kLoading || has_model || state == kUnloading));
  if (charged) {
    const HoldPhase phase = entry.reservation.phase();
    const bool stranded = state == kUnloading && phase == HoldPhase::kLoading;
    HEARTH_CHECK(stranded || phase == (state == kLoading     ? HoldPhase::kLoading
                                       : state == kUnloading ? HoldPhase::kUnloading
                                                             : HoldPhase::kResident));
  }
  HEARTH_CHECK(entry.pins.closed() == (state != kReady));
  if (!has_model) HEARTH_CHECK(entry.pins.count() == 0);
  if (!IsComing(state)) {
    HEARTH_CHECK(waiters_.count(&entry) == 0);
    HEARTH_CHECK(!entry.stopping && !entry.reload);
  }
  if (state != kQueued) HEARTH_CHECK(!entry.claim && !entry.blocked && !entry.taken && !entry.giving_up);
  if (waiters_.HasNormal(&entry)) HEARTH_CHECK(entry.priority == LoadPriority::kNormal);
  if ((!IsComing(state) && !IsLeaving(state)) || entry.stuck()) HEARTH_CHECK(entry.on_gone.empty());
  const bool leaves = entry.leave_when_idle.load();
  if (state != kReady || entry.slot.pinned() || !DueAt(entry)) {
    HEARTH_CHECK(!idle_.contains(entry));
  } else {
    HEARTH_CHECK(idle_.contains(entry) || leaves);
  }
  if (state != kReady) HEARTH_CHECK(!leaves);
  if (!IsLeaving(state)) HEARTH_CHECK(!entry.leaves_nothing);
  if (IsLeaving(state) || state == kAbsent) HEARTH_CHECK(!entry.expected);
  HEARTH_CHECK(entry.error.ok() == (state != kFailed));
  const bool in_queue = std::find(queue_.begin(), queue_.end(), &entry) != queue_.end();
  HEARTH_CHECK(in_queue == (state == kQueued && !entry.taken));
}

// The table in kept_rest.h.
void ModelCache::CheckRest(const ModelSlot& slot) const {
  const KeptRest& rest = slot.rest;
  if (rest.files != nullptr) {
    HEARTH_CHECK(slot.current.load(std::memory_order_relaxed) == nullptr);
    const auto found = rests_.find(rest.number);
    HEARTH_CHECK(found != rests_.end() && found->second == &slot);
  }
  if (rest.gives_way()) HEARTH_CHECK(rest.files != nullptr && rest.warming == (rest.pages == nullptr));
  if (rest.pages != nullptr) HEARTH_CHECK(rest.gives_way());
  if (rest.warming) HEARTH_CHECK(static_cast<bool>(rest.reservation));
  if (!rest.reservation) HEARTH_CHECK(rest.on_gone.empty());
}

}  // namespace hearth
