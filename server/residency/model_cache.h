// The table of models: which are there, in which state, who uses them, what they weigh.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <stop_token>
#include <vector>

#include "server/base/clock.h"
#include "server/base/mutex.h"
#include "server/base/status.h"
#include "server/residency/cache_entry.h"
#include "server/residency/cache_row.h"
#include "server/residency/eviction.h"
#include "server/residency/idle_queue.h"
#include "server/residency/memory_budget.h"
#include "server/residency/model_handle.h"
#include "server/residency/model_state.h"
#include "server/residency/waiters.h"

namespace hearth {

// For ModelCache::SetKeepAlive: until room is needed.
inline constexpr Duration kKeepForever = Duration::max();

// Bookkeeping only: starts no thread, opens no file, calls no Loader. ModelManager drives it.
//
// A hit takes no lock, moves no list and allocates nothing: pins, last use and hits are atomics in
// the entry, and entries are never freed while the cache lives. Everything else happens under one
// lock, and under it there is no I/O, no callback and no Model destructor: what has to be called or
// destroyed is handed to the caller. The only lock taken inside it is the budget's, so that the
// table and the ledger always agree.
//
// Thread-safe.
class ModelCache {
 public:
  struct Options {
    Duration failure_backoff{};      // after the first failure; doubles
    Duration max_failure_backoff{};
    Duration demand_half_life = std::chrono::hours(1);
    Duration min_residency{};        // younger ones are the last to be evicted
    bool refuse_hopeless = true;     // requests whose deadline no load of theirs has ever kept
    std::size_t rests = 0;           // kept at most
    std::size_t gaps = 0;            // models whose gaps are kept at most, for ExpectedUse()
  };
  // A model on its way out, kUnloading. Destroy `model` outside every lock, then call Forget().
  struct Victim {
    CacheEntry* entry = nullptr;
    std::unique_ptr<Model> model;
    std::uint64_t revision = 0;  // CacheEntry::revision
  };
  // What a rest had above the tier where it is now. Destroy it outside every lock, as a model; then call ForgetPages()
  // if it is `charged`.
  struct Fallen {
    ModelSlot* slot = nullptr;
    Tier from = Tier::kHost, to = Tier::kCold;  // the same: nobody need be told
    std::shared_ptr<const Rest> files{};  // of one that is cold now
    std::unique_ptr<const Rest::Pages> pages{};
    bool charged = false;
    std::optional<std::stop_source> stop{};  // a thread brings its pages in: request_stop(), and it gives them back
    std::shared_ptr<Completion> completion{};
  };
  struct Taken {
    std::vector<Victim> victims;
    std::vector<Fallen> fallen{};
  };
  // Called by whichever thread drops a handle, outside the lock.
  struct Hooks {
    std::function<void(Victim)> drained;  // it was the last one of a model that is leaving
    std::function<void()> unpinned;       // it was the last one, and somebody wants room
    std::function<void()> idle = {};      // it was the last one, and next_idle() is now
  };
  ModelCache(MemoryBudget& budget, const Clock& clock, Options options, Hooks hooks);
  ~ModelCache();  // CHECKs that nothing is pinned, loading or leaving

  // From now on; what failed keeps its back-off. With another capacity, a load whose bytes were on their way has to look
  // for room again. Returns the rests that are too many.
  std::vector<Fallen> Reconfigure(Options options, MemoryBudget::Capacity capacity) ABSL_LOCKS_EXCLUDED(mu_);
  // `total` could not be freed since the start, and is out of the capacity from now on. What of it was not known; if
  // anything was, loads look for room again as above. Before what it belonged to is given back, by Forget() or Fail().
  Bytes Lose(const Bytes& total) ABSL_LOCKS_EXCLUDED(mu_);

  // --- Requests --------------------------------------------------------------------------------

  // kRequest: counts a hit and marks the model as used now. kProbe leaves no trace.
  enum class Touch { kRequest, kProbe };
  // The resident model, or null. Wait-free but for other pins on the same model.
  ModelHandle TryPin(const ModelId& id, Touch touch);

