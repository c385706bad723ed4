// Gives out models, loading and evicting as needed.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "server/base/clock.h"
#include "server/base/executor.h"
#include "server/base/heartbeats.h"
#include "server/base/mutex.h"
#include "server/base/status.h"
#include "server/base/timer.h"
#include "server/metrics/metrics.h"
#include "server/model/loader.h"
#include "server/residency/alarm.h"
#include "server/residency/event_log.h"
#include "server/residency/eviction.h"
#include "server/residency/ghost_list.h"
#include "server/residency/load_watch.h"
#include "server/residency/memory_budget.h"
#include "server/residency/model_cache.h"
#include "server/residency/model_handle.h"
#include "server/residency/task_group.h"

namespace hearth {

// ModelCache knows, ModelManager moves: this class finds files, calls loaders, destroys models and
// answers those who wait, and asks the cache before each step. A cold request's way is one
// function, LoadOne, that reads from top to bottom.
//
// A model on a device that makes room falls tier by tier (model/tier.h): its files stay open and, where the host's memory
// has room that no model uses, in memory. Its next load begins there. That room is the first to be given back.
//
// Nobody is hurt by an eviction: a model that is in use or hard-pinned is no candidate, nothing is
// evicted for a load that is known to be bad or that would not fit all the same, never more goes
// than is needed, and the bytes that come back are kept for the load they were freed for. Who was not asked for in
// its idle_unload goes without that anybody wants the room. Weights larger than
// the whole budget are served from a window: wherever the kernel has them, and charged a part. A budget that becomes
// smaller takes idle models at once, and others when they fall idle; memory that could not be freed makes it smaller,
// too. Each device has a budget of its own, and nobody goes for what is short on another one. A load
// that has to wait for models in use holds no thread: it is parked and goes on when a handle is
// dropped or bytes are freed.
//
// Loads that somebody waits for run on one executor, loads in the background on another, which may be of threads that
// count for less. A load is a chain of steps, estimate, make room, load and publish; when somebody begins to wait for
// one in the background, its next step runs where it belongs now (ModelCache::Find has the rules). One in the
// background displaces no model that is in demand (MayBeDisplaced): rather than that it ends with RESOURCE_EXHAUSTED.
//
// A load that does not come to its end in Options::load_timeout, and a second more for each 16 MiB, hangs: who waits for
// it hears so, and who asks for the model until it ends is refused. Its bytes stay charged, for they may be there, and
// another thread takes the place of the one that is stuck (LoadWatch), as it does where a model's destructor is. When
// those are stuck, too, nothing more can be loaded: who waits for a load that has not begun, and who asks for one, is
// refused until one of them comes back. What is resident is given out as ever.
//
// Thread-safe. Owns no thread: loads and unloads run on the Executors it was given, expiry of
// waiters on the Timer. Outlived by what Deps refers to; outlives every ModelHandle it gave out.
class ModelManager {
 public:
  struct Options {
    MemoryBudget::Capacity capacity;
    Duration failure_backoff = std::chrono::seconds(5);       // after the first failure; doubles
    Duration max_failure_backoff = std::chrono::minutes(2);
    Duration max_cold_wait = std::chrono::seconds(60);        // for callers without a deadline
    Duration demand_half_life = std::chrono::hours(1);        // of what EvictionCandidate::demand counts
    Duration min_residency{};                                 // EvictionCandidate::young until then
    // What a model is charged whose weights are larger than capacity.mapped_bytes; 0: it is refused.
    std::uint64_t mapped_window = 0;
    bool refuse_hopeless = true;  // ModelCache::Options
    Duration idle_unload{};       // of models that do not say themselves; 0: never
    Duration load_timeout{};      // after which a step of a load hangs, see below; 0: never
    std::size_t rests = 0;        // models that left a device whose files are kept open; 0: none
    std::size_t gaps = 0;         // models of which it is learned when they are asked for again: ExpectedUse(); 0: none
  };
  struct Deps {
    std::function<absl::StatusOr<ModelSpec>(const ModelId&)> find_spec;
    std::function<absl::StatusOr<const Loader*>(std::string_view format)> find_loader;
    Executor& load_executor;
    Timer& timer;
    const Clock& clock;
    Metrics& metrics;
    const EvictionPolicy* eviction = nullptr;  // null: GdsfPolicy
    Executor* background_executor = nullptr;   // null: load_executor
    Executor* unload_executor = nullptr;       // for what may be stuck while it frees; null: load_executor
    Heartbeats::Pulse* pulse = nullptr;        // beats while the timer rings and no lock is held for ever
    DeviceNames devices = {};                  // what people call those that footprints speak of
    // Memory that could not be freed, since the start: asked for after a model was destroyed. Null: there is none ever.
    std::function<Bytes()> lost_bytes = nullptr;
  };

