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

// `ledger` holds everything, the need included, and is left as it was.
Rated Rate(const EvictionCandidate& candidate, std::size_t index, const EvictionPolicy& policy, TimePoint now,
           Ledger& ledger, const Bytes& capacity) {
  Rated rated{index, policy.Loss(candidate, now), 0, candidate.young, false};
  if (!policy.adds_up()) return rated;
  const Bytes before = ledger.used();
  ledger.Remove(*candidate.footprint, HoldPhase::kResident);
  const Bytes after = ledger.used();
  ledger.Add(*candidate.footprint, HoldPhase::kResident);
  rated.freed = Relief(before.device_bytes, after.device_bytes, capacity.device_bytes) +
                Relief(before.host_bytes, after.host_bytes, capacity.host_bytes) +
                Relief(before.mapped_bytes, after.mapped_bytes, capacity.mapped_bytes);
  rated.enough = after <= capacity;
  return rated;
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
  if (settled.used() <= capacity) return std::vector<std::size_t>{};

  const bool by_bytes = policy.adds_up();
  std::vector<Rated> order;
  order.reserve(candidates.size());
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    order.push_back(Rate(candidates[i], i, policy, now, settled, capacity));
  }
  std::sort(order.begin(), order.end(), [&](const Rated& a, const Rated& b) {
    return std::tuple(a.young, a.order(by_bytes), a.index) < std::tuple(b.young, b.order(by_bytes), b.index);
  });

  std::vector<Rated> chosen;
  for (const Rated& rated : order) {
    if (settled.used() <= capacity) break;
    settled.Remove(*candidates[rated.index].footprint, HoldPhase::kResident);
    chosen.push_back(rated);
  }
  if (!(settled.used() <= capacity)) return std::nullopt;

  if (by_bytes) {
    std::stable_sort(chosen.begin(), chosen.end(),
                     [](const Rated& a, const Rated& b) { return std::tie(a.young, a.loss) < std::tie(b.young, b.loss); });
  }
  std::vector<std::size_t> needed;
  double loss = 0;
  bool young = false;
  for (auto it = chosen.rbegin(); it != chosen.rend(); ++it) {
    const Footprint& footprint = *candidates[it->index].footprint;
    settled.Add(footprint, HoldPhase::kResident);
    if (settled.used() <= capacity) continue;  // spared
    settled.Remove(footprint, HoldPhase::kResident);
    needed.push_back(it->index);
    loss += it->loss;
    young |= it->young;
  }
  std::reverse(needed.begin(), needed.end());
  if (!by_bytes || needed.size() < 2) return needed;

  for (const Rated& rated : order) {
    if (!rated.enough || std::tie(rated.young, rated.loss) >= std::tie(young, loss)) continue;
    needed = {rated.index};
    std::tie(young, loss) = std::tie(rated.young, rated.loss);
  }
  return needed;
}

std::vector<Bytes> BytesThatComeBack(const std::vector<EvictionCandidate>& candidates,
                                     const std::vector<std::size_t>& chosen, Ledger settled) {
  std::vector<Bytes> freed;
  for (const std::size_t i : chosen) {
    const Bytes before = settled.used();
    settled.Remove(*candidates[i].footprint, HoldPhase::kResident);
    const Bytes after = settled.used();
    freed.push_back({before.device_bytes - after.device_bytes, before.host_bytes - after.host_bytes,
                     before.mapped_bytes - after.mapped_bytes});
  }
  return freed;
}

Bytes Lacking(const Footprint& need, Ledger settled, const Bytes& capacity) {
  settled.Add(need, HoldPhase::kLoading);
  const Bytes used = settled.used();
  const auto beyond = [](std::uint64_t sum, std::uint64_t limit) { return sum > limit ? sum - limit : 0; };
  return {beyond(used.device_bytes, capacity.device_bytes), beyond(used.host_bytes, capacity.host_bytes),
          beyond(used.mapped_bytes, capacity.mapped_bytes)};
}

std::vector<std::size_t> ChooseExcess(const std::vector<EvictionCandidate>& candidates, const EvictionPolicy& policy,
                                      TimePoint now, Ledger settled, const Bytes& capacity) {
  const Bytes least = HeldWithout(candidates, settled);
  const Bytes attainable{std::max(capacity.device_bytes, least.device_bytes),
                         std::max(capacity.host_bytes, least.host_bytes),
                         std::max(capacity.mapped_bytes, least.mapped_bytes)};
  return *ChooseVictims(candidates, policy, now, std::move(settled), attainable, Footprint{});
}

Bytes HeldWithout(const std::vector<EvictionCandidate>& candidates, Ledger settled) {
  for (const EvictionCandidate& candidate : candidates) settled.Remove(*candidate.footprint, HoldPhase::kResident);
  return settled.used();
}

}  // namespace hearth
