// Requests: hits, waiters, and who leaves. The steps of a load are in model_cache_load.cc, what
// people and the invariants see in model_cache_view.cc.
#include "server/residency/model_cache.h"

#include <algorithm>
#include <utility>

#include "server/base/check.h"
#include "server/base/duration.h"
#include "server/base/server_exiting.h"

namespace hearth {
namespace {

std::chrono::milliseconds CeilMilliseconds(Duration d) {
  return std::max(std::chrono::ceil<std::chrono::milliseconds>(d), std::chrono::milliseconds(1));
}

absl::Status TooLate(const ModelId& id, std::chrono::milliseconds fastest) {
  return WithRetryAfter(
      absl::UnavailableError(StrCat("model '", id.name, "' version ", id.version,
                                    " is not loaded, and never was in less than ", FormatDuration(fastest),
                                    ": too late for this request; it is being loaded, so ask again")),
      fastest);
}

}  // namespace

ModelCache::ModelCache(MemoryBudget& budget, const Clock& clock, Options options, Hooks hooks)
    : budget_(budget), clock_(clock), hooks_(std::move(hooks)), options_(options) {}

ModelCache::~ModelCache() {
  MutexLock lock(mu_);
  for (const auto& slot : index_.slots()) {
    for (const auto& entry : slot->entries) {
      HEARTH_CHECK(entry->state == ModelState::kAbsent || entry->state == ModelState::kFailed);
    }
    HEARTH_CHECK(!slot->rest.warming && !slot->rest.reservation);
  }
}

std::vector<ModelCache::Fallen> ModelCache::Reconfigure(Options options, MemoryBudget::Capacity capacity) {
  MutexLock lock(mu_);
  options_ = options;
  while (gaps_ > options.gaps) ForgetGaps();
  std::vector<Fallen> fallen;
  LetSurplusGo(fallen);
  if (capacity == budget_.usage().configured) return fallen;
  VoidClaims();
  budget_.SetCapacity(capacity);
  CheckLocked();
  return fallen;
}

Bytes ModelCache::Lose(const Bytes& total) {
  MutexLock lock(mu_);
  const Bytes before = budget_.usage().lost;
  const Bytes more = Beyond(total, before);
  if (more == Bytes{}) return more;
  VoidClaims();
  budget_.SetLost(before + more);
  CheckLocked();
  return more;
}

// They were promised with the capacity that there was.
void ModelCache::VoidClaims() {
  for (const auto& slot : index_.slots()) {
    if (slot->incoming != nullptr) slot->incoming->claim.Release();
  }
}

void ModelCache::Touched(CacheEntry& entry) {
  const Duration::rep now = clock_.Now().time_since_epoch().count();
  entry.last_used.store(now, std::memory_order_relaxed);
  if (entry.hits.fetch_add(1, std::memory_order_relaxed) == 0) entry.first_hit.store(now, std::memory_order_relaxed);
  entry.slot.metrics.CacheLookup(CacheResult::kHit);
}

ModelHandle ModelCache::TryPin(const ModelId& id, Touch touch) {
  const ModelSlot* slot = index_.Find(id);
  if (slot == nullptr) return {};
  CacheEntry* entry = slot->current.load(std::memory_order_acquire);
  if (entry == nullptr || !entry->pins.TryPin()) return {};
  if (touch == Touch::kRequest) Touched(*entry);
  return ModelHandle(entry);
}

void ModelCache::Unpin(CacheEntry& entry) noexcept {
  const PinCount::Left left = entry.pins.Unpin();
  if (!left.last) return;
  if (left.closed) {
    Drained(entry);
    return;
  }
  if (room_wanted() && hooks_.unpinned) hooks_.unpinned();
  if (entry.leave_when_idle.load()) FellIdle(entry);
}

void ModelCache::CountHits(CacheEntry& entry) {
  const std::uint64_t hits = entry.hits.load(std::memory_order_relaxed);
  if (hits == entry.hits_counted) return;
  entry.slot.demand.Add(hits - entry.hits_counted,
                        TimePoint(Duration(entry.last_used.load(std::memory_order_relaxed))),
                        options_.demand_half_life);
  entry.hits_counted = hits;
}

// The last handle of a closed entry is gone. Several threads may have seen that, one after the
// other, and the entry may live again by now: the state decides, under the lock.
void ModelCache::Drained(CacheEntry& entry) {
  Victim victim;
  {
    MutexLock lock(mu_);
    if (entry.state != ModelState::kDraining || entry.pins.count() != 0) return;
    entry.reservation.BeginUnloading();
    victim = TakeOut(entry);
    CheckLocked();
  }
  hooks_.drained(std::move(victim));
}

ModelCache::FindResult ModelCache::Find(const ModelId& id, ModelMetrics& metrics,
                                        FindOptions options, Waiter& waiter) {
  MutexLock lock(mu_);
  FindResult result;
  if (shutting_down_) {
    result.error = ServerExiting();
    return result;
  }
  ModelSlot& slot = SlotOf(id, metrics);
  CacheEntry* current = slot.current.load(std::memory_order_relaxed);
  if (current != nullptr && !options.reload && current->pins.TryPin()) {
    if (waiter.request) Touched(*current);
    result.outcome = Outcome::kHit;
    result.handle = ModelHandle(current);
    return result;
  }

  if (waiter.request) {
    const TimePoint now = clock_.Now();
    slot.demand.Add(1, now, options_.demand_half_life);
    NoteReturn(slot, now);
    slot.last_use = now;
  }
  CacheEntry* incoming = slot.incoming;
  if (incoming != nullptr && incoming->hangs) {
    result.error = *incoming->hangs;
    return result;
  }
  const bool begun = incoming != nullptr && incoming->state == ModelState::kLoading;
  if (stalled_ && waiter.priority == LoadPriority::kNormal && !begun) {
    result.outcome = Outcome::kStalled;
    result.error = *stalled_;
    return result;
  }
  if (incoming != nullptr && IsComing(incoming->state)) {
    if (options.reload && (incoming->state == ModelState::kLoading || incoming->taken)) {
      incoming->stopping = true;  // it may have read the old file; Fail() queues it again
      result.stop = incoming->stop;
    }
    if (waiter.priority == LoadPriority::kNormal && incoming->priority == LoadPriority::kBackground) {
      incoming->priority = LoadPriority::kNormal;
      if (incoming->state == ModelState::kQueued) {
        result.promoted = incoming->generation;
        if (!incoming->taken) result.post = LoadPriority::kNormal;
      }
    }
    result.outcome = Outcome::kJoined;
    waiter.result = CacheResult::kWait;
  } else {
    if (incoming != nullptr && !options.explicit_load && clock_.Now() < incoming->retry_at) {
      result.error =
          WithRetryAfter(incoming->error, CeilMilliseconds(incoming->retry_at - clock_.Now()));
      result.failed_revision = incoming->revision;
      return result;
    }
    incoming = &Enqueue(slot, waiter.priority);
    incoming->expected = options.expected;
    slot.foreseen = options.expected.has_value();
    result.outcome = Outcome::kStart;
    result.post = waiter.priority;
    waiter.result = CacheResult::kLoad;
  }
  incoming->reload |= options.reload && current != nullptr;
  if (incoming->state == ModelState::kQueued && !incoming->stopping && IsHopeless(slot, waiter)) {
    result.outcome = Outcome::kTooLate;
    result.error = TooLate(id, CeilMilliseconds(slot.fastest_load));
    CheckLocked();
    return result;
  }
  result.ticket = waiters_.Add(incoming, std::move(waiter));
  CheckLocked();
  return result;
}

void ModelCache::SetHardPins(const std::vector<HardPin>& pins) {
  MutexLock lock(mu_);
  for (const auto& slot : index_.slots()) slot->configured_pin = false;
  for (const HardPin& pin : pins) SlotOf(pin.id, pin.metrics).configured_pin = true;
  for (const auto& slot : index_.slots()) {
    if (CacheEntry* current = slot->current.load(std::memory_order_relaxed)) Schedule(*current);
  }
  CheckLocked();
}

ModelCache::Pins ModelCache::SetAskedPin(const HardPin& pin, bool pinned) {
  MutexLock lock(mu_);
  ModelSlot& slot = SlotOf(pin.id, pin.metrics);
  slot.asked_pin = pinned;
  if (CacheEntry* current = slot.current.load(std::memory_order_relaxed)) Schedule(*current);
  CheckLocked();
  return {slot.configured_pin, slot.asked_pin};
}

ModelCache::Pins ModelCache::pins(const ModelId& id) const {
  MutexLock lock(mu_);
  const ModelSlot* slot = index_.Find(id);
  return slot == nullptr ? Pins{} : Pins{slot->configured_pin, slot->asked_pin};
}

ModelSlot& ModelCache::SlotOf(const ModelId& id, ModelMetrics& metrics) {
  ModelSlot* known = index_.Find(id);
  return known != nullptr ? *known : index_.Insert(id, metrics);
}

// A fresh entry, or the failed one once more.
CacheEntry& ModelCache::Enqueue(ModelSlot& slot, LoadPriority priority) {
  CacheEntry* entry = slot.incoming;
  for (const auto& unused : slot.entries) {
    if (entry != nullptr) break;
    if (unused->state == ModelState::kAbsent) entry = unused.get();
  }
  if (entry == nullptr) {
    entry = slot.entries.emplace_back(std::make_unique<CacheEntry>(*this, slot)).get();
  }
  Transition(*entry, ModelState::kQueued);
  entry->generation = ++generations_;
  entry->error = absl::OkStatus();
  entry->revision = 0;
  entry->retry_at = {};
  entry->priority = priority;
  entry->queued_at = clock_.Now();
  entry->taken = false;
  entry->giving_up = false;
  entry->stopping = false;
  entry->stop = std::stop_source();
  entry->expected.reset();
  entry->expectation_met = false;
  slot.incoming = entry;
  queue_.push_back(entry);
  return *entry;
}

// A factor of two, because the next load may well be faster than all before it: its file may have shrunk, or be in
// the page cache this time.
bool ModelCache::IsHopeless(const ModelSlot& slot, const Waiter& waiter) const {
  if (!options_.refuse_hopeless || !waiter.request || waiter.deadline == kNoDeadline) return false;
  return waiter.deadline - clock_.Now() < slot.fastest_load / 2;
}

ModelCache::Leaver ModelCache::MakeLeaver(Waiters::Taken taken) {
  CacheEntry& entry = *taken.entry->slot.incoming;  // which is what waiters wait for
  absl::Status why = entry.blocked.value_or(absl::DeadlineExceededError(
      StrCat("model '", entry.slot.id.name, "' version ", entry.slot.id.version, " is still ",
             ToString(entry.state), "; the load goes on, so a later request may find it ready")));
  Leaver leaver{std::move(taken.waiter), std::move(why),
                entry.blocked.has_value() && waiters_.count(&entry) == 0};
  const bool untaken = entry.state == ModelState::kQueued && !entry.taken;
  const bool ahead_of_need = entry.blocked.has_value() && waiters_.count(&entry) > 0;
  if ((untaken || ahead_of_need) && entry.priority == LoadPriority::kNormal && !waiters_.HasNormal(&entry)) {
    entry.priority = LoadPriority::kBackground;
    if (untaken) leaver.post = entry.priority;
    leaver.abandoned |= ahead_of_need;
  }
  return leaver;
}

std::optional<ModelCache::Leaver> ModelCache::TakeWaiter(Waiters::Ticket ticket) {
  MutexLock lock(mu_);
  std::optional<Waiters::Taken> taken = waiters_.Take(ticket);
  if (!taken) return std::nullopt;
  return MakeLeaver(std::move(*taken));
}

std::vector<ModelCache::Leaver> ModelCache::TakeExpired() {
  MutexLock lock(mu_);
  std::vector<Leaver> leavers;
  for (Waiters::Taken& taken : waiters_.TakeExpired(clock_.Now())) {
    leavers.push_back(MakeLeaver(std::move(taken)));
  }
  return leavers;
}

std::vector<ModelCache::Leaver> ModelCache::SetStalled(std::uint64_t number, std::optional<absl::Status> why) {
  MutexLock lock(mu_);
  std::vector<Leaver> leavers;
  if (number < stall_number_) return leavers;
  stall_number_ = number;
  stalled_ = std::move(why);
  if (!stalled_) return leavers;
  for (const auto& slot : index_.slots()) {
    const CacheEntry* incoming = slot->incoming;
    if (incoming == nullptr || incoming->state != ModelState::kQueued) continue;
    for (Waiters::Taken& taken : waiters_.TakeNormal(incoming)) {
      leavers.push_back(MakeLeaver(std::move(taken)));
      leavers.back().why = *stalled_;
    }
  }
  CheckLocked();
  return leavers;
}

std::optional<absl::Status> ModelCache::stalled() const {
  MutexLock lock(mu_);
  return stalled_;
}

std::optional<TimePoint> ModelCache::next_deadline() const {
  MutexLock lock(mu_);
  return waiters_.next_deadline();
}

// The only place where a state changes.
void ModelCache::Transition(CacheEntry& entry, ModelState to) {
  HEARTH_CHECK(CanFollow(entry.state, to));
  entry.state = to;
}

// Closed and unpinned, and charged as unloading -> kUnloading.
ModelCache::Victim ModelCache::TakeOut(CacheEntry& entry) {
  Transition(entry, ModelState::kUnloading);
  Schedule(entry);
  CountHits(entry);
  CountPrewarm(entry);
  if (entry.leaving == EvictionReason::kCapacity || entry.leaving == EvictionReason::kIdle) NoteAway(entry);
  entry.report = {};
  entry.loaded_at = {};
  CacheEntry* expected = &entry;
  entry.slot.current.compare_exchange_strong(expected, nullptr, std::memory_order_release,
                                             std::memory_order_relaxed);
  return {&entry, std::move(entry.model), std::exchange(entry.revision, 0)};
}

// kReady -> kUnloading, or kDraining while somebody holds it.
std::optional<ModelCache::Victim> ModelCache::Retire(CacheEntry& entry, EvictionReason reason) {
  HEARTH_CHECK(entry.state == ModelState::kReady);
  entry.leaving = reason;
  if (entry.pins.Close() == 0) {
    entry.reservation.BeginUnloading();
    return TakeOut(entry);
  }
  Transition(entry, ModelState::kDraining);
  Schedule(entry);
  CountPrewarm(entry);
  CacheEntry* expected = &entry;
  entry.slot.current.compare_exchange_strong(expected, nullptr, std::memory_order_release,
                                             std::memory_order_relaxed);
  return std::nullopt;
}

void ModelCache::Leave(ModelSlot& slot, EvictionReason reason,
                       const std::shared_ptr<Completion>& completion, Leaving& leaving) {
  slot.failures = 0;
  for (const auto& entry : slot.entries) {
    leaving.nothing &= entry->state == ModelState::kFailed || entry->state == ModelState::kAbsent;
  }
  if (CacheEntry* current = slot.current.load(std::memory_order_relaxed)) {
    if (std::optional<Victim> victim = Retire(*current, reason)) {
      leaving.victims.push_back(std::move(*victim));
    }
  }
  if (CacheEntry* incoming = slot.incoming) {
    for (Waiter& waiter : waiters_.TakeAll(incoming)) leaving.waiters.push_back(std::move(waiter));
    const bool untouched = incoming->state == ModelState::kQueued && !incoming->taken;
    if (untouched) {
      std::erase(queue_, incoming);
      Transition(*incoming, ModelState::kFailed);
    }
    if (incoming->state == ModelState::kFailed) {
      Transition(*incoming, ModelState::kAbsent);
      incoming->error = absl::OkStatus();
      incoming->expected.reset();
      incoming->retry_at = {};
      incoming->reload = false;
      slot.incoming = nullptr;
      for (auto& gone : incoming->on_gone) leaving.gone.push_back(std::move(gone));
      incoming->on_gone.clear();
    } else {
      incoming->stopping = true;
      leaving.stops.push_back(incoming->stop);
      leaving.hangs |= incoming->stuck();
    }
  }
  for (const auto& entry : slot.entries) {
    if (IsLeaving(entry->state)) entry->leaves_nothing = true;
    if (completion && !entry->stuck() && (IsLeaving(entry->state) || IsComing(entry->state))) {
      entry->on_gone.push_back(completion);
    }
  }
  if (std::optional<Fallen> fallen = LetRestGo(slot, completion)) leaving.fallen.push_back(*std::move(fallen));
  if (completion && slot.rest.reservation && !slot.rest.stuck()) slot.rest.on_gone.push_back(completion);
}

ModelCache::Leaving ModelCache::BeginUnload(const ModelId& id, EvictionReason reason,
                                            std::shared_ptr<Completion> completion) {
  MutexLock lock(mu_);
  Leaving leaving;
  if (ModelSlot* slot = index_.Find(id)) Leave(*slot, reason, completion, leaving);
  CheckLocked();
  leaving.gone.push_back(std::move(completion));  // not under the lock, should it be the last
  return leaving;
}

absl::StatusOr<ModelCache::Taken> ModelCache::BeginEvict(const ModelId& id,
                                                         const std::shared_ptr<Completion>& completion) {
  const auto refused = [&id](std::string_view why) {
    return absl::FailedPreconditionError(StrCat("model '", id.name, "' version ", id.version, " ", why));
  };
  MutexLock lock(mu_);
  ModelSlot* slot = index_.Find(id);
  Taken taken;
  if (slot == nullptr) return taken;
  CacheEntry* current = slot->current.load(std::memory_order_relaxed);
  if (current == nullptr) {
    const bool coming = slot->incoming != nullptr && IsComing(slot->incoming->state);
    if (coming) return refused("is being loaded; evict it when it is ready, or unload it");
    if (std::optional<Fallen> fallen = LetRestGo(*slot, completion)) {
      if (slot->rest.reservation && !slot->rest.stuck()) slot->rest.on_gone.push_back(completion);
      taken.fallen.push_back(*std::move(fallen));
    }
    CheckLocked();
    return taken;
  }
  if (slot->pinned()) return refused("is pinned; unpin it first, or unload it");
  if (!current->pins.TryClose()) return refused("is in use; ask again when it is idle, or unload it");
  current->leaving = EvictionReason::kEvict;
  current->reservation.BeginUnloading();
  taken.victims.push_back(TakeOut(*current));
  current->on_gone.push_back(completion);
  CheckLocked();
  return taken;
}

ModelCache::Leaving ModelCache::Shutdown() {
  MutexLock lock(mu_);
  shutting_down_ = true;
  Leaving leaving;
  for (const auto& slot : index_.slots()) {
    Leave(*slot, EvictionReason::kShutdown, nullptr, leaving);
  }
  CheckLocked();
  return leaving;
}

}  // namespace hearth
