// What the cache keeps of a model that made room on its device.
#pragma once

#include <cstdint>
#include <memory>
#include <stop_token>
#include <vector>

#include "server/base/clock.h"
#include "server/model/rest.h"
#include "server/model/signature.h"
#include "server/model/tier.h"
#include "server/residency/ledger.h"
#include "server/residency/memory_budget.h"

namespace hearth {

class Completion;

// Of each model one at most, and none of one that is ready. What holds:
//
//             files   reservation   pages
//   cold      -       - (1)         -
//   mapped    yes     - (1)         -
//   warming   yes     resident      with the thread that brings them in
//   host      yes     resident      yes
//
// (1) or unloading, while pages go: with whoever destroys them, or with a thread that brought them in and has been told
// to stop. Then none are brought in anew. Where such a thread is stuck (ModelCache::Strand): loading, whatever stands here.
//
// Thread-compatible; guarded by ModelCache::mu_.
struct KeptRest {
  std::shared_ptr<const Rest> files;
  std::uint64_t number = 0;    // of the whole cache, ascending: the oldest goes first
  std::uint64_t revision = 0;  // of the files: ModelSpec::revision
  TimePoint last_used{};       // of the model
  MemoryBudget::Reservation reservation;
  std::unique_ptr<const Rest::Pages> pages;
  bool warming = false;   // a thread brings pages in
  std::stop_source stop;  // how it is told that they are not wanted
  std::vector<std::shared_ptr<Completion>> on_gone;  // told when the bytes of pages that go are back

  Tier tier() const { return files == nullptr ? Tier::kCold : pages == nullptr ? Tier::kMapped : Tier::kHost; }
  // Its bytes can be had: they are charged, and not on their way back yet.
  bool gives_way() const { return reservation && reservation.phase() == HoldPhase::kResident; }
  // ... and does not come back (ModelCache::Strand).
  bool stuck() const { return reservation && reservation.phase() == HoldPhase::kLoading; }
  // A thread brings pages in or lets them go.
  bool under_way() const { return reservation && (warming || !gives_way()); }
};

// A rest as people see it.
struct RestRow {
  ModelId id;
  Tier tier = Tier::kMapped;
  Bytes bytes{};  // charged
  TimePoint last_used{};
};

}  // namespace hearth