  struct FindOptions {
    bool explicit_load = false;  // even inside a back-off
    bool reload = false;         // even when resident; a load under way starts again
    std::optional<Expectation> expected{};  // of a load that is ahead of it
  };
  // Where a load belongs now, whose next step is to be posted there.
  using Turn = std::optional<LoadPriority>;
  enum class Outcome {
    kHit,      // `handle` is set, `waiter` untouched
    kJoined,   // on its way already; `waiter` was queued
    kStart,    // now kQueued; `waiter` was queued
    kRefused,  // failed recently, its load hangs, or shutting down: `error`; `waiter` untouched
    kStalled,  // no thread would load it: `error`; `waiter` untouched
    kTooLate,  // joined or started all the same, but hopeless for this one: `error`; `waiter` untouched but for `result`
  };
  struct FindResult {
    Outcome outcome = Outcome::kRefused;
    ModelHandle handle{};
    absl::Status error{};
    std::optional<std::uint64_t> failed_revision{};  // kRefused in a back-off: what had failed, see CacheRow::revision
    Waiters::Ticket ticket = 0;
    std::optional<std::stop_source> stop{};  // a load to be told to stop
    Turn post{};                 // kQueued, and a load thread of this priority has to come for it
    std::uint64_t promoted = 0;  // the generation of a load that was in the background and had not begun
  };
  // One look under one lock decides, so there is at most one load of a model.
  //
  // A load has the highest priority of those who wait for it, and of those it is too late for. When one of normal
  // priority comes, one that has not begun becomes normal; when the last of them leaves one that no thread has
  // come for yet, it goes back to the background: it may be wanted again soon, and a thread that has nothing better
  // to do may have it ready by then, but it must not keep others waiting. One that is parked for want of room is
  // dropped instead (Leaver::abandoned): it would hold its files open, and wait for room that nobody needs. One
  // that runs goes on where it runs, for its room is paid for.
  //
  // Hopeless (Options::refuse_hopeless): a request for a load that has not begun, whose deadline comes before half of
  // the time that the fastest load of this model took has passed.
  FindResult Find(const ModelId& id, ModelMetrics& metrics, FindOptions options, Waiter& waiter)
      ABSL_LOCKS_EXCLUDED(mu_);

  // A waiter that has lost interest, with what it should hear; `abandoned`: nobody else waits for
  // that load, or only in the background, and it has no room, so it should be looked at; `post`: see FindResult.
  struct Leaver {
    Waiter waiter;
    absl::Status why;
    bool abandoned = false;
    Turn post{};
  };
  std::optional<Leaver> TakeWaiter(Waiters::Ticket ticket) ABSL_LOCKS_EXCLUDED(mu_);
  std::vector<Leaver> TakeExpired() ABSL_LOCKS_EXCLUDED(mu_);
  std::optional<TimePoint> next_deadline() const ABSL_LOCKS_EXCLUDED(mu_);

  // No thread is left for loads of normal priority, or there are some again (`why` is null). Who waits for one that has
  // not begun is returned, to hear `why`, and who asks for one is refused with it. `number` is ascending; what comes
  // after a greater one is too late and changes nothing.
  std::vector<Leaver> SetStalled(std::uint64_t number, std::optional<absl::Status> why) ABSL_LOCKS_EXCLUDED(mu_);
  std::optional<absl::Status> stalled() const ABSL_LOCKS_EXCLUDED(mu_);

  struct HardPin {
    ModelId id;
    ModelMetrics& metrics;
  };
  // These and no others are hard-pinned by the configuration from now on: never evicted once resident,
  // however often they leave and come back.
  void SetHardPins(const std::vector<HardPin>& pins) ABSL_LOCKS_EXCLUDED(mu_);
  // Who says that a model is never evicted. One is enough.
  struct Pins {
    bool configured = false;
    bool asked = false;
  };
  // A pin of its own, beside the configuration's, which it neither sets nor lifts. What holds then.
  Pins SetAskedPin(const HardPin& pin, bool pinned) ABSL_LOCKS_EXCLUDED(mu_);
  Pins pins(const ModelId& id) const ABSL_LOCKS_EXCLUDED(mu_);