  ModelManager(Deps deps, Options options);
  // Shutdown(), then waits for loads and unloads under way: the executor still has to run or drop
  // what was posted to it.
  ~ModelManager();
  ModelManager(const ModelManager&) = delete;

  // From now on; null: GdsfPolicy. A budget that grows is there at once. One that shrinks is kept to for whatever comes
  // from now on; idle models are evicted until the rest fits, models in use when they fall idle, and hard-pinned ones
  // not at all. Returns by how much these exceed it.
  Bytes Reconfigure(Options options, const EvictionPolicy* eviction);
  ModelManager& operator=(const ModelManager&) = delete;

  // The answer to Acquire.
  struct Acquired {
    ModelHandle handle;
    CacheResult cache = CacheResult::kHit;
    Duration waited{};
  };
  using AcquireCallback = absl::AnyInvocable<void(absl::StatusOr<Acquired>) &&>;
  // Names a waiter. 0: already answered.
  using Ticket = std::uint64_t;

  // A resident model's handle, or null: no lock, no allocation, no load started. Counts as a hit
  // and as a use. What a request may try first; Acquire does so too.
  ModelHandle TryAcquire(const ModelId& id);
  // The same for probes, metadata and metrics: leaves recency and hits as they are.
  ModelHandle Peek(const ModelId& id);

  // Calls `done` exactly once, with a handle or an error:
  //   RESOURCE_EXHAUSTED   does not fit beside the hard-pinned models (at once), or beside the
  //                        models in use until `deadline` (with a retry hint)
  //   FAILED_PRECONDITION  larger than the whole budget: will never fit
  //   DEADLINE_EXCEEDED    `deadline` (or max_cold_wait) passed first; the load goes on
  //   UNAVAILABLE          shutting down, or unloaded meanwhile; or no load of the model was ever fast enough for
  //                        `deadline` (at once, with a retry hint; it is loaded)
  //   CANCELLED            Cancel(ticket)
  //   UNAVAILABLE          also: its load hangs, or every load thread does, see above
  //   other                why the load failed
  // All who wait for a load hear the same. A failure is remembered: until a back-off has passed, or the
  // model's files are others (its revision, looked at on this thread), later requests get the load's own status
  // with a hint when to ask again. What is no fault of the model (no room, stopped) is not remembered.
  // Resident model: `done` runs before Acquire returns, on this thread, as do refusals. Otherwise
  // on a load or timer thread, so it must only hand over, not compute.
  // REQUIRES: `id` came from Catalog::Resolve, so the table cannot be made to grow from outside.
  Ticket Acquire(const ModelId& id, Deadline deadline, AcquireCallback done);
  // Answers CANCELLED now if still waiting; otherwise does nothing. The load goes on, in the background if no thread
  // has come for it.
  void Cancel(Ticket ticket);

