// Everything but the cold path, which is load_path.cc.
#include "server/residency/model_manager.h"

#include <algorithm>
#include <array>
#include <utility>

#include "server/base/check.h"
#include "server/base/log.h"
#include "server/base/server_exiting.h"

namespace hearth {
namespace {

const EvictionPolicy& Gdsf() {
  static const GdsfPolicy policy;  // stateless
  return policy;
}

Deadline After(TimePoint now, Duration wait) {
  return wait < kNoDeadline - now ? now + wait : kNoDeadline;
}

ModelCache::Options CacheOptions(const ModelManager::Options& options) {
  return {.failure_backoff = options.failure_backoff,
          .max_failure_backoff = options.max_failure_backoff,
          .demand_half_life = options.demand_half_life,
          .min_residency = options.min_residency,
          .refuse_hopeless = options.refuse_hopeless,
          .rests = options.rests,
          .gaps = options.gaps};
}

}  // namespace

ModelManager::ModelManager(Deps deps, Options options)
    : deps_(std::move(deps)),
      budget_(options.capacity, deps_.devices),
      events_(deps_.clock),
      cache_(budget_, deps_.clock, CacheOptions(options),
             {.drained = [this](ModelCache::Victim victim) { PostFree(std::move(victim)); },
              .unpinned = [this] { RoomChanged(); },
              .idle = [this] { SetIdleAlarm(); }}),
      ghosts_(options.demand_half_life),
      settings_(SettingsOf(options, deps_.eviction)),
      watch_(deps_.timer, deps_.clock, [this](const LoadWatch::Hang& hang) { Hangs(hang); },
             [this](const LoadWatch::Stall& stall) { Stalls(stall); }),
      alarm_(deps_.timer, [this] { ExpireWaiters(); }),
      idle_alarm_(deps_.timer, [this] { EvictIdle(); }),
      beat_alarm_(deps_.timer, [this] { Beat(); }) {
  if (deps_.pulse != nullptr) beat_alarm_.SetBy(deps_.clock.Now() + Heartbeats::kBeat);
}

ModelManager::~ModelManager() {
  Shutdown();
  tasks_.Wait();
}

ModelManager::Settings ModelManager::SettingsOf(const Options& options, const EvictionPolicy* eviction) {
  return {eviction != nullptr ? eviction : &Gdsf(), options.max_cold_wait, options.mapped_window, options.idle_unload,
          options.load_timeout};
}

ModelManager::Settings ModelManager::settings() const {
  MutexLock lock(mu_);
  return settings_;
}

Bytes ModelManager::Reconfigure(Options options, const EvictionPolicy* eviction) {
  for (ModelCache::Fallen& fallen : cache_.Reconfigure(CacheOptions(options), options.capacity)) {
    PostFree(std::move(fallen));
  }
  {
    MutexLock lock(mu_);
    settings_ = SettingsOf(options, eviction);
  }
  BeginShrinking();
  {
    MutexLock lock(ghosts_mu_);
    ghosts_.SetHalfLife(options.demand_half_life);
  }
  RoomChanged();
  const ModelCache::EvictionView view = cache_.ViewOfIdle();
  return Beyond(HeldWithout(view.candidates, view.settled), budget_.capacity());
}

ModelHandle ModelManager::TryAcquire(const ModelId& id) {
  return cache_.TryPin(id, ModelCache::Touch::kRequest);
}

ModelHandle ModelManager::Peek(const ModelId& id) {
  return cache_.TryPin(id, ModelCache::Touch::kProbe);
}

ModelManager::Ticket ModelManager::Acquire(const ModelId& id, Deadline deadline,
                                           AcquireCallback done) {
  if (ModelHandle handle = TryAcquire(id)) {
    std::move(done)(Acquired{std::move(handle)});
    return 0;
  }
  const TimePoint now = deps_.clock.Now();
  if (deadline == kNoDeadline) deadline = After(now, settings().max_cold_wait);
  if (deadline <= now) {
    std::move(done)(absl::DeadlineExceededError(
        StrCat("the deadline had passed when model '", id.name, "' was asked for")));
    return 0;
  }
  Waiter waiter{[this, now, done = std::move(done)](absl::StatusOr<ModelHandle> handle,
                                                    CacheResult result) mutable {
                  if (!handle.ok()) return std::move(done)(std::move(handle).status());
                  std::move(done)(Acquired{*std::move(handle), result, deps_.clock.Now() - now});
                },
                deadline};
  return Find(id, {}, std::move(waiter));
}

void ModelManager::Load(const ModelId& id, LoadRequest request, Deadline deadline,
                        LoadCallback done) {
  Waiter waiter{[done = std::move(done)](absl::StatusOr<ModelHandle> handle, CacheResult) mutable {
                  if (!handle.ok()) return std::move(done)(std::move(handle).status());
                  std::move(done)((*handle)->load_report());
                },
                deadline, /*request=*/false, request.priority};
  Find(id,
       {.explicit_load = request.priority == LoadPriority::kNormal,
        .reload = request.reload,
        .expected = request.expected},
       std::move(waiter));
}

void ModelManager::SetHardPins(const std::vector<ModelId>& ids) {
  std::vector<ModelCache::HardPin> pins;
  for (const ModelId& id : ids) pins.push_back({id, deps_.metrics.Model(id.name, id.version)});
  cache_.SetHardPins(pins);
  ShrinkAgain();
  RoomChanged();  // also for the worse: who can never fit beside them need not wait
  SetIdleAlarm();
}

ModelCache::Pins ModelManager::Pin(const ModelId& id) {
  const ModelCache::Pins pins = cache_.SetAskedPin({id, deps_.metrics.Model(id.name, id.version)}, true);
  RoomChanged();  // as in SetHardPins
  return pins;
}

ModelCache::Pins ModelManager::Unpin(const ModelId& id) {
  const ModelCache::Pins pins = cache_.SetAskedPin({id, deps_.metrics.Model(id.name, id.version)}, false);
  ShrinkAgain();
  RoomChanged();
  SetIdleAlarm();
  return pins;
}

void ModelManager::Evict(const ModelId& id, EvictCallback done) {
  const auto answer = std::make_shared<absl::StatusOr<bool>>(true);
  auto gone = std::make_shared<Completion>(
      [this, id, answer, done = std::move(done)]() mutable {
        if (const absl::Status freed = CheckFreed(id); answer->ok() && !freed.ok()) *answer = freed;
        std::move(done)(*std::move(answer));
      });
  absl::StatusOr<ModelCache::Taken> taken = cache_.BeginEvict(id, gone);
  if (!taken.ok()) {
    *answer = taken.status();
    return;
  }
  *answer = !taken->victims.empty() || !taken->fallen.empty();
  for (ModelCache::Victim& victim : taken->victims) PostFree(std::move(victim));
  for (ModelCache::Fallen& fallen : taken->fallen) PostFree(std::move(fallen));
}

Waiters::Ticket ModelManager::Find(const ModelId& id, ModelCache::FindOptions options,
                                   Waiter waiter) {
  ModelMetrics& metrics = deps_.metrics.Model(id.name, id.version);
  const bool request = waiter.request;
  const bool waited_for = waiter.priority == LoadPriority::kNormal;
  const Deadline deadline = waiter.deadline;
  ModelCache::FindResult found = cache_.Find(id, metrics, options, waiter);
  if (found.failed_revision && IsOther(id, *found.failed_revision)) {
    options.explicit_load = true;  // what failed is not what is there
    found = cache_.Find(id, metrics, options, waiter);
  }
  const bool started = found.outcome == ModelCache::Outcome::kStart ||
                       (found.outcome == ModelCache::Outcome::kTooLate && waiter.result == CacheResult::kLoad);
  if (started) TellQueued(id, request, waited_for, options.expected);
  PostLoadNext(found.post);
  if (found.promoted != 0) {
    deps_.metrics.LoadPromoted();
    Promote(found.promoted);
  }
  switch (found.outcome) {
    case ModelCache::Outcome::kHit:
      std::move(waiter.done)(std::move(found.handle), CacheResult::kHit);
      return 0;
    case ModelCache::Outcome::kRefused:
      if (request && !cache_.shutting_down()) {  // so a failure is remembered
        metrics.CacheRefused();
        events_.Add({.kind = CacheEventKind::kRefused, .id = id, .error = found.error});
      }
      std::move(waiter.done)(std::move(found.error), CacheResult::kWait);
      return 0;
    case ModelCache::Outcome::kStalled:
      if (request) {
        metrics.CacheRefused();
        events_.Add({.kind = CacheEventKind::kRefused, .id = id, .error = found.error});
      }
      std::move(waiter.done)(std::move(found.error), CacheResult::kWait);
      return 0;
    case ModelCache::Outcome::kJoined:
      if (request) metrics.CacheLookup(CacheResult::kWait);
      break;
    case ModelCache::Outcome::kStart:
      if (request) metrics.CacheLookup(CacheResult::kLoad);
      break;
    case ModelCache::Outcome::kTooLate:
      metrics.CacheLookup(waiter.result);
      std::move(waiter.done)(std::move(found.error), waiter.result);
      return 0;
  }
  if (found.stop) {
    found.stop->request_stop();
    RoomChanged();  // should it be parked
  }
  if (deadline != kNoDeadline) alarm_.SetBy(deadline);
  return found.ticket;
}

bool ModelManager::IsOther(const ModelId& id, std::uint64_t revision) const {
  const absl::StatusOr<ModelSpec> spec = deps_.find_spec(id);
  return spec.ok() && spec->revision != revision;
}

void ModelManager::Cancel(Ticket ticket) {
  std::optional<ModelCache::Leaver> leaver = cache_.TakeWaiter(ticket);
  if (leaver) Answer(*std::move(leaver), absl::CancelledError("the request was cancelled"));
}

void ModelManager::ExpireWaiters() {
  for (ModelCache::Leaver& leaver : cache_.TakeExpired()) {
    const absl::Status why = leaver.why;
    Answer(std::move(leaver), why);
  }
  if (const auto next = cache_.next_deadline()) alarm_.SetBy(*next);
}

void ModelManager::KeepAlive(const ModelHandle& handle, Duration keep_alive) {
  if (cache_.SetKeepAlive(handle, keep_alive)) SetIdleAlarm();
}

void ModelManager::EvictIdle() {
  for (ModelCache::Victim& victim : cache_.TakeIdle()) PostFree(std::move(victim));
  SetIdleAlarm();
}

void ModelManager::SetIdleAlarm() {
  if (const auto next = cache_.next_idle()) idle_alarm_.SetBy(*next);
}

// Takes each of the locks, so that it comes no further than others would.
void ModelManager::Beat() {
  (void)cache_.shutting_down();
  (void)budget_.capacity();
  (void)settings();
  (void)demand_half_life();
  deps_.pulse->Beat();
  beat_alarm_.SetBy(deps_.clock.Now() + Heartbeats::kBeat);
}

void ModelManager::Answer(ModelCache::Leaver leaver, const absl::Status& why) {
  std::move(leaver.waiter.done)(why, leaver.waiter.result);
  PostLoadNext(leaver.post);
  if (leaver.abandoned) RoomChanged();
}

GhostList::Plan ModelManager::PlanFor(Dimension dimension) const {
  MutexLock lock(ghosts_mu_);
  return ghosts_.PlanFor(dimension, deps_.clock.Now());
}

Duration ModelManager::demand_half_life() const {
  MutexLock lock(ghosts_mu_);
  return ghosts_.half_life();
}

void ModelManager::Unload(const ModelId& id, absl::AnyInvocable<void() &&> done,
                          EvictionReason reason) {
  {
    MutexLock lock(ghosts_mu_);
    ghosts_.Forget(id);
  }
  ModelCache::Leaving leaving = cache_.BeginUnload(id, reason, std::make_shared<Completion>(std::move(done)));
  if (leaving.hangs) {
    log::Warning("model unloaded while its load hangs; the thread is still stuck",
                 {{"model", id.name}, {"version", id.version}, {"reason", ToString(reason)}});
  }
  if (!leaving.stops.empty()) {
    using Found = CacheEvent::Found;
    events_.Add({.kind = CacheEventKind::kUnloaded,
                 .id = id,
                 .reason = reason,
                 .found = leaving.hangs ? Found::kHanging : Found::kLoading});
  }
  if (leaving.nothing && reason == EvictionReason::kUnload) {
    log::Info("model unloaded",
              {{"model", id.name}, {"version", id.version}, {"reason", ToString(reason)}, {"resident", false}});
    events_.Add({.kind = CacheEventKind::kUnloaded, .id = id, .reason = reason, .found = CacheEvent::Found::kAbsent});
  }
  Carry(std::move(leaving),
        absl::UnavailableError(StrCat("model '", id.name, "' version ", id.version,
                                      " was unloaded while it was loading")));
}

absl::Status ModelManager::CheckFreed(const ModelId& id) const {
  for (const ModelCache::Row& row : cache_.Snapshot()) {
    if (row.id != id || row.state != ModelState::kUnloading || !row.hangs) continue;
    return absl::DeadlineExceededError(
        StrCat("model '", id.name, "' version ", id.version, " has left, but its memory is not back: freeing it hangs "
               "(cache.load_timeout). Look at the device it is on; it stays charged until that ends"));
  }
  return absl::OkStatus();
}

absl::Status ModelManager::CheckLoads() const { return cache_.stalled().value_or(absl::OkStatus()); }

void ModelManager::Shutdown() {
  Carry(cache_.Shutdown(), ServerExiting());
}

// Out of the cache's lock: tells loads to stop, waiters why, and load threads to destroy.
void ModelManager::Carry(ModelCache::Leaving leaving, const absl::Status& why) {
  for (std::stop_source& stop : leaving.stops) stop.request_stop();
  for (Waiter& waiter : leaving.waiters) std::move(waiter.done)(why, waiter.result);
  for (ModelCache::Victim& victim : leaving.victims) PostFree(std::move(victim));
  for (ModelCache::Fallen& fallen : leaving.fallen) PostFree(std::move(fallen));
  if (!leaving.stops.empty()) RoomChanged();  // should they be parked
}

void ModelManager::PostFree(ModelCache::Victim victim) {
  tasks_.Post(unload_executor(), [this, victim = std::move(victim)](TaskGroup::How) mutable {
    const LoadWatch::Scope scope =
        watch_.Begin({victim.entry->slot.id, 0, &unload_executor()}, settings().load_timeout);
    Free(std::move(victim));  // also when dropped: the bytes have to come back
  });
}

void ModelManager::NoteLost(const ModelId& id) {
  if (!deps_.lost_bytes) return;
  const Bytes more = cache_.Lose(deps_.lost_bytes());
  if (more == Bytes{}) return;
  const MemoryBudget::Usage usage = budget_.usage();
  log::Error("memory could not be freed; the budget is smaller by as much until hearthd is started again",
             {{"model", id.name},
              {"version", id.version},
              {"lost", Describe(more, devices())},
              {"in_all", Describe(usage.lost, devices())}});
  events_.Add({.kind = CacheEventKind::kLost, .id = id, .bytes = more});
  BeginShrinking();
}

void ModelManager::Free(ModelCache::Victim victim) {
  const EvictionReason reason = victim.entry->leaving;
  const ModelId& id = victim.entry->slot.id;
  if (reason != EvictionReason::kCapacity) TellLeft(*victim.entry);  // else whoever chose it has told why
  std::shared_ptr<const Rest> rest = victim.model->rest();
  victim.model.reset();
  NoteLost(id);
  deps_.metrics.Evicted(reason);
  if (reason != EvictionReason::kCapacity) {
    log::Info(reason == EvictionReason::kIdle ? "model evicted" : "model unloaded",
              {{"model", id.name}, {"version", id.version}, {"reason", ToString(reason)}});
  }
  ModelCache::Forgotten forgotten = cache_.Forget(*victim.entry, std::move(rest), victim.revision);
  for (ModelCache::Fallen& fallen : forgotten.fallen) Free(std::move(fallen));
  if (forgotten.kept && reason == EvictionReason::kIdle) {
    TellFell(id, Tier::kMapped, {});  // nobody asks for it, so it takes no memory
  } else if (forgotten.kept) {
    PostWarm(id);
  }
  RoomChanged();
}

void ModelManager::TellQueued(const ModelId& id, bool request, bool waited_for,
                              const std::optional<Expectation>& expected) {
  events_.Add({.kind = CacheEventKind::kQueued,
               .id = id,
               .request = request,
               .waited_for = waited_for,
               .expected = expected});
}

// REQUIRES: `entry` is kUnloading and the caller's to free, so that nobody else writes to it.
void ModelManager::TellLeft(const CacheEntry& entry) {
  const TimePoint now = deps_.clock.Now();
  const TimePoint used(Duration(entry.last_used.load(std::memory_order_relaxed)));
  const bool evicted = entry.leaving == EvictionReason::kEvict || entry.leaving == EvictionReason::kIdle ||
                       entry.leaving == EvictionReason::kCapacity;
  events_.Add({.kind = evicted ? CacheEventKind::kEvicted : CacheEventKind::kUnloaded,
               .id = entry.slot.id,
               .bytes = SumOf(*entry.reservation.footprint()),
               .reason = entry.leaving,
               .resident = now - entry.ready_at,
               .idle = now - used,
               .hits = entry.hits.load(std::memory_order_relaxed)});
}

std::vector<ModelId> ModelManager::Remaining() const {
  std::vector<ModelId> remaining;
  for (const ModelCache::Row& row : cache_.Snapshot()) {
    if (row.state == ModelState::kFailed) continue;
    if (remaining.empty() || remaining.back() != row.id) remaining.push_back(row.id);
  }
  for (ModelId& id : cache_.RestsUnderWay()) {
    if (std::find(remaining.begin(), remaining.end(), id) == remaining.end()) remaining.push_back(std::move(id));
  }
  return remaining;
}

std::vector<Metrics::Sample> ModelManager::Samples() const {
  std::vector<Metrics::Sample> samples;
  const auto by_dimension = [&](const char* name, const char* help, const Bytes& bytes) {
    for (const Dimension dimension : Dimensions(devices().size())) {
      std::vector<std::pair<std::string, std::string>> labels{{"dimension", std::string(ToString(dimension.kind))}};
      if (dimension.kind == Dimension::kDevice) labels.emplace_back("device", NameOf(dimension, devices()));
      samples.push_back({name, help, std::move(labels), static_cast<double>(Of(bytes, dimension))});
    }
  };
  const MemoryBudget::Usage usage = budget_.usage();
  by_dimension("hearth_budget_bytes", "Bytes that models may hold.", usage.capacity);
  by_dimension("hearth_resident_bytes", "Bytes held by loaded models, and by rests in the tier host.", usage.resident);
  by_dimension("hearth_loading_bytes", "Bytes reserved for loads under way.", usage.loading);
  by_dimension("hearth_unloading_bytes", "Bytes of models that are being freed.", usage.unloading);
  by_dimension("hearth_budget_lost_bytes", "Bytes that could not be freed, and are no part of the budget any more.",
               usage.lost);

  Bytes held;
  std::array<double, kTierCount> rests{};
  for (const RestRow& row : cache_.Rests()) {
    held = held + row.bytes;
    ++rests[static_cast<std::size_t>(row.tier)];
  }
  by_dimension("hearth_rest_bytes", "Of the resident bytes, those of rests in the tier host.", held);
  for (const Tier tier : {Tier::kMapped, Tier::kHost}) {
    samples.push_back({"hearth_rests",
                       "Models that left their device and whose files are kept open, by tier.",
                       {{"tier", std::string(ToString(tier))}},
                       rests[static_cast<std::size_t>(tier)]});
  }

  double resident = 0, loading = 0, waiters = 0, pins = 0;
  std::array<double, 2> queued{};  // by priority
  for (const ModelCache::Row& row : cache_.Snapshot()) {
    resident += row.state == ModelState::kReady || row.state == ModelState::kDraining ? 1 : 0;
    loading += row.state == ModelState::kLoading ? 1 : 0;
    queued[static_cast<std::size_t>(row.priority)] += row.state == ModelState::kQueued ? 1 : 0;
    waiters += static_cast<double>(row.waiters);
    pins += static_cast<double>(row.pins);
  }
  samples.push_back({"hearth_resident_models", "Models that are loaded.", {}, resident});
  samples.push_back({"hearth_loading_models", "Models that are being loaded.", {}, loading});
  for (const LoadPriority priority : {LoadPriority::kNormal, LoadPriority::kBackground}) {
    samples.push_back({"hearth_load_queue_depth",
                       "Models that wait for a load thread or for room.",
                       {{"priority", std::string(ToString(priority))}},
                       queued[static_cast<std::size_t>(priority)]});
  }
  const LoadWatch::Hung hung = watch_.hung();
  const std::pair<const char*, std::size_t> hangs[] = {{"load", hung.loads}, {"unload", hung.others}};
  for (const auto& [task, count] : hangs) {
    samples.push_back({"hearth_hung_tasks",
                       "Loads and unloads that have not come to their end in cache.load_timeout.",
                       {{"task", task}},
                       static_cast<double>(count)});
  }
  const ModelCache::Prewarms prewarms = cache_.prewarms();
  samples.push_back({"hearth_prewarms_total", "Models loaded ahead of a use that was foreseen.", {},
                     static_cast<double>(prewarms.done), /*counter=*/true});
  samples.push_back({"hearth_prewarms_used_total", "Of those, models that were then asked for before they left.", {},
                     static_cast<double>(prewarms.used), /*counter=*/true});
  samples.push_back({"hearth_waiters", "Requests that wait for a model to load.", {}, waiters});
  samples.push_back({"hearth_pins", "Handles that keep a model from being evicted.", {}, pins});
  return samples;
}

}  // namespace hearth