  // --- A load, step by step ----------------------------------------------------------------------

  struct QueuedLoad {
    CacheEntry* entry = nullptr;
    std::uint64_t generation = 0;
    std::stop_token stop;
    Duration waited{};
  };
  // The next load to do of this priority: one that a request waits for, else the oldest. None: there is none.
  std::optional<QueuedLoad> TakeQueued(LoadPriority priority) ABSL_LOCKS_EXCLUDED(mu_);
  // As it is now: it may rise at any time, and falls only while there is no room for it.
  LoadPriority priority(const CacheEntry& entry) const ABSL_LOCKS_EXCLUDED(mu_);

  // Why `need` cannot fit for as long as the budget and the hard pins are what they are; or OK.
  absl::Status CheckCanFit(const CacheEntry& entry, const Footprint& need) const
      ABSL_LOCKS_EXCLUDED(mu_);

  // kQueued -> kLoading if the bytes are there.
  bool TryBeginLoad(CacheEntry& entry, const Footprint& need) ABSL_LOCKS_EXCLUDED(mu_);

  struct EvictionView {
    std::vector<EvictionCandidate> candidates;
    Ledger settled;  // they are part of it
    bool displaces = true;  // false: a load in the background, and only who MayBeDisplaced() is a candidate
    Bytes pinned{};         // ViewOfIdle: of them, of models that are hard-pinned
  };
  // Null: `entry` holds a claim, and only has to wait.
  std::optional<EvictionView> ViewForEviction(const CacheEntry& entry) ABSL_LOCKS_EXCLUDED(mu_);
  // All the chosen ones -> kUnloading, and their bytes claimed for `entry`. None, and nothing
  // changed, if one of them is wanted again or the bytes would not do any more: look again.
  std::optional<Taken> TakeVictims(CacheEntry& entry, const Footprint& need,
                                   const std::vector<EvictionCandidate>& chosen) ABSL_LOCKS_EXCLUDED(mu_);
  // Everybody who could leave for a budget that became smaller.
  EvictionView ViewOfIdle() ABSL_LOCKS_EXCLUDED(mu_);
  // Those of them that are still idle -> kUnloading.
  Taken TakeIdle(const std::vector<EvictionCandidate>& chosen) ABSL_LOCKS_EXCLUDED(mu_);
  // The generation that `entry` reloads makes room: unpinned -> kUnloading (returned), else
  // kDraining. Nothing if `entry` is no reload or it is leaving already.
  std::optional<Victim> RetireForReload(CacheEntry& entry) ABSL_LOCKS_EXCLUDED(mu_);
  // No room yet. False: nobody waits for it, so it need not be loaded at all; should somebody come before Fail(), it
  // is queued again.
  bool SetBlocked(CacheEntry& entry, absl::Status why) ABSL_LOCKS_EXCLUDED(mu_);
  // The same for a load in the background that there is no room for. False: it is none any more, look again.
  bool GiveUp(CacheEntry& entry) ABSL_LOCKS_EXCLUDED(mu_);

  struct Delivery {
    Waiter waiter;
    ModelHandle handle;
  };
  struct Published {
    std::vector<Delivery> deliveries;
    std::optional<Victim> replaced{};  // the generation before, if nobody used it
    std::optional<Fallen> rest{};      // what was left of it, and is of no more use
    Bytes charged{};                   // what was measured
    std::optional<Duration> away{};    // since it made room for another model
  };
  // Of CacheEntry, what the model is loaded with.
  struct Stay {
    Duration idle_unload{};
    std::optional<Duration> min_residency{};
  };
  // kLoading -> kReady, charged what was measured, its weights a window if that is what was reserved.
  // Every waiter's pin is taken before anybody can evict the model. An error leaves the model with the caller, who destroys it and calls Fail():
  // CANCELLED, it was told to stop; RESOURCE_EXHAUSTED, more was measured than fits.
  // `from`: where the load found it.
  absl::StatusOr<Published> Publish(CacheEntry& entry, std::unique_ptr<Model>& model, std::uint64_t revision,
                                    const Stay& stay, Tier from = Tier::kCold) ABSL_LOCKS_EXCLUDED(mu_);

