#include "server/residency/ghost_list.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "server/base/check.h"

namespace hearth {
namespace {

constexpr double kGone = 1e-6;  // so little is left of a count that it is dropped

// Rounded up to an eighth of its power of two, so that there are few different ones and none promises too much.
std::uint64_t Step(std::uint64_t bytes) {
  constexpr std::uint64_t kLeast = 1ULL << 20;
  if (bytes <= kLeast) return kLeast;
  const std::uint64_t step = std::bit_floor(bytes) / 8;
  return (bytes + step - 1) / step * step;
}

}  // namespace

GhostList::GhostList(Duration half_life, std::size_t max_ghosts) : half_life_(half_life), max_ghosts_(max_ghosts) {
  HEARTH_CHECK(half_life > Duration::zero());
}

void GhostList::Evicted(const ModelId& id, const Bytes& bytes, const Bytes& lacking) {
  Forget(id);
  ghosts_.push_front({id, bytes, lacking});
  places_[id] = ghosts_.begin();
  if (ghosts_.size() > max_ghosts_) Forget(ModelId(ghosts_.back().id));
}

void GhostList::Returning(const ModelId& id) {
  const auto found = places_.find(id);
  if (found != places_.end() && !found->second->distance) found->second->distance = DistanceOf(found->second);
}

Bytes GhostList::DistanceOf(std::list<Ghost>::const_iterator ghost) const {
  Bytes distance = ghost->bytes;
  for (auto later = ghosts_.begin(); later != ghost; ++later) distance += later->bytes;
  return distance;
}

void GhostList::Loaded(const ModelId& id, Duration load, TimePoint now) {
  const double faded = Faded(now);
  at_ = std::max(at_, now);
  all_ = {all_.loads * faded, all_.seconds * faded};
  for (auto& [dimension, histogram] : returns_) {
    for (auto& [more_bytes, count] : histogram) count = {count.loads * faded, count.seconds * faded};
    std::erase_if(histogram, [](const auto& step) { return step.second.loads < kGone; });
  }
  all_.Add(1, load);
  const auto found = places_.find(id);
  if (found == places_.end()) return;
  Returning(id);
  const Bytes& lacking = found->second->lacking;
  for (const Dimension dimension : Dimensions(lacking.device_bytes.end())) {
    if (Of(lacking, dimension) == 0) continue;
    returns_[dimension][Step(Of(*found->second->distance, dimension))].Add(1, load);
  }
  Forget(id);
}

void GhostList::Forget(const ModelId& id) {
  const auto found = places_.find(id);
  if (found == places_.end()) return;
  ghosts_.erase(found->second);
  places_.erase(found);
}

GhostList::Plan GhostList::PlanFor(Dimension dimension, TimePoint now) const {
  const double faded = Faded(now);
  Plan plan{all_.loads * faded, all_.seconds * faded, 0, {}};
  const auto returns = returns_.find(dimension);
  if (returns == returns_.end()) return plan;
  Count spared;
  for (const auto& [more_bytes, count] : returns->second) {
    spared.loads += count.loads * faded;
    spared.seconds += count.seconds * faded;
    plan.points.push_back({more_bytes, spared.loads, spared.seconds});
  }
  plan.returns = spared.loads;
  return plan;
}

void GhostList::Count::Add(double by, Duration load) {
  loads += by;
  seconds += by * ToSeconds(load);
}

double GhostList::Faded(TimePoint now) const {
  if (now <= at_ || at_ == TimePoint{}) return 1;
  return std::exp2(-ToSeconds(now - at_) / ToSeconds(half_life_));
}

}  // namespace hearth
