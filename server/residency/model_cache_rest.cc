// What is left of models that made room on their device.
#include <algorithm>
#include <utility>

#include "server/base/check.h"
#include "server/residency/model_cache.h"

namespace hearth {
namespace {

// Who leaves in these ways may be wanted again as it was; nothing is kept of what is wrong, out of date or unwanted.
bool LeavesRest(EvictionReason reason) {
  return reason == EvictionReason::kCapacity || reason == EvictionReason::kIdle || reason == EvictionReason::kEvict;
}

// What it takes to bring so many bytes in, at least: from the page cache about a GiB in a second.
Duration TimeToBringIn(const Footprint& footprint) {
  const Bytes bytes = SumOf(footprint);
  return std::chrono::nanoseconds(bytes.host_bytes + bytes.mapped_bytes);
}

}  // namespace

ModelCache::Forgotten ModelCache::Forget(CacheEntry& entry, std::shared_ptr<const Rest> rest, std::uint64_t revision) {
  MutexLock lock(mu_);
  Forgotten forgotten;
  ModelSlot& slot = entry.slot;
  entry.reservation.Release();
  Transition(entry, ModelState::kAbsent);
  forgotten.gone = std::exchange(entry.on_gone, {});
  const bool unwanted = std::exchange(entry.leaves_nothing, false) || !LeavesRest(entry.leaving) || shutting_down_;
  const bool is_back = slot.current.load(std::memory_order_relaxed) != nullptr;
  if (rest != nullptr && (unwanted || is_back || options_.rests == 0)) {
    forgotten.fallen.push_back({.slot = &slot, .from = Tier::kCold, .files = std::move(rest)});  // it never was one
  } else if (rest != nullptr) {
    if (std::optional<Fallen> older = LetRestGo(slot)) forgotten.fallen.push_back(*std::move(older));
    slot.rest.files = std::move(rest);
    slot.rest.number = ++rest_numbers_;
    slot.rest.revision = revision;
    slot.rest.last_used = TimePoint(Duration(entry.last_used.load(std::memory_order_relaxed)));
    rests_.emplace(slot.rest.number, &slot);
    forgotten.kept = true;
    LetSurplusGo(forgotten.fallen);
  }
  CheckLocked();
  return forgotten;
}

ModelCache::RestView ModelCache::RestOf(const CacheEntry& entry) const {
  MutexLock lock(mu_);
  return {entry.slot.rest.files, entry.slot.rest.revision};
}

Tier ModelCache::TierOf(const ModelId& id) const {
  MutexLock lock(mu_);
  const ModelSlot* slot = index_.Find(id);
  return slot == nullptr ? Tier::kCold : slot->rest.tier();
}

std::optional<ModelCache::Fallen> ModelCache::DropRest(CacheEntry& entry) {
  MutexLock lock(mu_);
  std::optional<Fallen> fallen = LetRestGo(entry.slot);
  CheckLocked();
  return fallen;
}

EvictionCandidate ModelCache::RestCandidate(ModelSlot& slot) {
  const Footprint& footprint = slot.rest.files->footprint();
  return {.rest_of = &slot,
          .generation = slot.rest.number,
          .id = slot.id,
          .footprint = slot.rest.gives_way() ? slot.rest.reservation.footprint()
                                             : std::make_shared<const Footprint>(footprint),
          .last_used = slot.rest.last_used,
          .demand = slot.demand.At(clock_.Now(), options_.demand_half_life),
          .reload = TimeToBringIn(footprint)};  // the files stay open, so that is all that is lost
}

void ModelCache::AddRests(std::vector<EvictionCandidate>& candidates) {
  for (const auto& [number, slot] : rests_) {
    if (slot->rest.gives_way()) candidates.push_back(RestCandidate(*slot));
  }
}

ModelCache::Fallen ModelCache::LetPagesGo(ModelSlot& slot) {
  KeptRest& rest = slot.rest;
  Fallen fallen{.slot = &slot, .from = rest.tier(), .to = Tier::kMapped};
  if (rest.gives_way()) rest.reservation.BeginUnloading();  // else a claim has seen to that
  if (rest.warming) {
    fallen.stop = rest.stop;
  } else {
    fallen.pages = std::move(rest.pages);
    fallen.charged = true;
  }
  return fallen;
}

std::optional<ModelCache::Fallen> ModelCache::LetRestGo(ModelSlot& slot, std::shared_ptr<Completion> completion) {
  KeptRest& rest = slot.rest;
  if (rest.files == nullptr) return std::nullopt;
  Fallen fallen{.slot = &slot, .from = rest.tier()};
  if (rest.gives_way()) fallen = LetPagesGo(slot);
  fallen.to = Tier::kCold;
  fallen.files = std::exchange(rest.files, nullptr);
  fallen.completion = std::move(completion);
  rests_.erase(rest.number);
  return fallen;
}

void ModelCache::LetSurplusGo(std::vector<Fallen>& fallen) {
  while (rests_.size() > options_.rests) fallen.push_back(*LetRestGo(*rests_.begin()->second));  // the oldest
}

std::optional<ModelCache::WarmingView> ModelCache::ViewForWarming(const ModelId& id) {
  MutexLock lock(mu_);
  ModelSlot* slot = index_.Find(id);
  if (slot == nullptr || slot->rest.files == nullptr || slot->rest.reservation) return std::nullopt;
  if (slot->incoming != nullptr && IsComing(slot->incoming->state)) return std::nullopt;
  WarmingView view{RestCandidate(*slot), {}, budget_.Settled()};
  AddRests(view.others);
  // Their pages go only when a thread lets go of them, which is too late for this one.
  std::erase_if(view.others, [](const EvictionCandidate& other) { return other.rest_of->rest.warming; });
  return view;
}

std::optional<ModelCache::Warming> ModelCache::BeginWarming(const EvictionCandidate& own) {
  MutexLock lock(mu_);
  KeptRest& rest = own.rest_of->rest;
  if (rest.files == nullptr || rest.number != own.generation || rest.reservation) return std::nullopt;
  std::optional<MemoryBudget::Reservation> reservation = budget_.TryReserve(*own.footprint);
  if (!reservation) return std::nullopt;
  HEARTH_CHECK(reservation->Settle(*own.footprint));
  rest.reservation = *std::move(reservation);
  rest.warming = true;
  rest.stop = std::stop_source();
  CheckLocked();
  return Warming{own.rest_of, rest.files, rest.stop.get_token()};
}

std::optional<ModelCache::Fallen> ModelCache::EndWarming(Warming warming, std::unique_ptr<const Rest::Pages> pages) {
  MutexLock lock(mu_);
  KeptRest& rest = warming.slot->rest;
  rest.warming = false;
  if (rest.gives_way() && pages != nullptr) {
    rest.pages = std::move(pages);
    CheckLocked();
    return std::nullopt;
  }
  if (rest.gives_way()) rest.reservation.BeginUnloading();
  CheckLocked();
  return Fallen{.slot = warming.slot,
                .from = Tier::kMapped,
                .to = Tier::kMapped,
                .files = std::move(warming.files),
                .pages = std::move(pages),
                .charged = true};
}

std::vector<std::shared_ptr<Completion>> ModelCache::ForgetPages(ModelSlot& slot) {
  MutexLock lock(mu_);
  slot.rest.reservation.Release();
  std::vector<std::shared_ptr<Completion>> gone = std::exchange(slot.rest.on_gone, {});
  CheckLocked();
  return gone;
}

std::vector<ModelId> ModelCache::RestsUnderWay() const {
  std::vector<ModelId> ids;
  MutexLock lock(mu_);
  for (const auto& slot : index_.slots()) {
    if (slot->rest.under_way()) ids.push_back(slot->id);
  }
  return ids;
}

std::vector<RestRow> ModelCache::Rests() const {
  std::vector<RestRow> rows;
  {
    MutexLock lock(mu_);
    for (const auto& [number, slot] : rests_) {
      const KeptRest& rest = slot->rest;
      rows.push_back({slot->id, rest.tier(), rest.gives_way() ? SumOf(*rest.reservation.footprint()) : Bytes{},
                      rest.last_used});
    }
  }
  std::sort(rows.begin(), rows.end(), [](const RestRow& a, const RestRow& b) { return a.id < b.id; });
  return rows;
}

}  // namespace hearth