  // Loads now even inside a failure's back-off; `done` gets OK once resident, or the reason.
  // kNoDeadline waits for as long as it takes.
  // `priority`: kBackground is for loads ahead of need. It respects back-offs, lets all others go first, and does
  // not displace what is in demand: RESOURCE_EXHAUSTED then, which is not remembered.
  // `reload`: load anew even when resident (the file changed); a
  // load under way starts again. The old one answers requests until the new one is ready, if both
  // fit at once; else it leaves first, and requests wait for the new one. A reload that fails
  // before the old one had to leave changes nothing.
  struct LoadRequest {
    bool reload = false;
    LoadPriority priority = LoadPriority::kNormal;
    std::optional<Expectation> expected{};  // why, of one ahead of a use that is foreseen
  };
  using LoadCallback = absl::AnyInvocable<void(absl::StatusOr<LoadReport>) &&>;
  void Load(const ModelId& id, LoadRequest request, Deadline deadline, LoadCallback done);

  // The next use of a model that left to make room, or because nobody asked for it; none: it cannot be told, or a load
  // ahead of it was begun. Something was told to events() whenever there may be another.
  std::optional<Expectation> ExpectedUse(const ModelId& id) const { return cache_.ExpectedUse(id); }

  // These and no others are hard-pinned by the configuration from now on: never evicted. A pin outlives unloads, reloads
  // and failures; it loads nothing by itself.
  // REQUIRES: `ids` came from the catalog.
  void SetHardPins(const std::vector<ModelId>& ids);
  // A hard pin beside the configuration's, held until Unpin or the end of the process: neither touches the other's.
  // A model is evicted only when both have gone. What holds then. REQUIRES: `id` came from the catalog.
  ModelCache::Pins Pin(const ModelId& id);
  ModelCache::Pins Unpin(const ModelId& id);
  ModelCache::Pins pins(const ModelId& id) const { return cache_.pins(id); }

  // Lets a model go that is idle and not pinned, as if its bytes were wanted: the next request loads it again. Of one
  // that has left already, what is left of it goes.
  // `done` is told when they are back; false: there was nothing. FAILED_PRECONDITION: in use, pinned, or on its way.
  // DEADLINE_EXCEEDED: CheckFreed().
  using EvictCallback = absl::AnyInvocable<void(absl::StatusOr<bool>) &&>;
  void Evict(const ModelId& id, EvictCallback done);

  // From this use on `handle`'s model is evicted when it was not asked for so long, whatever its own idle_unload, until
  // it is told otherwise: 0, as soon as nobody uses it; kKeepForever, not for that. A hint that says what the last one
  // said costs nothing. REQUIRES: not negative; `handle` is not null.
  void KeepAlive(const ModelHandle& handle, Duration keep_alive);

  // Stops handing out `id`, frees it when the last handle is gone, then calls `done` (its bytes are
  // back by then). OK also when it was not resident. A load under way is stopped: its waiters get
  // UNAVAILABLE. Nobody waits for a load or a destructor that hangs: `done` is called as soon as it does, and what the
  // load brings is dropped, should it ever end. A request that comes meanwhile is not refused: it loads the model again. `reason`
  // is for the log and the metrics.
  void Unload(const ModelId& id, absl::AnyInvocable<void() &&> done,
              EvictionReason reason = EvictionReason::kUnload);

  // Whether a model that left has been freed. DEADLINE_EXCEEDED: its destructor hangs.
  absl::Status CheckFreed(const ModelId& id) const;
  // Why nothing can be loaded any more; OK: it can.
  absl::Status CheckLoads() const;

  std::vector<ModelCache::Row> Snapshot() const { return cache_.Snapshot(); }
  // What is left of models that are none of those rows, or on their way up again.
  std::vector<RestRow> Rests() const { return cache_.Rests(); }
  Tier TierOf(const ModelId& id) const { return cache_.TierOf(id); }
  bool IsRefused(const ModelId& id) const { return cache_.IsRefused(id); }
  MemoryBudget::Usage usage() const { return budget_.usage(); }
  const DeviceNames& devices() const { return budget_.devices(); }
  // What happened, and why. Hits are not in it.
  EventLog& events() { return events_; }
  // What more memory of one kind would have spared of late; counts fade with the demand's half-life.
  GhostList::Plan PlanFor(Dimension dimension) const ABSL_LOCKS_EXCLUDED(ghosts_mu_);
  Duration demand_half_life() const ABSL_LOCKS_EXCLUDED(ghosts_mu_);
  // For Metrics::AddCollector: bytes by dimension, models, queue depth, waiters.
  std::vector<Metrics::Sample> Samples() const;

