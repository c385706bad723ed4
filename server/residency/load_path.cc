// The cold path of ModelManager: from the queue to the waiters' answers.
#include <algorithm>
#include <chrono>
#include <utility>

#include "server/base/bytes.h"
#include "server/base/check.h"
#include "server/base/duration.h"
#include "server/base/log.h"
#include "server/base/server_exiting.h"
#include "server/residency/model_manager.h"

namespace hearth {
namespace {

// A request takes about this long; a model in use may be idle then.
constexpr std::chrono::milliseconds kRetryHint{1000};

// Reading that is slower than this is no reading. It may take a load its timeout longer.
constexpr double kSlowest = 16.0 * 1024 * 1024;  // bytes a second

}  // namespace

Duration ModelManager::Reading(const Footprint& footprint) {
  const auto bytes = static_cast<double>(footprint.device_bytes + footprint.host_bytes + footprint.mapped_bytes());
  return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(bytes / kSlowest));
}

Executor& ModelManager::ExecutorOf(LoadPriority priority) const {
  const bool own = priority == LoadPriority::kBackground && deps_.background_executor != nullptr;
  return own ? *deps_.background_executor : deps_.load_executor;
}

void ModelManager::PostLoadNext(ModelCache::Turn turn) {
  if (!turn) return;
  tasks_.Post(ExecutorOf(*turn), [this, priority = *turn](TaskGroup::How how) { LoadNext(priority, how); });
}

// Decides which when it runs.
void ModelManager::LoadNext(LoadPriority priority, TaskGroup::How how) {
  std::optional<ModelCache::QueuedLoad> queued = cache_.TakeQueued(priority);
  if (!queued) return;  // unloaded while it was queued, or its priority changed
  deps_.metrics.LoadTaken(priority, queued->waited);
  LoadPtr load(new PendingLoad{*this, *queued->entry, queued->generation, std::move(queued->stop), priority,
                               deps_.clock.Now()});
  if (how == TaskGroup::How::kDrop) return Fail(*load, ServerExiting(), /*remember=*/false);
  LoadOne(std::move(load));
}

// Find the file and its loader, estimate, make room, load, publish, answer. When there is no room
// yet the load is parked, and comes here again; so it does when its next step belongs elsewhere.
void ModelManager::LoadOne(LoadPtr load) {
  LoadWatch::Scope watched = watch_.Begin({load->entry.slot.id, load->generation, &ExecutorOf(load->priority)},
                                          settings().load_timeout);
  if (!load->spec) {
    const absl::Status known = Estimate(*load);
    if (!known.ok()) return Fail(*load, known, /*remember=*/true);
    if (WasPromoted(*load)) return Resume(std::move(load));
  }
  if (!load->has_room) UseWindow(*load);  // also of one that waits while the budget becomes smaller

  watched.Allow(Reading(load->estimate.peak));

  if (!load->has_room) {
    const absl::StatusOr<Room> room = MakeRoom(*load);
    if (!room.ok()) return Fail(*load, room.status(), /*remember=*/false);
    if (*room == Room::kLater) return Park(std::move(load), TaskGroup::How::kRun);
    load->has_room = true;
    events_.Add({.kind = CacheEventKind::kLoading,
                 .id = load->entry.slot.id,
                 .bytes = SumOf(load->estimate.peak)});
    if (WasPromoted(*load)) return Resume(std::move(load));
  }

  const Tier from = load->from_rest ? std::max(Tier::kMapped, cache_.TierOf(load->entry.slot.id)) : Tier::kCold;
  absl::StatusOr<std::unique_ptr<Model>> model =
      load->loader->Load(*load->spec, load->estimate.opened.get(), load->stop);
  load->estimate.opened.reset();  // once somebody can use the model, only the model keeps its files open
  if (!model.ok()) return Fail(*load, model.status(), !absl::IsCancelled(model.status()));
  LoadReport report = (*model)->load_report();
  report.from = from;

  NoteLost(load->entry.slot.id);  // of what it uploaded in vain
  absl::StatusOr<ModelCache::Published> published =
      cache_.Publish(load->entry, *model, load->spec->revision,
                     {load->spec->options.idle_unload.value_or(settings().idle_unload),
                      load->spec->options.min_residency},
                     from);
  if (!published.ok()) {
    model->reset();  // before its bytes are given back
    return Fail(*load, published.status(), !absl::IsCancelled(published.status()));
  }
  Ready(*load, report, *std::move(published));
}

