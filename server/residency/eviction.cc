#include "server/residency/eviction.h"

#include <algorithm>
#include <limits>
#include <tuple>
#include <utility>

namespace hearth {
namespace {

// A use counts so much after two half-lives.
constexpr double kColdDemand = 0.25;

constexpr double kForNothing = std::numeric_limits<double>::infinity();

struct Rated {
  std::size_t index;
  double loss;
  double freed;  // of what is short, as a share of the capacity; more than is short does not count
  bool model;   // and no rest
  bool young;
  bool enough;  // alone

  double order(bool by_bytes) const {
    if (!by_bytes) return loss;
    return freed > 0 ? loss / freed : kForNothing;
  }
};

// The share of `capacity` by which `used` comes closer to it when only `left` is used.
double Relief(std::uint64_t used, std::uint64_t left, std::uint64_t capacity) {
  if (used <= capacity || left >= used) return 0;
  return static_cast<double>(used - std::max(left, capacity)) / std::max(1.0, static_cast<double>(capacity));
}

// `ledger` holds everything, the need included, which comes to `before`, and is left as it was.
Rated Rate(const EvictionCandidate& candidate, std::size_t index, const EvictionPolicy& policy, TimePoint now,
           Ledger& ledger, const Bytes& before, const Bytes& capacity) {
  Rated rated{index, policy.Loss(candidate, now), 0, candidate.rest_of == nullptr, candidate.young, false};
  if (!policy.adds_up()) return rated;
  ledger.Remove(*candidate.footprint, HoldPhase::kResident);
  const Bytes after = ledger.used();
  ledger.Add(*candidate.footprint, HoldPhase::kResident);
  rated.freed = Relief(before.host_bytes, after.host_bytes, capacity.host_bytes) +
                Relief(before.mapped_bytes, after.mapped_bytes, capacity.mapped_bytes);
  if (candidate.footprint->device_bytes > 0) {
    const DeviceNumber d = candidate.footprint->device;
    rated.freed += Relief(before.device_bytes[d], after.device_bytes[d], capacity.device_bytes[d]);
  }
  rated.enough = after <= capacity;
  return rated;
}

// ChooseVictims for a `settled` that holds the need already.
std::optional<std::vector<std::size_t>> Choose(const std::vector<EvictionCandidate>& candidates,
                                               const EvictionPolicy& policy, TimePoint now, Ledger settled,
                                               const Bytes& capacity) {
  const Bytes used = settled.used();
  if (used <= capacity) return std::vector<std::size_t>{};

  const bool by_bytes = policy.adds_up();
  std::vector<Rated> order;
  order.reserve(candidates.size());
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    order.push_back(Rate(candidates[i], i, policy, now, settled, used, capacity));
  }
  std::sort(order.begin(), order.end(), [&](const Rated& a, const Rated& b) {
    return std::tuple(a.model, a.young, a.order(by_bytes), a.index) <
           std::tuple(b.model, b.young, b.order(by_bytes), b.index);
  });

  std::vector<Rated> chosen;
  for (const Rated& rated : order) {
    if (settled.used() <= capacity) break;
    settled.Remove(*candidates[rated.index].footprint, HoldPhase::kResident);
    chosen.push_back(rated);
  }
  if (!(settled.used() <= capacity)) return std::nullopt;

  if (by_bytes) {
    std::stable_sort(chosen.begin(), chosen.end(), [](const Rated& a, const Rated& b) {
      return std::tie(a.model, a.young, a.loss) < std::tie(b.model, b.young, b.loss);
    });
  }
  std::vector<std::size_t> needed;
  double loss = 0;
  bool model = false;
  bool young = false;
  for (auto it = chosen.rbegin(); it != chosen.rend(); ++it) {
    const Footprint& footprint = *candidates[it->index].footprint;
    settled.Add(footprint, HoldPhase::kResident);
    if (settled.used() <= capacity) continue;  // spared
    settled.Remove(footprint, HoldPhase::kResident);
    needed.push_back(it->index);
    loss += it->loss;
    model |= it->model;
    young |= it->young;
  }
  std::reverse(needed.begin(), needed.end());
  if (!by_bytes || needed.size() < 2) return needed;

  for (const Rated& rated : order) {
    if (!rated.enough || std::tie(rated.model, rated.young, rated.loss) >= std::tie(model, young, loss)) continue;
    needed = {rated.index};
    std::tie(model, young, loss) = std::tie(rated.model, rated.young, rated.loss);
  }
  return needed;
}

}  // namespace

bool MayBeDisplaced(const EvictionCandidate& candidate, double demand, TimePoint now, Duration half_life) {
  if (candidate.young || now - candidate.last_used < half_life) return false;
  return candidate.demand < std::max(kColdDemand, demand / 2);
}

std::optional<std::vector<std::size_t>> ChooseVictims(
    const std::vector<EvictionCandidate>& candidates, const EvictionPolicy& policy, TimePoint now,
    Ledger settled, const Bytes& capacity, const Footprint& need) {
  settled.Add(need, HoldPhase::kLoading);
  const Bytes concerned = CapacityFor(need, settled.used(), capacity);
  return Choose(candidates, policy, now, std::move(settled), concerned);
}

std::vector<Bytes> BytesThatComeBack(const std::vector<EvictionCandidate>& candidates,
                                     const std::vector<std::size_t>& chosen, Ledger settled) {
  std::vector<Bytes> freed;
  for (const std::size_t i : chosen) {
    const Bytes before = settled.used();
    settled.Remove(*candidates[i].footprint, HoldPhase::kResident);
    freed.push_back(before - settled.used());
  }
  return freed;
}

Bytes Lacking(const Footprint& need, Ledger settled, const Bytes& capacity) {
  settled.Add(need, HoldPhase::kLoading);
  return Beyond(settled.used(), CapacityFor(need, settled.used(), capacity));
}

std::vector<std::size_t> ChooseExcess(const std::vector<EvictionCandidate>& candidates, const EvictionPolicy& policy,
                                      TimePoint now, Ledger settled, const Bytes& capacity) {
  const Bytes least = HeldWithout(candidates, settled);
  return *Choose(candidates, policy, now, std::move(settled), AtLeast(capacity, least));
}

Bytes HeldWithout(const std::vector<EvictionCandidate>& candidates, Ledger settled) {
  for (const EvictionCandidate& candidate : candidates) settled.Remove(*candidate.footprint, HoldPhase::kResident);
  return settled.used();
}

}  // namespace hearth