  // Refuses new work, cancels queued and running loads, unloads everything that is not in use; the
  // rest leaves when its handles are dropped. Returns at once; `idle()` tells when nothing is left.
  // Idempotent.
  void Shutdown();
  // Models that are still loaded, loading or unloading: what a hung shutdown should name.
  std::vector<ModelId> Remaining() const;
  bool idle() const { return Remaining().empty(); }
  // Somebody waits for memory that models hold.
  bool wants_room() const { return cache_.room_wanted(); }

  // Aborts on a bug; for tests. Debug builds check after every step.
  void CheckInvariants() const { cache_.CheckInvariants(); }

 private:
  // A load that a thread has taken from the queue. `spec` to `estimate` are set together.
  struct PendingLoad {
    ModelManager& manager;
    CacheEntry& entry;
    std::uint64_t generation;
    std::stop_token stop;
    LoadPriority priority;  // of the executor that runs its steps
    TimePoint started{};
    std::uint64_t revision = 0;  // once its files have been looked at
    std::optional<ModelSpec> spec{};
    const Loader* loader = nullptr;
    LoadEstimate estimate{};
    bool from_rest = false;  // `estimate` is of what was left of it
    bool wants_room = false;
    bool has_room = false;
    std::uint64_t room_changes = 0;  // when it last looked for room
    ~PendingLoad() {
      if (wants_room) manager.cache_.WantRoom(false);
    }
  };
  using LoadPtr = std::unique_ptr<PendingLoad>;
  enum class Room { kReserved, kLater };
  // What MakeRoom weighed when it chose who goes.
  struct Choice {
    const std::vector<EvictionCandidate>& candidates;
    const std::vector<std::size_t>& chosen;
    const Ledger& settled;
    const EvictionPolicy& policy;
    TimePoint now{};
  };

  // load_path.cc: the cold path, top to bottom.
  void LoadNext(LoadPriority priority, TaskGroup::How how);
  void LoadOne(LoadPtr load);
  bool WasPromoted(const PendingLoad& load) const;
  absl::Status Estimate(PendingLoad& load);
  void UseWindow(PendingLoad& load) const;
  absl::StatusOr<Room> MakeRoom(PendingLoad& load);
  void TellEvictions(const ModelId& for_whom, const Footprint& need, const Choice& choice);
  void BeginShrinking() ABSL_LOCKS_EXCLUDED(mu_);
  void ShrinkAgain() ABSL_LOCKS_EXCLUDED(mu_);
  void ShrinkToBudget() ABSL_LOCKS_EXCLUDED(mu_);
  void Park(LoadPtr load, TaskGroup::How how);
  void Resume(LoadPtr load);
  LoadPtr TakeResuming(std::uint64_t generation, LoadPriority priority);
  void Promote(std::uint64_t generation);
  void Fail(PendingLoad& load, const absl::Status& error, bool remember);
  void TellFailed(const PendingLoad& load, const absl::Status& error, std::size_t waiters);
  void TellHangEnded(const PendingLoad& load);
  void Ready(PendingLoad& load, const LoadReport& report, ModelCache::Published published);
  void Hangs(const LoadWatch::Hang& hang);
  void Stalls(const LoadWatch::Stall& stall);
  void FreeTaken(const PendingLoad& load, ModelCache::Taken taken) ABSL_LOCKS_EXCLUDED(mu_);
  std::optional<ModelCache::Victim> TakeFreeing(std::uint64_t generation) ABSL_LOCKS_EXCLUDED(mu_);
  static Duration Reading(const Footprint& footprint);  // so much longer may it take