// A thread that counts for less cannot be made to count for more.
bool ModelManager::WasPromoted(const PendingLoad& load) const {
  return load.priority == LoadPriority::kBackground && cache_.priority(load.entry) == LoadPriority::kNormal;
}

// Everything that can be known to be wrong is found here, before anybody is evicted. What is left of the model is taken
// as it is, if it is what there is to load.
absl::Status ModelManager::Estimate(PendingLoad& load) {
  HEARTH_ASSIGN_OR_RETURN(ModelSpec spec, deps_.find_spec(load.entry.slot.id));
  load.revision = spec.revision;
  HEARTH_ASSIGN_OR_RETURN(load.loader, deps_.find_loader(spec.format));
  if (const ModelCache::RestView rest = cache_.RestOf(load.entry); rest.files != nullptr) {
    std::optional<LoadEstimate> estimate;
    if (rest.revision == spec.revision) estimate = load.loader->EstimateRest(spec, *rest.files);
    load.from_rest = estimate.has_value();
    if (load.from_rest) {
      load.estimate = *std::move(estimate);
    } else if (std::optional<ModelCache::Fallen> stale = cache_.DropRest(load.entry)) {
      Free(*std::move(stale));
    }
  }
  if (!load.from_rest) {
    HEARTH_ASSIGN_OR_RETURN(load.estimate, load.loader->Estimate(spec));
  }
  load.spec = std::move(spec);
  return absl::OkStatus();
}

// Weights that can never fit are left to the page cache, which drops and reads again what it must: slow, but
// right. Whoever wants them locked is refused, for that cannot be.
void ModelManager::UseWindow(PendingLoad& load) const {
  ModelSpec& spec = *load.spec;
  const std::uint64_t mapped_window = settings().mapped_window;
  if (mapped_window == 0 || spec.options.residency == Residency::kLocked) return;
  Ledger alone;
  alone.Add(load.estimate.peak, HoldPhase::kLoading);
  const std::uint64_t weights = alone.used().mapped_bytes;
  const std::uint64_t budget = budget_.capacity().mapped_bytes;
  if (weights <= budget) return;
  const std::uint64_t window = std::min(mapped_window, budget);
  load.estimate.peak = Windowed(std::move(load.estimate.peak), window);
  load.estimate.steady = Windowed(std::move(load.estimate.steady), window);
  spec.options.residency = Residency::kMapped;
  log::Warning("weights larger than the mapped budget: served from a window",
               {{"model", spec.id.name},
                {"version", spec.id.version},
                {"mapped", FormatBytes(weights)},
                {"budget", FormatBytes(budget)},
                {"window", FormatBytes(window)}});
}

