// What more memory would have spared: the models that were evicted, remembered for a while after they have gone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <map>
#include <optional>
#include <vector>

#include "server/base/clock.h"
#include "server/model/signature.h"
#include "server/residency/dimensions.h"

namespace hearth {

// A model that comes back after an eviction would still have been there had the cache been larger by what was evicted
// since, and by itself. So the ghosts in order of their eviction go on where the cache ends, as an LRU stack does; for
// other policies this is an estimate, and it tends to promise too little where they choose well. Only what an eviction
// lacked is counted: memory of another kind would have changed nothing.
//
// Counts fade by half in each half-life. Costs nothing while models stay. Thread-compatible.
class GhostList {
 public:
  // `half_life` > 0; of more ghosts than `max_ghosts` the oldest are forgotten.
  explicit GhostList(Duration half_life, std::size_t max_ghosts = 16384);

  // `id` went to make room; `bytes` came back, and so much was `lacking` before, 0 where there was enough.
  void Evicted(const ModelId& id, const Bytes& bytes, const Bytes& lacking);
  // `id` is about to be loaded, and others go to make room for it: what was lacking is what was lacking before.
  void Returning(const ModelId& id);
  // `id` was loaded, in `load`, because a request came for it.
  void Loaded(const ModelId& id, Duration load, TimePoint now);
  // It went for another reason: if it comes back, memory would not have helped.
  void Forget(const ModelId& id);

  // Of the counts from now on, and of how those before fade.
  void SetHalfLife(Duration half_life) { half_life_ = half_life; }
  Duration half_life() const { return half_life_; }

  struct Point {
    std::uint64_t more_bytes = 0;
    double loads = 0;    // that so much more would have spared
    double seconds = 0;  // that those took
  };
  struct Plan {
    double loads = 0;        // for requests, all of them: also the first of each model, which no memory spares
    double seconds = 0;      // that they took
    double returns = 0;      // of them, of models that had been evicted for want of this memory
    std::vector<Point> points;  // ascending in both; the last one spares all returns
  };
  Plan PlanFor(Dimension dimension, TimePoint now) const;

 private:
  struct Ghost {
    ModelId id;
    Bytes bytes;
    Bytes lacking;
    std::optional<Bytes> distance = std::nullopt;  // when it began to return
  };
  struct Count {
    double loads = 0;
    double seconds = 0;
    void Add(double by, Duration load);
  };
  // Distances in steps of an eighth of their power of two, from 1 MiB on.
  using Histogram = std::map<std::uint64_t, Count>;

  Bytes DistanceOf(std::list<Ghost>::const_iterator ghost) const;
  double Faded(TimePoint now) const;

  Duration half_life_;
  const std::size_t max_ghosts_;
  std::list<Ghost> ghosts_;  // the latest eviction first
  std::map<ModelId, std::list<Ghost>::iterator> places_;
  std::map<Dimension, Histogram> returns_;  // by the bytes that were missing; as of at_
  Count all_;
  TimePoint at_{};
};

}  // namespace hearth