  struct Failed {
    absl::Status error;  // for the waiters: with a hint when to ask again
    std::vector<Waiter> waiters{};
    Turn requeued{};  // told to stop, or given up, and wanted again since: kQueued, see FindResult::post
    bool hung = false;  // Abandon() took its waiters
    std::vector<std::shared_ptr<Completion>> gone{};
  };
  // kQueued | kLoading -> kFailed, then kAbsent unless `remember`. Gives the bytes back. `revision`: of what was tried.
  Failed Fail(CacheEntry& entry, const absl::Status& error, bool remember, std::uint64_t revision = 0)
      ABSL_LOCKS_EXCLUDED(mu_);

  // A load that a thread has begun and does not come back from.
  struct Abandoned {
    std::stop_source stop;  // request_stop() it
    std::vector<Waiter> waiters;
    std::vector<std::shared_ptr<Completion>> gone{};
  };
  // Nobody waits for it any more, nor for that it leaves, and whoever asks for the model is refused with `why`, until it
  // fails. None: it has come to its end.
  std::optional<Abandoned> Abandon(const ModelId& id, std::uint64_t generation, const absl::Status& why)
      ABSL_LOCKS_EXCLUDED(mu_);

  // Whoever frees what is leaving of the model, or brings in pages of what is left of it, is stuck: loads that were
  // promised those bytes have to look for room again, and nobody waits for that they are back.
  std::vector<std::shared_ptr<Completion>> Strand(const ModelId& id) ABSL_LOCKS_EXCLUDED(mu_);

  // --- Leaving -----------------------------------------------------------------------------------

  struct Leaving {
    std::vector<Victim> victims;
    std::vector<Fallen> fallen;             // what was left of it
    std::vector<Waiter> waiters;            // of loads that were stopped
    std::vector<std::stop_source> stops;    // request_stop() these
    std::vector<std::shared_ptr<Completion>> gone;
    bool hangs = false;                     // a load does; its result is dropped, should it ever end
    bool nothing = true;                    // it was neither resident nor on its way
  };
  // What is ready -> kDraining | kUnloading, what is coming is stopped, what failed is forgotten, and nothing is left.
  // `completion` is let go when the bytes of all of it are back, but for what is stuck.
  Leaving BeginUnload(const ModelId& id, EvictionReason reason,
                      std::shared_ptr<Completion> completion) ABSL_LOCKS_EXCLUDED(mu_);
  // kReady -> kUnloading where nobody holds or pins it; of one that is not resident what is left goes; nothing, if
  // nothing is. `completion` is let go when its bytes are back. FAILED_PRECONDITION: it is in use, pinned or being loaded.
  absl::StatusOr<Taken> BeginEvict(const ModelId& id, const std::shared_ptr<Completion>& completion)
      ABSL_LOCKS_EXCLUDED(mu_);
  // BeginUnload of everything; Find() refuses from now on.
  Leaving Shutdown() ABSL_LOCKS_EXCLUDED(mu_);

  // --- Models that nobody asks for ------------------------------------------------------------------

  // From now on the model leaves when it was not asked for so long, whatever it was loaded with, until it is told
  // otherwise. 0: as soon as nobody uses it. True: next_idle() may have changed. Takes no lock to say what was said
  // before. REQUIRES: not negative; `handle` is not null.
  bool SetKeepAlive(const ModelHandle& handle, Duration keep_alive) ABSL_LOCKS_EXCLUDED(mu_);
  // All that were not asked for long enough, and that nobody uses or pins -> kUnloading. Those in use leave when their
  // last handle is dropped (Hooks::idle), unless they are asked for again by then.
  std::vector<Victim> TakeIdle() ABSL_LOCKS_EXCLUDED(mu_);
  // When TakeIdle() is next to be called. None: nobody leaves for that.
  std::optional<TimePoint> next_idle() const ABSL_LOCKS_EXCLUDED(mu_);

  // --- Models that left and will be asked for again ---------------------------------------------------