// Reserves the load's peak, evicting and destroying on this thread what has to go. A destructor that is stuck holds up
// this load, and nobody else: its bytes are watched by themselves, and other victims are freed elsewhere then.
absl::StatusOr<ModelManager::Room> ModelManager::MakeRoom(PendingLoad& load) {
  const Footprint& need = load.estimate.peak;
  CacheEntry& entry = load.entry;
  const ModelId& id = entry.slot.id;
  HEARTH_RETURN_IF_ERROR(cache_.CheckCanFit(entry, need));
  while (true) {
    if (load.stop.stop_requested()) {
      return absl::CancelledError(StrCat("the load of model '", id.name, "' was stopped"));
    }
    {
      MutexLock lock(mu_);
      load.room_changes = room_changes_;
    }
    if (cache_.TryBeginLoad(entry, need)) return Room::kReserved;
    if (!std::exchange(load.wants_room, true)) {
      cache_.WantRoom(true);  // from now on no dropped handle goes unnoticed
      continue;
    }
    if (std::optional<ModelCache::Victim> old = cache_.RetireForReload(entry)) {
      const LoadWatch::Scope watched = watch_.Begin({id, 0, nullptr, load.generation}, settings().load_timeout);
      Free(*std::move(old));
      continue;
    }
    std::optional<ModelCache::EvictionView> view = cache_.ViewForEviction(entry);
    if (!view) return Room::kLater;  // its bytes are on their way
    const EvictionPolicy& policy = *settings().eviction;
    const TimePoint now = deps_.clock.Now();
    const auto chosen = ChooseVictims(view->candidates, policy, now, view->settled, budget_.capacity(), need);
    if (!chosen && !view->displaces) {
      if (!cache_.GiveUp(entry)) continue;  // somebody waits for it now
      deps_.metrics.LoadDropped(LoadDrop::kNoRoom);
      return absl::ResourceExhaustedError(
          StrCat("no room for model '", id.name, "' version ", id.version,
                 " without displacing models that are in demand or in use; its first request loads it"));
    }
    if (!chosen) {
      // What was to go for it may have taken memory with it that is lost.
      HEARTH_RETURN_IF_ERROR(cache_.CheckCanFit(entry, need));
      absl::Status blocked = WithRetryAfter(
          absl::ResourceExhaustedError(
              StrCat("model '", id.name, "' version ", id.version,
                     " does not fit beside the models in use; ask again when they are idle")),
          kRetryHint);
      if (cache_.SetBlocked(entry, blocked)) return Room::kLater;
      deps_.metrics.LoadDropped(LoadDrop::kAbandoned);
      return blocked;  // nobody waits for it any more
    }
    std::vector<EvictionCandidate> candidates;
    for (const std::size_t i : *chosen) candidates.push_back(view->candidates[i]);
    std::optional<ModelCache::Taken> taken = cache_.TakeVictims(entry, need, candidates);
    if (!taken) continue;  // one of them was asked for meanwhile: it stays, and another is picked
    TellEvictions(id, need, {view->candidates, *chosen, view->settled, policy, now});
    FreeTaken(load, *std::move(taken));
  }
}

// One after the other, on this thread; those that are left when one of them is stuck, somebody else frees (Hangs).
void ModelManager::FreeTaken(const PendingLoad& load, ModelCache::Taken taken) {
  std::reverse(taken.victims.begin(), taken.victims.end());  // the last is taken first
  {
    MutexLock lock(mu_);
    freeing_[load.generation] = std::move(taken.victims);
  }
  for (ModelCache::Fallen& fallen : taken.fallen) {
    const LoadWatch::Scope watched = watch_.Begin({fallen.slot->id, 0, nullptr, load.generation}, settings().load_timeout);
    Free(std::move(fallen));
  }
  while (std::optional<ModelCache::Victim> victim = TakeFreeing(load.generation)) {
    const LoadWatch::Scope watched =
        watch_.Begin({victim->entry->slot.id, 0, nullptr, load.generation}, settings().load_timeout);
    Free(*std::move(victim));
  }
}

std::optional<ModelCache::Victim> ModelManager::TakeFreeing(std::uint64_t generation) {
  MutexLock lock(mu_);
  const auto found = freeing_.find(generation);
  if (found == freeing_.end()) return std::nullopt;
  if (found->second.empty()) {
    freeing_.erase(found);
    return std::nullopt;
  }
  ModelCache::Victim victim = std::move(found->second.back());
  found->second.pop_back();
  return victim;
}

