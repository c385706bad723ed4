// The steps of a load: model_manager.cc takes them in this order.
#include <algorithm>
#include <utility>

#include "server/base/check.h"
#include "server/residency/model_cache.h"

namespace hearth {
namespace {

std::string Title(const ModelId& id) {
  return StrCat("model '", id.name, "' version ", id.version);
}

}  // namespace

std::optional<ModelCache::QueuedLoad> ModelCache::TakeQueued(LoadPriority priority) {
  MutexLock lock(mu_);
  auto next = std::find_if(queue_.begin(), queue_.end(),
                           [&](const CacheEntry* entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
                             return entry->priority == priority && waiters_.HasRequest(entry);
                           });
  if (next == queue_.end()) {
    next = std::find_if(queue_.begin(), queue_.end(),
                        [&](const CacheEntry* entry) { return entry->priority == priority; });
  }
  if (next == queue_.end()) return std::nullopt;
  CacheEntry* entry = *next;
  queue_.erase(next);
  entry->taken = true;
  CheckLocked();
  return QueuedLoad{entry, entry->generation, entry->stop.get_token(), clock_.Now() - entry->queued_at};
}

LoadPriority ModelCache::priority(const CacheEntry& entry) const {
  MutexLock lock(mu_);
  return entry.priority;
}

Ledger ModelCache::HeldByPinned(const ModelSlot* but) const {
  Ledger held;
  for (const auto& slot : index_.slots()) {
    if (!slot->pinned() || slot.get() == but) continue;
    for (const auto& entry : slot->entries) {
      if (entry->state != ModelState::kReady && entry->state != ModelState::kLoading) continue;
      held.Add(*entry->reservation.footprint(), HoldPhase::kLoading);
    }
  }
  return held;
}

absl::Status ModelCache::CheckCanFit(const CacheEntry& entry, const Footprint& need) const {
  const MemoryBudget::Usage usage = budget_.usage();
  Ledger alone;
  alone.Add(need, HoldPhase::kLoading);
  if (const auto shortage = Shortage(alone.used(), {}, usage.configured, budget_.devices(), usage.lost)) {
    return absl::FailedPreconditionError(StrCat(Title(entry.slot.id), " can never fit: it needs ",
                                                *shortage, "; raise the budget to serve it"));
  }
  Ledger hard_pinned;
  {
    MutexLock lock(mu_);
    hard_pinned = HeldByPinned(&entry.slot);
  }
  const Bytes held = hard_pinned.used();
  hard_pinned.Add(need, HoldPhase::kLoading);
  const Bytes more = hard_pinned.used() - held;
  if (const auto shortage = Shortage(more, held, usage.configured, budget_.devices(), usage.lost)) {
    return absl::ResourceExhaustedError(
        StrCat(Title(entry.slot.id), " does not fit beside the pinned models: it needs ",
               *shortage, "; unpin or unload one, or raise the budget"));
  }
  return absl::OkStatus();
}

bool ModelCache::TryBeginLoad(CacheEntry& entry, const Footprint& need) {
  MutexLock lock(mu_);
  HEARTH_CHECK(entry.state == ModelState::kQueued && entry.taken);
  std::optional<MemoryBudget::Reservation> reservation =
      entry.claim ? entry.claim.TryTake() : budget_.TryReserve(need);
  if (!reservation) return false;
  entry.reservation = std::move(*reservation);
  entry.blocked.reset();
  entry.taken = false;
  entry.loading_at = clock_.Now();
  Transition(entry, ModelState::kLoading);
  CheckLocked();
  return true;
}

// Models: ready, not pinned, not hard-pinned.
std::vector<EvictionCandidate> ModelCache::Candidates() {
  std::vector<EvictionCandidate> candidates;
  const TimePoint now = clock_.Now();
  for (const auto& slot : index_.slots()) {
    CacheEntry* current = slot->current.load(std::memory_order_relaxed);
    if (current == nullptr || slot->pinned() || current->pins.count() != 0) continue;
    CountHits(*current);
    candidates.push_back({.entry = current,
                          .generation = current->generation,
                          .id = slot->id,
                          .footprint = current->reservation.footprint(),
                          .ready_at = current->ready_at,
                          .last_used = TimePoint(Duration(current->last_used.load(std::memory_order_relaxed))),
                          .hits = current->hits_counted,
                          .demand = slot->demand.At(now, options_.demand_half_life),
                          .reload = slot->reload,
                          .young = now - current->ready_at < current->min_residency.value_or(options_.min_residency)});
  }
  return candidates;
}

std::optional<ModelCache::EvictionView> ModelCache::ViewForEviction(const CacheEntry& entry) {
  MutexLock lock(mu_);
  if (entry.claim) return std::nullopt;
  EvictionView view{Candidates(), budget_.Settled(), entry.priority == LoadPriority::kNormal};
  if (view.displaces) {
    AddRests(view.candidates);
    return view;
  }
  const TimePoint now = clock_.Now();
  const Duration half_life = options_.demand_half_life;
  // Who only will be asked for takes nothing from those that were: by then they may be asked for again.
  const double own_demand = entry.expected ? 0 : entry.slot.demand.At(now, half_life);
  std::erase_if(view.candidates, [&](const EvictionCandidate& candidate) {
    return !MayBeDisplaced(candidate, own_demand, now, half_life);
  });
  AddRests(view.candidates);
  return view;
}

ModelCache::EvictionView ModelCache::ViewOfIdle() {
  MutexLock lock(mu_);
  EvictionView view{Candidates(), budget_.Settled()};
  AddRests(view.candidates);
  view.pinned = HeldByPinned(nullptr).used();
  return view;
}

bool ModelCache::IsStill(const EvictionCandidate& candidate) {
  if (const ModelSlot* slot = candidate.rest_of) {
    return slot->rest.number == candidate.generation && slot->rest.gives_way();
  }
  const CacheEntry& entry = *candidate.entry;
  return entry.generation == candidate.generation && entry.state == ModelState::kReady && !entry.slot.pinned();
}

ModelCache::Taken ModelCache::TakeIdle(const std::vector<EvictionCandidate>& chosen) {
  MutexLock lock(mu_);
  Taken taken;
  for (const EvictionCandidate& candidate : chosen) {
    if (!IsStill(candidate)) continue;
    if (candidate.rest_of != nullptr) {
      taken.fallen.push_back(LetPagesGo(*candidate.rest_of));
      continue;
    }
    CacheEntry& entry = *candidate.entry;
    if (!entry.pins.TryClose()) continue;
    entry.leaving = EvictionReason::kCapacity;
    entry.slot.evicted_at = clock_.Now();
    entry.reservation.BeginUnloading();
    taken.victims.push_back(TakeOut(entry));
  }
  CheckLocked();
  return taken;
}

std::optional<ModelCache::Taken> ModelCache::TakeVictims(CacheEntry& entry, const Footprint& need,
                                                         const std::vector<EvictionCandidate>& chosen) {
  MutexLock lock(mu_);
  std::vector<CacheEntry*> closed;
  std::vector<ModelSlot*> rests;
  std::vector<MemoryBudget::Reservation*> reservations;
  for (const EvictionCandidate& candidate : chosen) {
    if (!IsStill(candidate)) break;
    if (candidate.rest_of != nullptr) {
      rests.push_back(candidate.rest_of);
      reservations.push_back(&candidate.rest_of->rest.reservation);
      continue;
    }
    CacheEntry& victim = *candidate.entry;
    const bool used = victim.last_used.load(std::memory_order_relaxed) != candidate.last_used.time_since_epoch().count();
    if ((used && entry.priority == LoadPriority::kBackground) || !victim.pins.TryClose()) break;
    closed.push_back(&victim);
    reservations.push_back(&victim.reservation);
  }
  if (reservations.size() == chosen.size()) {
    if (std::optional<MemoryBudget::Claim> claim = budget_.TryClaim(need, reservations)) {
      entry.claim = std::move(*claim);
      Taken taken;
      for (CacheEntry* victim : closed) {
        victim->leaving = EvictionReason::kCapacity;
        victim->slot.evicted_at = clock_.Now();
        taken.victims.push_back(TakeOut(*victim));
      }
      for (ModelSlot* slot : rests) taken.fallen.push_back(LetPagesGo(*slot));
      CheckLocked();
      return taken;
    }
  }
  // A request that came in between has missed, and is now waiting for the lock to look again.
  for (CacheEntry* rescued : closed) rescued->pins.Reopen();
  return std::nullopt;
}

std::optional<ModelCache::Victim> ModelCache::RetireForReload(CacheEntry& entry) {
  MutexLock lock(mu_);
  CacheEntry* current = entry.slot.current.load(std::memory_order_relaxed);
  if (!entry.reload || current == nullptr) return std::nullopt;
  std::optional<Victim> victim = Retire(*current, EvictionReason::kReload);
  CheckLocked();
  return victim;
}

bool ModelCache::SetBlocked(CacheEntry& entry, absl::Status why) {
  MutexLock lock(mu_);
  entry.blocked = std::move(why);
  entry.giving_up = waiters_.count(&entry) == 0;
  return !entry.giving_up;
}

bool ModelCache::GiveUp(CacheEntry& entry) {
  MutexLock lock(mu_);
  entry.giving_up = entry.priority == LoadPriority::kBackground;
  return entry.giving_up;
}

absl::StatusOr<ModelCache::Published> ModelCache::Publish(CacheEntry& entry,
                                                          std::unique_ptr<Model>& model,
                                                          std::uint64_t revision, const Stay& stay, Tier from) {
  MutexLock lock(mu_);
  if (entry.stopping) return absl::CancelledError(StrCat(Title(entry.slot.id), " was stopped"));
  // What it was let in with holds for what was measured, too.
  const std::uint64_t window = entry.reservation.footprint()->window_bytes;
  const Footprint measured = window > 0 ? Windowed(model->footprint(), window) : model->footprint();
  if (!entry.reservation.Settle(measured)) {
    return absl::ResourceExhaustedError(
        StrCat(Title(entry.slot.id), " took more memory than its files promised (",
               Describe(SumOf(measured), budget_.devices()), "), and there is no room for the difference"));
  }
  ModelSlot& slot = entry.slot;
  Published published;
  published.charged = SumOf(measured);
  if (CacheEntry* before = slot.current.load(std::memory_order_relaxed)) {
    published.replaced = Retire(*before, EvictionReason::kReload);
  }
  published.rest = LetRestGo(slot);
  if (published.rest) published.rest->from = published.rest->to;  // it has risen
  entry.report = model->load_report();
  entry.report.from = from;
  entry.loaded_at = clock_.WallNow();
  entry.revision = revision;
  entry.idle_unload = stay.idle_unload;
  entry.min_residency = stay.min_residency;
  entry.model = std::move(model);
  entry.reload = false;
  entry.hits.store(0, std::memory_order_relaxed);
  entry.hits_counted = 0;
  entry.ready_at = clock_.Now();
  entry.last_used.store(entry.ready_at.time_since_epoch().count(), std::memory_order_relaxed);
  if (const TimePoint evicted = std::exchange(slot.evicted_at, TimePoint{}); evicted != TimePoint{}) {
    published.away = entry.ready_at - evicted;
  }
  const Duration took = entry.report.total();
  slot.reload = slot.reload == Duration{} ? took : (slot.reload + took) / 2;
  slot.fastest_load = slot.fastest_load == Duration{} ? took : std::min(slot.fastest_load, took);
  for (Waiter& waiter : waiters_.TakeAll(&entry)) {
    entry.expectation_met |= waiter.request;
    published.deliveries.push_back({std::move(waiter), ModelHandle(&entry)});
  }
  Transition(entry, ModelState::kReady);
  if (entry.expected) ++prewarms_.done;
  entry.pins.Open(published.deliveries.size());
  slot.incoming = nullptr;
  slot.failures = 0;
  slot.current.store(&entry, std::memory_order_release);
  Schedule(entry);
  CheckLocked();
  return published;
}

std::optional<ModelCache::Abandoned> ModelCache::Abandon(const ModelId& id, std::uint64_t generation,
                                                         const absl::Status& why) {
  MutexLock lock(mu_);
  const ModelSlot* slot = index_.Find(id);
  CacheEntry* entry = slot == nullptr ? nullptr : slot->incoming;
  if (entry == nullptr || entry->generation != generation || !IsComing(entry->state)) return std::nullopt;
  entry->stopping = true;
  entry->hangs = why;
  entry->claim.Release();
  Abandoned abandoned{entry->stop, waiters_.TakeAll(entry), std::exchange(entry->on_gone, {})};
  CheckLocked();
  return abandoned;
}

std::vector<std::shared_ptr<Completion>> ModelCache::Strand(const ModelId& id) {
  MutexLock lock(mu_);
  std::vector<std::shared_ptr<Completion>> gone;
  const auto give_up = [&gone](std::vector<std::shared_ptr<Completion>>& on_gone) {
    for (auto& completion : std::exchange(on_gone, {})) gone.push_back(std::move(completion));
  };
  ModelSlot* slot = index_.Find(id);
  if (slot == nullptr) return gone;
  VoidClaims();
  for (const auto& entry : slot->entries) {
    if (entry->state == ModelState::kUnloading && entry->reservation.phase() == HoldPhase::kUnloading) {
      entry->reservation.Strand();
      give_up(entry->on_gone);
    }
  }
  KeptRest& rest = slot->rest;
  if (rest.under_way() && !rest.stuck()) {
    rest.reservation.Strand();
    give_up(rest.on_gone);
  }
  CheckLocked();
  return gone;
}

ModelCache::Failed ModelCache::Fail(CacheEntry& entry, const absl::Status& error, bool remember,
                                    std::uint64_t revision) {
  MutexLock lock(mu_);
  ModelSlot& slot = entry.slot;
  Failed failed{error};
  std::erase(queue_, &entry);
  entry.claim.Release();
  entry.reservation.Release();
  entry.blocked.reset();
  failed.hung = std::exchange(entry.hangs, std::nullopt).has_value();
  entry.expected.reset();
  entry.taken = false;
  const bool given_up = std::exchange(entry.giving_up, false);
  const bool stopped = std::exchange(entry.stopping, false);
  Transition(entry, ModelState::kFailed);
  failed.gone = std::exchange(entry.on_gone, {});
  const bool wanted = waiters_.HasNormal(&entry);
  if (!shutting_down_ && ((stopped && waiters_.count(&entry) > 0) || (given_up && wanted))) {
    failed.requeued = wanted ? LoadPriority::kNormal : LoadPriority::kBackground;
    Enqueue(slot, *failed.requeued);
    CheckLocked();
    return failed;
  }
  // A reload that failed leaves the old one in service, so there is nothing to remember.
  const bool keep = remember && !stopped && slot.current.load(std::memory_order_relaxed) == nullptr;
  if (keep) {
    const Duration wait =
        std::min(options_.max_failure_backoff,
                 options_.failure_backoff * (std::int64_t{1} << std::min(slot.failures++, 20)));
    entry.error = error;
    entry.revision = revision;
    entry.retry_at = clock_.Now() + wait;
    failed.error = WithRetryAfter(error, std::chrono::ceil<std::chrono::milliseconds>(wait));
  } else {
    Transition(entry, ModelState::kAbsent);
    slot.incoming = nullptr;
  }
  entry.reload = false;
  failed.waiters = waiters_.TakeAll(&entry);
  CheckLocked();
  return failed;
}

}  // namespace hearth
