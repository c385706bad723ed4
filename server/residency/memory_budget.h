// How many bytes models may hold, and who holds them.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <span>
#include <utility>

#include "server/base/mutex.h"
#include "server/model/footprint.h"
#include "server/residency/ledger.h"

namespace hearth {

// The ledger under a lock, with a limit. While the capacity stays what it is, two things hold at every moment, in
// every dimension:
//
//   (1) used     = resident + loading (reserved peak) + unloading          <= capacity
//   (2) settled  = resident + loading + claims, once unloading is done     <= capacity
//
// (1): bytes are given back only after the memory they stand for has been freed, so a reservation
// that was granted is memory that is there. (2): a claim is a promise of bytes that are on their
// way back; it is always kept, and nobody who comes later can take them first. Nothing is decided
// by looking at free memory of the machine, where page cache counts as used.
//
// A capacity that is set below what is held takes nothing away. Nothing comes in the dimensions in which too much is
// held, and what is given back there is gone: usage().ceiling comes down with it until it is the capacity. Each device
// is a dimension of its own: what is short on one changes nothing on another.
//
// Memory that could not be freed is lost: the capacity is what was configured without it, for good.
//
// Thread-safe. Its lock is a leaf: it calls nobody.
class MemoryBudget {
  using Claims = std::list<std::shared_ptr<const Footprint>>;
  using Place = Claims::iterator;
  using ConstPlace = Claims::const_iterator;

 public:
  using Capacity = Bytes;

  struct Usage {
    Bytes capacity;   // what was configured, without what is lost
    Bytes ceiling;    // what `used` may be: the capacity, or more while what was held before is still there
    Bytes resident;
    Bytes loading;    // reserved for loads under way
    Bytes unloading;  // evicted or unloaded, not freed yet
    Bytes configured;
    Bytes lost;       // could not be freed, since the start
    Bytes used() const { return resident + loading + unloading; }
  };

  // Bytes that are there and ours, given back by Release() or the destructor. Move-only; must not
  // outlive its budget. Starts in HoldPhase::kLoading. Thread-compatible.
  class Reservation {
   public:
    Reservation() = default;  // of nothing
    Reservation(Reservation&& other) noexcept { *this = std::move(other); }
    Reservation& operator=(Reservation&& other) noexcept;
    ~Reservation() { Release(); }

    explicit operator bool() const { return budget_ != nullptr; }
    // Null when of nothing. Immutable and shared, so that a snapshot of all models is cheap.
    const std::shared_ptr<const Footprint>& footprint() const { return footprint_; }
    HoldPhase phase() const { return phase_; }

    // loading -> resident: from the estimate to what was measured. False, and nothing has changed,
    // when more was measured than reserved and the difference breaks (1) or (2).
    [[nodiscard]] bool Settle(const Footprint& measured);
    // resident -> unloading.
    void BeginUnloading();
    // resident or unloading -> loading: whoever is to free the bytes is stuck, so nobody may count on them before they
    // are released. REQUIRES: no claims; they may have been promised these.
    void Strand();
    void Release();

   private:
    friend class MemoryBudget;
    Reservation(MemoryBudget* budget, std::shared_ptr<const Footprint> footprint)
        : budget_(budget), footprint_(std::move(footprint)) {}

    MemoryBudget* budget_ = nullptr;
    std::shared_ptr<const Footprint> footprint_;
    HoldPhase phase_ = HoldPhase::kLoading;
  };

  // A place in the queue for bytes that are being freed. Move-only. Thread-compatible.
  class Claim {
   public:
    Claim() = default;
    Claim(Claim&& other) noexcept { *this = std::move(other); }
    Claim& operator=(Claim&& other) noexcept;
    ~Claim() { Release(); }

    explicit operator bool() const { return budget_ != nullptr; }
    // The reservation, and the claim is spent, once it fits beside what is used and what earlier
    // claims wait for. When all that was unloading at the time of the claim is gone, it does.
    [[nodiscard]] std::optional<Reservation> TryTake();
    void Release();

   private:
    friend class MemoryBudget;
    Claim(MemoryBudget* budget, Place place) : budget_(budget), place_(place) {}

    MemoryBudget* budget_ = nullptr;
    Place place_{};
  };

  explicit MemoryBudget(Capacity capacity, DeviceNames devices = {});
  ~MemoryBudget();  // CHECKs that everything was given back
  MemoryBudget(const MemoryBudget&) = delete;
  MemoryBudget& operator=(const MemoryBudget&) = delete;

  // Granted when it fits beside everything used and claimed.
  [[nodiscard]] std::optional<Reservation> TryReserve(const Footprint& need)
      ABSL_LOCKS_EXCLUDED(mu_);

  // Granted when it will fit once `victims`, and what is unloading already, are gone. In the same
  // step the victims' reservations become unloading: both or neither.
  // REQUIRES: every victim is resident.
  [[nodiscard]] std::optional<Claim> TryClaim(const Footprint& need,
                                              std::span<Reservation* const> victims)
      ABSL_LOCKS_EXCLUDED(mu_);

  // From now on. REQUIRES: no claims; they were promised with the capacity before.
  void SetCapacity(Capacity capacity) ABSL_LOCKS_EXCLUDED(mu_);
  // So much could not be freed, in all. REQUIRES: no claims, as above. Before the reservation of those bytes is
  // released, or somebody else could be granted them.
  void SetLost(const Bytes& lost) ABSL_LOCKS_EXCLUDED(mu_);

  // What will be held when unloading is done, claims counted as loading.
  Ledger Settled() const ABSL_LOCKS_EXCLUDED(mu_);

  const DeviceNames& devices() const { return devices_; }  // what they are called, for people
  Capacity capacity() const ABSL_LOCKS_EXCLUDED(mu_);
  Usage usage() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  // On `ledger`, which is left as it was.
  bool Fits(Ledger& ledger, const Footprint& need) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool IsTooLarge(const Footprint& need) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Resize() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void LowerCeiling() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Fits beside everything used and the claims before `earlier`.
  bool FitsBeside(ConstPlace earlier, const Footprint& need) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void AddClaims(Ledger& ledger, ConstPlace end) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool SettleLocked(Reservation& reservation, std::shared_ptr<const Footprint> truth)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  Ledger SettledLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const DeviceNames devices_;
  mutable Mutex mu_;
  Capacity configured_ ABSL_GUARDED_BY(mu_);
  Bytes lost_ ABSL_GUARDED_BY(mu_);
  Capacity capacity_ ABSL_GUARDED_BY(mu_);  // configured_ without lost_
  Bytes ceiling_ ABSL_GUARDED_BY(mu_);
  Ledger ledger_ ABSL_GUARDED_BY(mu_);
  Claims claims_ ABSL_GUARDED_BY(mu_);  // oldest first
};

}  // namespace hearth