void ModelManager::TellEvictions(const ModelId& for_whom, const Footprint& need, const Choice& choice) {
  const std::vector<Bytes> freed = BytesThatComeBack(choice.candidates, choice.chosen, choice.settled);
  const Bytes lacking = Lacking(need, choice.settled, budget_.capacity());
  {
    MutexLock lock(ghosts_mu_);
    ghosts_.Returning(for_whom);
  }
  const Bytes needed = lacking == Bytes{} ? SumOf(need) : Where(SumOf(need), lacking);
  std::vector<double> losses;
  for (const EvictionCandidate& candidate : choice.candidates) {
    if (candidate.rest_of != nullptr || Where(SumOf(*candidate.footprint), needed) == Bytes{}) continue;
    losses.push_back(choice.policy.Loss(candidate, choice.now));
  }
  for (std::size_t i = 0; i < choice.chosen.size(); ++i) {
    const EvictionCandidate& victim = choice.candidates[choice.chosen[i]];
    if (victim.rest_of != nullptr) continue;  // no model leaves with it
    const double loss = choice.policy.Loss(victim, choice.now);
    const auto colder = std::count_if(losses.begin(), losses.end(), [loss](double l) { return l < loss; });
    const Duration resident = choice.now - victim.ready_at;
    const Duration idle = choice.now - victim.last_used;
    deps_.metrics.MadeRoom(resident, idle);
    {
      MutexLock lock(ghosts_mu_);
      ghosts_.Evicted(victim.id, freed[i], lacking);
    }
    log::Info("model evicted", {{"model", victim.id.name},
                                {"version", victim.id.version},
                                {"for", ToString(for_whom)},
                                {"needed", Describe(needed, devices())}});
    events_.Add({.kind = CacheEventKind::kEvicted,
                 .id = victim.id,
                 .bytes = freed[i],
                 .resident = resident,
                 .idle = idle,
                 .hits = victim.hits,
                 .cause = EvictionCause{.made_room_for = for_whom,
                                        .needed = needed,
                                        .loss = loss,
                                        .rank = static_cast<std::size_t>(colder) + 1,
                                        .candidates = losses.size(),
                                        .demand = victim.demand}});
  }
}

// Until ShrinkToBudget() finds that everything fits.
void ModelManager::BeginShrinking() {
  MutexLock lock(mu_);
  ++reconfigured_;
  if (!std::exchange(shrinking_, true)) cache_.WantRoom(true);
}

// A pin was lifted: who was kept by it although there is no room for him may go.
void ModelManager::ShrinkAgain() {
  const MemoryBudget::Usage usage = budget_.usage();
  if (!(usage.used() <= usage.capacity)) BeginShrinking();
}

// Evicts what a smaller budget has no room for. Somebody who is in use calls again when he falls idle; nobody waits for
// who is pinned.
void ModelManager::ShrinkToBudget() {
  while (true) {
    std::uint64_t reconfigured = 0;
    {
      MutexLock lock(mu_);
      if (!shrinking_) return;
      reconfigured = reconfigured_;
    }
    const ModelCache::EvictionView view = cache_.ViewOfIdle();
    const Bytes capacity = budget_.capacity();
    const std::vector<std::size_t> chosen = ChooseExcess(view.candidates, *settings().eviction, deps_.clock.Now(),
                                                         view.settled, capacity);
    if (chosen.empty()) {
      const Bytes excess = Beyond(view.settled.used(), capacity);
      if (!(excess <= Beyond(view.pinned, capacity))) return;
      MutexLock lock(mu_);
      if (reconfigured_ != reconfigured) continue;
      if (std::exchange(shrinking_, false)) cache_.WantRoom(false);  // else another load thread has found the same
      return;
    }
    const Bytes lacking = Beyond(view.settled.used(), capacity);
    std::vector<EvictionCandidate> candidates;
    for (const std::size_t i : chosen) candidates.push_back(view.candidates[i]);
    ModelCache::Taken taken = cache_.TakeIdle(candidates);
    for (ModelCache::Fallen& fallen : taken.fallen) PostFree(std::move(fallen));
    for (ModelCache::Victim& victim : taken.victims) {
      const ModelId& id = victim.entry->slot.id;
      log::Info("model evicted", {{"model", id.name}, {"version", id.version}, {"for", "a smaller budget"}});
      TellLeft(*victim.entry);
      {
        MutexLock lock(ghosts_mu_);
        ghosts_.Evicted(id, SumOf(*victim.entry->reservation.footprint()), lacking);
      }
      PostFree(std::move(victim));
    }
  }
}

