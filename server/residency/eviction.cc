#include "server/residency/eviction.h"

#include <algorithm>
#include <utility>

namespace hearth {

std::optional<std::vector<std::size_t>> ChooseVictims(
    const std::vector<EvictionCandidate>& candidates, const EvictionPolicy& policy, TimePoint now,
    Ledger settled, const Bytes& capacity, const Footprint& need) {
  std::vector<std::pair<double, std::size_t>> order;
  order.reserve(candidates.size());
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    order.emplace_back(policy.Worth(candidates[i], now), i);
  }
  std::sort(order.begin(), order.end());

  settled.Add(need, HoldPhase::kLoading);
  std::vector<std::size_t> chosen;
  for (const auto& [worth, i] : order) {
    if (settled.used() <= capacity) break;
    settled.Remove(*candidates[i].footprint, HoldPhase::kResident);
    chosen.push_back(i);
  }
  if (!(settled.used() <= capacity)) return std::nullopt;

  std::vector<std::size_t> needed;
  for (auto it = chosen.rbegin(); it != chosen.rend(); ++it) {
    settled.Add(*candidates[*it].footprint, HoldPhase::kResident);
    if (settled.used() <= capacity) continue;  // spared
    settled.Remove(*candidates[*it].footprint, HoldPhase::kResident);
    needed.push_back(*it);
  }
  std::reverse(needed.begin(), needed.end());
  return needed;
}

}  // namespace hearth
