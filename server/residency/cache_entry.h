// What the cache keeps for each model, and how a request finds it without a lock.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <stop_token>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/hash/hash.h"
#include "server/base/clock.h"
#include "server/base/status.h"
#include "server/metrics/metrics.h"
#include "server/model/model.h"
#include "server/residency/demand.h"
#include "server/residency/idle_gaps.h"
#include "server/residency/kept_rest.h"
#include "server/residency/memory_budget.h"
#include "server/residency/model_state.h"
#include "server/residency/pin_count.h"

namespace hearth {

class ModelCache;
struct ModelSlot;

// Something to be done once all that hold it have let go. Destroy outside every lock.
class Completion {
 public:
  using Done = absl::AnyInvocable<void() &&>;
  explicit Completion(Done done) : done_(std::move(done)) {}
  ~Completion() {
    if (done_) std::move(done_)();
  }
  Completion(const Completion&) = delete;
  Completion& operator=(const Completion&) = delete;

 private:
  Done done_;
};

// One generation of a model. Lives as long as the cache and is used again after it became absent,
// for the same model: a request that reads a stale pointer finds either a closed entry or, pinned
// and ready, the model it asked for.
struct alignas(64) CacheEntry {
  CacheEntry(ModelCache& c, ModelSlot& s) : cache(c), slot(s) {}

  // Without a lock, by requests. `model` may be read while pinned.
  PinCount pins;
  std::atomic<Duration::rep> last_used{0};
  std::atomic<std::uint64_t> hits{0};
  std::atomic<Duration::rep> first_hit{0};  // once there is one
  std::atomic<bool> leave_when_idle{false};  // set under ModelCache::mu_; see ModelCache::TakeIdle
  std::unique_ptr<Model> model;
  ModelCache& cache;
  ModelSlot& slot;

  // Guarded by ModelCache::mu_.
  ModelState state = ModelState::kAbsent;
  std::uint64_t generation = 0;             // of the whole cache; new with every kQueued
  MemoryBudget::Reservation reservation;    // bytes charged
  MemoryBudget::Claim claim;                // queued: bytes on their way
  LoadPriority priority = LoadPriority::kNormal;  // coming: whose turn it is, and who may go for it
  TimePoint queued_at{};                    // coming
  TimePoint loading_at{};                   // loading
  bool taken = false;                       // queued: a load thread has it
  bool giving_up = false;                   // queued: it is about to fail, unless somebody waits for it by then
  bool reload = false;                      // the one that is ready is out of date
  bool stopping = false;                    // coming: its load was told to stop
  std::stop_source stop;                    // coming: how it is told
  std::optional<absl::Status> blocked;      // queued: why it has no room yet
  std::optional<absl::Status> hangs;        // coming: what those hear who ask for it, until its load ends
  EvictionReason leaving = EvictionReason::kCapacity;  // leaving: why
  absl::Status error;                       // failed: why
  TimePoint retry_at{};                     // failed: remembered until then
  LoadReport report;                        // ready, draining
  WallTime loaded_at{};                     // ready, draining
  TimePoint ready_at{};                     // ready, draining
  std::uint64_t hits_counted = 0;           // ready, draining: of `hits`, in the slot's demand
  std::uint64_t revision = 0;               // ready, draining, failed: ModelSpec::revision; 0: not known
  Duration idle_unload{};                   // ready: evicted when not asked for so long; 0: never for that
  std::optional<Duration> min_residency;    // ready: its own, instead of ModelCache::Options'
  std::optional<Expectation> expected;      // coming, ready: the use it was loaded ahead of
  bool expectation_met = false;             // ready: and that came while it was loading
  bool leaves_nothing = false;              // leaving: what is left of it is not to be kept
  std::vector<std::shared_ptr<Completion>> on_gone;  // told when absent, or its load was stopped; or stuck

  // Whoever loads or destroys it does not come back: nobody waits for that.
  bool stuck() const {
    return hangs.has_value() || (state == ModelState::kUnloading && reservation.phase() == HoldPhase::kLoading);
  }
};

// All generations of one model. Lives as long as the cache.
struct ModelSlot {
  ModelSlot(ModelId i, std::size_t h, ModelMetrics& m) : id(std::move(i)), hash(h), metrics(m) {}

  const ModelId id;
  const std::size_t hash;
  ModelMetrics& metrics;
  std::atomic<CacheEntry*> current{nullptr};  // the one that is ready
  // What the last request that said so wants instead of idle_unload, of all its lives; written under ModelCache::mu_.
  static constexpr Duration kNotAsked{-1};
  std::atomic<Duration::rep> keep_alive{kNotAsked.count()};
  ModelSlot* next = nullptr;                  // in its bucket; constant once published

  // Guarded by ModelCache::mu_.
  std::vector<std::unique_ptr<CacheEntry>> entries;
  CacheEntry* incoming = nullptr;  // queued, loading or failed: one at most
  bool configured_pin = false;     // hard pins: never evicted while either holds
  bool asked_pin = false;
  int failures = 0;                // in a row
  Demand demand;                   // of all its lives
  Duration reload{};               // what its loads took, half of it the last one's
  Duration fastest_load{};         // of all; 0: none has been measured
  TimePoint evicted_at{};          // made room for another; since its latest load, if at all
  KeptRest rest;                   // of its latest life
  // For ModelCache::ExpectedUse.
  TimePoint last_use{};            // as far as it is known
  bool away = false;               // left for want of room or of requests, and was not asked for since
  bool foreseen = false;           // and was loaded, or tried to be, ahead of its next use
  std::unique_ptr<IdleGaps> gaps;  // null: there is none

  bool pinned() const { return configured_pin || asked_pin; }
};

// A hash table that is read without a lock and only grows: a slot per model that was ever asked
// for, and those come from the catalog. One writer at a time.
class ModelIndex {
 public:
  ModelSlot* Find(const ModelId& id) const {
    const std::size_t hash = absl::Hash<ModelId>{}(id);
    ModelSlot* slot = buckets_[hash % kBuckets].load(std::memory_order_acquire);
    while (slot != nullptr && (slot->hash != hash || slot->id != id)) slot = slot->next;
    return slot;
  }

  // REQUIRES: Find(id) is null.
  ModelSlot& Insert(const ModelId& id, ModelMetrics& metrics) {
    const std::size_t hash = absl::Hash<ModelId>{}(id);
    auto slot = std::make_unique<ModelSlot>(id, hash, metrics);
    std::atomic<ModelSlot*>& bucket = buckets_[hash % kBuckets];
    slot->next = bucket.load(std::memory_order_relaxed);
    bucket.store(slot.get(), std::memory_order_release);
    slots_.push_back(std::move(slot));
    return *slots_.back();
  }

  const std::vector<std::unique_ptr<ModelSlot>>& slots() const { return slots_; }  // for the writer

 private:
  static constexpr std::size_t kBuckets = 4096;
  std::array<std::atomic<ModelSlot*>, kBuckets> buckets_{};
  std::vector<std::unique_ptr<ModelSlot>> slots_;
};

}  // namespace hearth