  // When that is, by how long it was away before. None: it is here, or on its way; it left for another reason than to
  // make room or because nobody asked for it; it cannot be told; or a load ahead of this use was begun already.
  std::optional<Expectation> ExpectedUse(const ModelId& id) const ABSL_LOCKS_EXCLUDED(mu_);
  struct Prewarms {
    std::uint64_t done = 0;  // loads ahead of an expected use that became ready
    std::uint64_t used = 0;  // of them, those that somebody then asked for
  };
  Prewarms prewarms() const ABSL_LOCKS_EXCLUDED(mu_);

  // kUnloading -> kAbsent: the model has been destroyed, and its bytes are free from now on. `rest`: to be kept, unless
  // it left for a reason that leaves nothing, or is back already.
  struct Forgotten {
    std::vector<std::shared_ptr<Completion>> gone;
    bool kept = false;           // of the rest
    std::vector<Fallen> fallen;  // too many; also the rest that was not kept
  };
  Forgotten Forget(CacheEntry& entry, std::shared_ptr<const Rest> rest = nullptr, std::uint64_t revision = 0)
      ABSL_LOCKS_EXCLUDED(mu_);

  // Whether the next request for it would be refused: its load hangs, or failed, a short time ago or for what is in its files.
  bool IsRefused(const ModelId& id) const ABSL_LOCKS_EXCLUDED(mu_);

  // --- What is left of models (kept_rest.h) ---------------------------------------------------------

  // For a load.
  struct RestView {
    std::shared_ptr<const Rest> files;  // null: nothing is left
    std::uint64_t revision = 0;
  };
  RestView RestOf(const CacheEntry& entry) const ABSL_LOCKS_EXCLUDED(mu_);
  Tier TierOf(const ModelId& id) const ABSL_LOCKS_EXCLUDED(mu_);
  // Its files are not what they were.
  std::optional<Fallen> DropRest(CacheEntry& entry) ABSL_LOCKS_EXCLUDED(mu_);

  // For bringing in the pages of a rest: `own` is what it would be as a candidate, `others` are those that are there,
  // part of `settled`. None: it is gone, on its way up, or in memory already.
  struct WarmingView {
    EvictionCandidate own;
    std::vector<EvictionCandidate> others;
    Ledger settled;
  };
  std::optional<WarmingView> ViewForWarming(const ModelId& id) ABSL_LOCKS_EXCLUDED(mu_);
  struct Warming {
    ModelSlot* slot = nullptr;
    std::shared_ptr<const Rest> files;
    std::stop_token stop;
  };
  // Charged from here on, if there is room and it is still the one that was looked at.
  std::optional<Warming> BeginWarming(const EvictionCandidate& own) ABSL_LOCKS_EXCLUDED(mu_);
  // `pages`: null if they could not be brought in. What was returned is to be destroyed: the pages are not wanted, or
  // none came.
  std::optional<Fallen> EndWarming(Warming warming, std::unique_ptr<const Rest::Pages> pages) ABSL_LOCKS_EXCLUDED(mu_);
  // Those that went have been destroyed, and their bytes are free from now on.
  std::vector<std::shared_ptr<Completion>> ForgetPages(ModelSlot& slot) ABSL_LOCKS_EXCLUDED(mu_);

  // By id.
  std::vector<RestRow> Rests() const ABSL_LOCKS_EXCLUDED(mu_);

  // While somebody wants room, dropping a last handle calls Hooks::unpinned.
  void WantRoom(bool wanted) { room_wanted_.fetch_add(wanted ? 1 : -1); }
  bool room_wanted() const { return room_wanted_.load() > 0; }

  // --- For people --------------------------------------------------------------------------------

  using Row = CacheRow;
  // By id, oldest generation first. Touches nothing.
  std::vector<Row> Snapshot() const ABSL_LOCKS_EXCLUDED(mu_);
  // Of which a thread brings in or frees pages.
  std::vector<ModelId> RestsUnderWay() const ABSL_LOCKS_EXCLUDED(mu_);
  bool shutting_down() const ABSL_LOCKS_EXCLUDED(mu_);