// No thread is held while a load waits for room. Wake() brings it back.
void ModelManager::Park(LoadPtr load, TaskGroup::How how) {
  if (how == TaskGroup::How::kDrop) {
    return Fail(*load, ServerExiting(), /*remember=*/false);
  }
  {
    MutexLock lock(mu_);
    if (load->room_changes == room_changes_) {
      const std::uint64_t generation = load->generation;
      parked_.emplace(generation, std::move(load));
      return;
    }
  }
  Resume(std::move(load));  // something changed while it was looking
}

// Its next step, where it belongs now.
void ModelManager::Resume(LoadPtr load) {
  const CacheEntry& entry = load->entry;
  const LoadPriority priority = cache_.priority(entry);
  const std::uint64_t generation = load->generation;
  load->priority = priority;
  {
    MutexLock lock(mu_);
    resuming_.emplace(generation, std::move(load));
  }
  tasks_.Post(ExecutorOf(priority), [this, generation, priority](TaskGroup::How how) {
    LoadPtr mine = TakeResuming(generation, priority);
    if (!mine) return;  // promoted meanwhile
    if (how == TaskGroup::How::kDrop) return Park(std::move(mine), how);
    LoadOne(std::move(mine));
  });
  if (cache_.priority(entry) != priority) Promote(generation);  // before anybody could find it
}

ModelManager::LoadPtr ModelManager::TakeResuming(std::uint64_t generation, LoadPriority priority) {
  MutexLock lock(mu_);
  const auto found = resuming_.find(generation);
  if (found == resuming_.end() || found->second->priority != priority) return nullptr;
  LoadPtr load = std::move(found->second);
  resuming_.erase(found);
  return load;
}

// It is normal now. One that waits for a thread in the background does so no longer; one that a thread has looks by
// itself before its next step; one that is parked can do nothing before there is room.
void ModelManager::Promote(std::uint64_t generation) {
  if (LoadPtr load = TakeResuming(generation, LoadPriority::kBackground)) Resume(std::move(load));
}

void ModelManager::RoomChanged() {
  if (!cache_.room_wanted() || waking_.exchange(true)) return;
  tasks_.Post(deps_.load_executor, [this](TaskGroup::How how) { Wake(how); });
}

void ModelManager::Wake(TaskGroup::How how) {
  waking_.store(false);
  if (how == TaskGroup::How::kRun) ShrinkToBudget();
  std::map<std::uint64_t, LoadPtr> woken;
  {
    MutexLock lock(mu_);
    ++room_changes_;
    woken.swap(parked_);
  }
  for (auto& [generation, load] : woken) {
    if (how == TaskGroup::How::kDrop) {
      Park(std::move(load), how);
    } else {
      Resume(std::move(load));
    }
  }
}

void ModelManager::Fail(PendingLoad& load, const absl::Status& error, bool remember) {
  const ModelId& id = load.entry.slot.id;
  NoteLost(id);
  ModelCache::Failed failed = cache_.Fail(load.entry, error, remember, load.revision);
  if (failed.hung) {
    TellHangEnded(load);
  } else {
    TellFailed(load, error, failed.waiters.size());
  }
  for (Waiter& waiter : failed.waiters) std::move(waiter.done)(failed.error, waiter.result);
  if (failed.requeued) TellQueued(id, false, *failed.requeued == LoadPriority::kNormal);
  PostLoadNext(failed.requeued);
  RoomChanged();
}

