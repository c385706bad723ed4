#include "server/residency/memory_budget.h"

#include <algorithm>

#include "server/base/check.h"

namespace hearth {
namespace {

// No machine has more; sums of a few of these do not overflow.
constexpr std::uint64_t kMaxCapacity = std::uint64_t{1} << 61;

// Would be at most `limit`, or no worse than before, in every dimension: a claim on mapped bytes
// must not keep out somebody who needs none.
bool Allowed(const Bytes& before, const Bytes& after, const Bytes& limit) {
  const auto ok = [](std::uint64_t was, std::uint64_t is, std::uint64_t most) {
    return is <= most || is <= was;
  };
  if (!ok(before.host_bytes, after.host_bytes, limit.host_bytes)) return false;
  for (DeviceNumber d = 0; d < after.device_bytes.end(); ++d) {
    if (!ok(before.device_bytes[d], after.device_bytes[d], limit.device_bytes[d])) return false;
  }
  return ok(before.mapped_bytes, after.mapped_bytes, limit.mapped_bytes);
}

Bytes Possible(const Bytes& capacity) {
  return Combine(capacity, {}, [](std::uint64_t bytes, std::uint64_t) { return std::min(bytes, kMaxCapacity); });
}

}  // namespace

MemoryBudget::MemoryBudget(Capacity capacity, DeviceNames devices)
    : devices_(std::move(devices)), configured_(Possible(capacity)), capacity_(configured_), ceiling_(capacity_) {}

MemoryBudget::~MemoryBudget() {
  HEARTH_CHECK(usage().used() == Bytes{});
  MutexLock lock(mu_);
  HEARTH_CHECK(claims_.empty());
}

std::optional<MemoryBudget::Reservation> MemoryBudget::TryReserve(const Footprint& need) {
  MutexLock lock(mu_);
  if (!FitsBeside(claims_.end(), need)) return std::nullopt;
  if (!claims_.empty()) {
    // Sharing bytes with somebody who leaves costs nothing now, but keeps them from coming back.
    Ledger settled = SettledLocked();
    if (!Fits(settled, need)) return std::nullopt;
  }
  ledger_.Add(need, HoldPhase::kLoading);
  return Reservation(this, std::make_shared<const Footprint>(need));
}

std::optional<MemoryBudget::Claim> MemoryBudget::TryClaim(const Footprint& need,
                                                          std::span<Reservation* const> victims) {
  MutexLock lock(mu_);
  Ledger settled = SettledLocked();
  for (const Reservation* victim : victims) {
    HEARTH_CHECK(victim->budget_ == this && victim->phase_ == HoldPhase::kResident);
    settled.Remove(*victim->footprint_, HoldPhase::kResident);
  }
  // Also in dimensions in which too much is held: that `need` adds nothing there is true only for as long as somebody
  // else holds the same bytes. It cannot be so on devices that it does not use.
  if (IsTooLarge(need)) return std::nullopt;
  settled.Add(need, HoldPhase::kLoading);
  if (!(settled.used() <= CapacityFor(need, settled.used(), capacity_))) return std::nullopt;
  for (Reservation* victim : victims) {
    ledger_.Remove(*victim->footprint_, HoldPhase::kResident);
    ledger_.Add(*victim->footprint_, HoldPhase::kUnloading);
    victim->phase_ = HoldPhase::kUnloading;
  }
  return Claim(this, claims_.insert(claims_.end(), std::make_shared<const Footprint>(need)));
}

void MemoryBudget::SetCapacity(Capacity capacity) {
  MutexLock lock(mu_);
  configured_ = Possible(capacity);
  Resize();
}

void MemoryBudget::SetLost(const Bytes& lost) {
  MutexLock lock(mu_);
  lost_ = lost;
  Resize();
}

void MemoryBudget::Resize() {
  HEARTH_CHECK(claims_.empty());
  capacity_ = Beyond(configured_, lost_);
  ceiling_ = AtLeast(capacity_, ledger_.used());
}

MemoryBudget::Capacity MemoryBudget::capacity() const {
  MutexLock lock(mu_);
  return capacity_;
}

// What was given back in a dimension in which too much is held does not come again.
void MemoryBudget::LowerCeiling() { ceiling_ = AtLeast(capacity_, AtMost(ceiling_, ledger_.used())); }

Ledger MemoryBudget::Settled() const {
  MutexLock lock(mu_);
  return SettledLocked();
}

MemoryBudget::Usage MemoryBudget::usage() const {
  MutexLock lock(mu_);
  return {capacity_, ceiling_, ledger_.held(HoldPhase::kResident), ledger_.held(HoldPhase::kLoading),
          ledger_.held(HoldPhase::kUnloading), configured_, lost_};
}

void MemoryBudget::AddClaims(Ledger& ledger, ConstPlace end) const {
  for (auto it = claims_.begin(); it != end; ++it) ledger.Add(**it, HoldPhase::kLoading);
}

bool MemoryBudget::FitsBeside(ConstPlace earlier, const Footprint& need) {
  if (!Fits(ledger_, need)) return false;
  if (earlier == claims_.cbegin()) return true;
  Ledger tentative = ledger_;
  AddClaims(tentative, earlier);
  return Fits(tentative, need);
}

// Looked at before sums that could overflow.
bool MemoryBudget::IsTooLarge(const Footprint& need) const {
  return need.device_bytes > capacity_.device_bytes[need.device] || need.host_bytes > capacity_.host_bytes ||
         need.window_bytes > capacity_.mapped_bytes;
}

bool MemoryBudget::Fits(Ledger& ledger, const Footprint& need) const {
  if (IsTooLarge(need)) return false;
  const Bytes before = ledger.used();
  ledger.Add(need, HoldPhase::kLoading);
  const bool fits = Allowed(before, ledger.used(), capacity_);
  ledger.Remove(need, HoldPhase::kLoading);
  return fits;
}

Ledger MemoryBudget::SettledLocked() const {
  Ledger settled = ledger_;
  settled.DropUnloading();
  AddClaims(settled, claims_.end());
  return settled;
}

MemoryBudget::Reservation& MemoryBudget::Reservation::operator=(Reservation&& other) noexcept {
  if (this != &other) {
    Release();
    budget_ = std::exchange(other.budget_, nullptr);
    footprint_ = std::move(other.footprint_);
    phase_ = other.phase_;
  }
  return *this;
}

bool MemoryBudget::Reservation::Settle(const Footprint& measured) {
  HEARTH_CHECK(budget_ != nullptr && phase_ == HoldPhase::kLoading);
  auto truth = std::make_shared<const Footprint>(measured);
  MutexLock lock(budget_->mu_);
  return budget_->SettleLocked(*this, std::move(truth));
}

bool MemoryBudget::SettleLocked(Reservation& r, std::shared_ptr<const Footprint> truth) {
  const auto try_on = [&, &capacity = capacity_](Ledger& ledger) {
    const Bytes before = ledger.used();
    ledger.Remove(*r.footprint_, HoldPhase::kLoading);
    ledger.Add(*truth, HoldPhase::kResident);
    return Allowed(before, ledger.used(), capacity);
  };
  bool fits = true;
  if (!claims_.empty()) {
    Ledger settled = SettledLocked();
    fits = try_on(settled);
  }
  if (!fits) return false;
  if (!try_on(ledger_)) {
    ledger_.Remove(*truth, HoldPhase::kResident);
    ledger_.Add(*r.footprint_, HoldPhase::kLoading);
    return false;
  }
  r.footprint_ = std::move(truth);
  r.phase_ = HoldPhase::kResident;
  LowerCeiling();
  return true;
}

void MemoryBudget::Reservation::BeginUnloading() {
  HEARTH_CHECK(budget_ != nullptr && phase_ == HoldPhase::kResident);
  MutexLock lock(budget_->mu_);
  budget_->ledger_.Remove(*footprint_, phase_);
  phase_ = HoldPhase::kUnloading;
  budget_->ledger_.Add(*footprint_, phase_);
}

void MemoryBudget::Reservation::Strand() {
  HEARTH_CHECK(budget_ != nullptr && phase_ != HoldPhase::kLoading);
  MutexLock lock(budget_->mu_);
  HEARTH_CHECK(budget_->claims_.empty());
  budget_->ledger_.Remove(*footprint_, phase_);
  phase_ = HoldPhase::kLoading;
  budget_->ledger_.Add(*footprint_, phase_);
}

void MemoryBudget::Reservation::Release() {
  if (budget_ == nullptr) return;
  {
    MutexLock lock(budget_->mu_);
    budget_->ledger_.Remove(*footprint_, phase_);
    budget_->LowerCeiling();
  }
  budget_ = nullptr;
  footprint_.reset();
  phase_ = HoldPhase::kLoading;
}

MemoryBudget::Claim& MemoryBudget::Claim::operator=(Claim&& other) noexcept {
  if (this != &other) {
    Release();
    budget_ = std::exchange(other.budget_, nullptr);
    place_ = other.place_;
  }
  return *this;
}

std::optional<MemoryBudget::Reservation> MemoryBudget::Claim::TryTake() {
  HEARTH_CHECK(budget_ != nullptr);
  MutexLock lock(budget_->mu_);
  if (!budget_->FitsBeside(place_, **place_)) return std::nullopt;
  Reservation reservation(budget_, std::move(*place_));
  budget_->ledger_.Add(*reservation.footprint_, HoldPhase::kLoading);
  budget_->claims_.erase(place_);
  budget_ = nullptr;
  return reservation;
}

void MemoryBudget::Claim::Release() {
  if (budget_ == nullptr) return;
  MutexLock lock(budget_->mu_);
  budget_->claims_.erase(place_);
  budget_ = nullptr;
}

}  // namespace hearth