  // Aborts unless the table in model_state.h holds and the ledger says what the table says. Debug
  // builds do this after every change.
  void CheckInvariants() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  friend class ModelHandle;

  void Unpin(CacheEntry& entry) noexcept ABSL_LOCKS_EXCLUDED(mu_);
  void Drained(CacheEntry& entry) ABSL_LOCKS_EXCLUDED(mu_);
  void Transition(CacheEntry& entry, ModelState to) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  ModelSlot& SlotOf(const ModelId& id, ModelMetrics& metrics) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  CacheEntry& Enqueue(ModelSlot& slot, LoadPriority priority) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool IsHopeless(const ModelSlot& slot, const Waiter& waiter) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  Victim TakeOut(CacheEntry& entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  std::optional<Victim> Retire(CacheEntry& entry, EvictionReason reason)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Leave(ModelSlot& slot, EvictionReason reason, const std::shared_ptr<Completion>& completion,
             Leaving& leaving) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // By models that are hard-pinned, but for those of `but`.
  Ledger HeldByPinned(const ModelSlot* but) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  std::vector<EvictionCandidate> Candidates() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  static bool IsStill(const EvictionCandidate& candidate);
  // All rests that give way; also that of the model there is to be room for: what it needs itself does not come back.
  void AddRests(std::vector<EvictionCandidate>& candidates) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  EvictionCandidate RestCandidate(ModelSlot& slot) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // host | warming -> mapped; its reservation is unloading. | anything -> cold.
  Fallen LetPagesGo(ModelSlot& slot) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  std::optional<Fallen> LetRestGo(ModelSlot& slot, std::shared_ptr<Completion> completion = nullptr)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void LetSurplusGo(std::vector<Fallen>& fallen) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  Leaver MakeLeaver(Waiters::Taken taken) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Touched(CacheEntry& entry);
  std::optional<Duration> IdleLimit(const CacheEntry& entry) const;
  std::optional<TimePoint> DueAt(const CacheEntry& entry) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Schedule(CacheEntry& entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void FellIdle(CacheEntry& entry) ABSL_LOCKS_EXCLUDED(mu_);
  // Brings the slot's demand up to the hits of `entry`, which it is told of only now: a hit takes no lock.
  void CountHits(CacheEntry& entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void NoteReturn(ModelSlot& slot, TimePoint at) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void NoteAway(CacheEntry& entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void ForgetGaps() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool IsPrewarmUsed(const CacheEntry& entry) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void CountPrewarm(CacheEntry& entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void VoidClaims() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void CheckLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);  // in debug builds
  void CheckTable() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void CheckEntry(const CacheEntry& entry) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void CheckRest(const ModelSlot& slot) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  MemoryBudget& budget_;
  const Clock& clock_;
  const Hooks hooks_;
  std::atomic<int> room_wanted_{0};
  ModelIndex index_;  // written under mu_, read without

  mutable Mutex mu_;
  Options options_ ABSL_GUARDED_BY(mu_);
  Waiters waiters_ ABSL_GUARDED_BY(mu_);
  IdleQueue idle_ ABSL_GUARDED_BY(mu_);  // kReady, not pinned, and with a limit
  std::deque<CacheEntry*> queue_ ABSL_GUARDED_BY(mu_);  // kQueued and not taken, oldest first
  std::map<std::uint64_t, ModelSlot*> rests_ ABSL_GUARDED_BY(mu_);  // with files, by number
  std::uint64_t rest_numbers_ ABSL_GUARDED_BY(mu_) = 0;
  std::uint64_t generations_ ABSL_GUARDED_BY(mu_) = 0;
  std::size_t gaps_ ABSL_GUARDED_BY(mu_) = 0;  // slots that have them
  Prewarms prewarms_ ABSL_GUARDED_BY(mu_);  // `used`: of those that are not here any more
  bool shutting_down_ ABSL_GUARDED_BY(mu_) = false;
  std::optional<absl::Status> stalled_ ABSL_GUARDED_BY(mu_);
  std::uint64_t stall_number_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace hearth