void ModelManager::TellFailed(const PendingLoad& load, const absl::Status& error, std::size_t waiters) {
  const ModelId& id = load.entry.slot.id;
  const Duration took = deps_.clock.Now() - load.started;
  deps_.metrics.LoadFinished(id.name, error.code(), took, {});
  events_.Add({.kind = CacheEventKind::kFailed, .id = id, .took = took, .waiters = waiters, .error = error});
  // That there was no room for what nobody waits for is nothing to warn of.
  const bool harmless = load.priority == LoadPriority::kBackground && absl::IsResourceExhausted(error);
  const log::Level level = harmless ? log::Level::kInfo : log::Level::kWarning;
  if (log::Enabled(level)) {
    log::Write(level, "model not loaded", {{"model", id.name},
                                           {"version", id.version},
                                           {"code", absl::StatusCodeToString(error.code())},
                                           {"error", FromAbsl(error.message())},
                                           {"waiters", waiters}});
  }
}

// Everybody has heard so when it was found to hang.
void ModelManager::TellHangEnded(const PendingLoad& load) {
  const ModelId& id = load.entry.slot.id;
  const Duration took = deps_.clock.Now() - load.started;
  log::Info("a load that hung has come to its end; what came of it is dropped",
            {{"model", id.name}, {"version", id.version}, {"after", RoughDuration(took)}});
  events_.Add({.kind = CacheEventKind::kFailed,
               .id = id,
               .took = took,
               .error = absl::AbortedError("it had hung (cache.load_timeout), and what came of it was dropped")});
}

// On the timer's thread.
void ModelManager::Hangs(const LoadWatch::Hang& hang) {
  const ModelId& id = hang.work.id;
  const std::uint64_t frees_for = hang.work.generation != 0 ? hang.work.generation : hang.work.makes_room_for;
  while (frees_for != 0) {  // whose thread does not come to it
    std::optional<ModelCache::Victim> victim = TakeFreeing(frees_for);
    if (!victim) break;
    PostFree(*std::move(victim));
  }
  const std::string since = RoughDuration(hang.since);
  const bool is_load = hang.work.generation != 0;
  log::Error(is_load ? "load hangs" : "unload hangs", {{"model", id.name},
                                                       {"version", id.version},
                                                       {"since", since},
                                                       {"thread_replaced", hang.replaced}});
  if (!is_load) {
    cache_.Strand(id);  // what it returns has been waited for
    return RoomChanged();  // whoever waits for those bytes
  }
  const absl::Status why = absl::UnavailableError(
      StrCat("the load of model '", id.name, "' version ", id.version, " hangs: it has not come to its end in ", since,
             " (cache.load_timeout); until it does the model is refused. Look at the disk or the device it is on"));
  std::optional<ModelCache::Abandoned> abandoned = cache_.Abandon(id, hang.work.generation, why);
  if (!abandoned) return;  // it has, meanwhile
  abandoned->stop.request_stop();
  RoomChanged();  // should it be parked
  events_.Add({.kind = CacheEventKind::kFailed,
               .id = id,
               .took = hang.since,
               .waiters = abandoned->waiters.size(),
               .error = why});
  for (Waiter& waiter : abandoned->waiters) std::move(waiter.done)(why, waiter.result);
}

void ModelManager::Stalls(const LoadWatch::Stall& stall) {
  const bool loads = stall.executor == &deps_.load_executor;
  const char* threads = loads ? "load" : stall.executor == deps_.unload_executor ? "unload" : "background load";
  if (stall.stuck.empty()) {
    if (loads) cache_.SetStalled(stall.number, std::nullopt);
    log::Info("a thread has come back", {{"threads", threads}});
    return;
  }
  std::string names;
  for (const ModelId& id : stall.stuck) names += StrCat(names.empty() ? "" : ", ", ToString(id));
  log::Error("no thread is left: all of them, and their replacements, are stuck. Look at the disk or the device that these "
             "models are on, or start hearthd again",
             {{"threads", threads}, {"models", names}});
  if (!loads) return;
  const absl::Status why = absl::UnavailableError(
      StrCat("no load thread is left for what somebody waits for: the loads of ", names,
             " hang (cache.load_timeout). Models that are resident are served. Look at the disk or the device that "
             "these are on, or start hearthd again"));
  std::vector<ModelCache::Leaver> leavers = cache_.SetStalled(stall.number, why);
  events_.Add({.kind = CacheEventKind::kStalled, .id = stall.stuck.front(), .waiters = leavers.size(), .error = why});
  for (ModelCache::Leaver& leaver : leavers) Answer(std::move(leaver), why);
}