  // rest_path.cc: what is left of models that made room.
  void PostWarm(const ModelId& id);
  void Warm(const ModelId& id);
  std::optional<ModelCache::Warming> RoomForRest(const ModelId& id);
  void Free(ModelCache::Fallen fallen);
  void PostFree(ModelCache::Fallen fallen);
  void TellFell(const ModelId& id, Tier tier, const Bytes& bytes);

  // After memory was freed, and before its bytes are given back: those that were not freed leave the budget.
  // What has not come back from where `id` was or was to be.
  void NoteLost(const ModelId& id);
  // Runs the destructor, here, then gives the bytes back.
  void Free(ModelCache::Victim victim);
  void PostFree(ModelCache::Victim victim);
  void TellQueued(const ModelId& id, bool request, bool waited_for,
                  const std::optional<Expectation>& expected = std::nullopt);
  void TellLeft(const CacheEntry& entry);
  Executor& ExecutorOf(LoadPriority priority) const;
  Executor& unload_executor() const {
    return deps_.unload_executor != nullptr ? *deps_.unload_executor : deps_.load_executor;
  }
  // Posted for every model that is queued, and again where its priority changes: so there are never fewer to come
  // than there are loads of that priority, and one that finds none does nothing.
  void PostLoadNext(ModelCache::Turn turn);
  // Bytes were freed, or a model fell idle: parked loads look again.
  void RoomChanged();
  void Wake(TaskGroup::How how);
  void Carry(ModelCache::Leaving leaving, const absl::Status& why);
  void Answer(ModelCache::Leaver leaver, const absl::Status& why);
  void ExpireWaiters();
  void EvictIdle();
  void SetIdleAlarm();
  void Beat() ABSL_LOCKS_EXCLUDED(mu_, ghosts_mu_);
  Waiters::Ticket Find(const ModelId& id, ModelCache::FindOptions options, Waiter waiter);
  bool IsOther(const ModelId& id, std::uint64_t revision) const;

  // Of Options, what is not the budget's or the cache's.
  struct Settings {
    const EvictionPolicy* eviction;
    Duration max_cold_wait;
    std::uint64_t mapped_window;
    Duration idle_unload;
    Duration load_timeout;
  };
  static Settings SettingsOf(const Options& options, const EvictionPolicy* eviction);
  Settings settings() const ABSL_LOCKS_EXCLUDED(mu_);

  const Deps deps_;
  MemoryBudget budget_;
  EventLog events_;
  ModelCache cache_;

  mutable Mutex ghosts_mu_;
  GhostList ghosts_ ABSL_GUARDED_BY(ghosts_mu_);

  std::atomic<bool> waking_{false};  // a Wake() is posted
  mutable Mutex mu_;
  Settings settings_ ABSL_GUARDED_BY(mu_);
  std::uint64_t reconfigured_ ABSL_GUARDED_BY(mu_) = 0;  // so often
  bool shrinking_ ABSL_GUARDED_BY(mu_) = false;  // more may be held than the budget: wants room for as long
  std::map<std::uint64_t, LoadPtr> parked_ ABSL_GUARDED_BY(mu_);    // by generation: oldest first
  std::map<std::uint64_t, LoadPtr> resuming_ ABSL_GUARDED_BY(mu_);  // their next step is posted
  std::uint64_t room_changes_ ABSL_GUARDED_BY(mu_) = 0;             // Wake()s so far
  // By the generation of the load that they make room for: not being freed yet.
  std::map<std::uint64_t, std::vector<ModelCache::Victim>> freeing_ ABSL_GUARDED_BY(mu_);

  LoadWatch watch_;  // posts only while tasks are under way
  TaskGroup tasks_;  // its destructor waits for what still uses the members above
  Alarm alarm_;      // may post tasks, so it goes first
  Alarm idle_alarm_;  // so may this one
  Alarm beat_alarm_;
};

}  // namespace hearth