void ModelManager::Ready(PendingLoad& load, const LoadReport& report,
                         ModelCache::Published published) {
  const ModelId& id = load.entry.slot.id;
  const Duration total = deps_.clock.Now() - load.started;
  std::vector<Metrics::LoadPhaseTime> phases;
  for (std::size_t i = 0; i < kLoadPhaseCount; ++i) {
    if (report.phases[i].wall != Duration{}) {
      phases.push_back({ToString(static_cast<LoadPhase>(i)), report.phases[i].wall});
    }
  }
  deps_.metrics.LoadFinished(id.name, absl::StatusCode::kOk, total, phases, ToString(report.from));
  if (published.away) deps_.metrics.CameBack(*published.away);
  const auto asked = [](const ModelCache::Delivery& delivery) { return delivery.waiter.request; };
  // Or they have all given up meanwhile.
  const bool cold_start = published.deliveries.empty()
                              ? load.priority == LoadPriority::kNormal
                              : std::any_of(published.deliveries.begin(), published.deliveries.end(), asked);
  {
    MutexLock lock(ghosts_mu_);
    if (cold_start) {
      ghosts_.Loaded(id, total, deps_.clock.Now());
    } else {
      ghosts_.Forget(id);  // nobody waited for it
    }
  }
  events_.Add({.kind = CacheEventKind::kReady,
               .id = id,
               .bytes = published.charged,
               .took = total,
               .waiters = published.deliveries.size(),
               .away = published.away,
               .tier = report.from});
  const auto phase_ms = [&report](LoadPhase phase) { return ToMilliseconds(report[phase].wall); };
  log::Info("model ready", {{"model", id.name},
                            {"version", id.version},
                            {"from", ToString(report.from)},
                            {"weights", FormatBytes(report.weight_bytes)},
                            {"copied", FormatBytes(report.copied_bytes)},
                            {"cached", FormatBytes(report.cached_bytes)},
                            {"shared", FormatBytes(report.shared_bytes)},
                            {"locked", FormatBytes(report.locked_bytes)},
                            {"load_ms", ToMilliseconds(total)},
                            {"open_ms", phase_ms(LoadPhase::kOpen)},
                            {"map_ms", phase_ms(LoadPhase::kMap)},
                            {"verify_ms", phase_ms(LoadPhase::kVerify)},
                            {"parse_ms", phase_ms(LoadPhase::kParse)},
                            {"bind_ms", phase_ms(LoadPhase::kBind)},
                            {"read_ms", phase_ms(LoadPhase::kRead)},
                            {"to_device_ms", phase_ms(LoadPhase::kToDevice)},
                            {"populate_ms", phase_ms(LoadPhase::kPopulate)},
                            {"analyse_ms", phase_ms(LoadPhase::kAnalyse)},
                            {"warm_up_ms", phase_ms(LoadPhase::kWarmUp)},
                            {"waiters", published.deliveries.size()}});
  for (ModelCache::Delivery& delivery : published.deliveries) {
    std::move(delivery.waiter.done)(std::move(delivery.handle), delivery.waiter.result);
  }
  const LoadWatch::Scope watched = watch_.Begin({id, 0, nullptr}, settings().load_timeout);  // this is no load any more
  if (published.replaced) Free(*std::move(published.replaced));
  if (published.rest) Free(*std::move(published.rest));
  SetIdleAlarm();
  RoomChanged();  // less may be held than was reserved
}

}  // namespace hearth
