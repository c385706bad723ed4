// Arithmetic of the memory budget: who holds what, and what it comes to.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>

#include "server/model/footprint.h"
#include "server/residency/dimensions.h"

namespace hearth {

// Why bytes are held. `loading`: the peak a load may need. `unloading`: leaving, still there.
enum class HoldPhase : std::uint8_t { kLoading, kResident, kUnloading };

// A sum of footprints in which file-backed bytes count once, however many hold them: the mapped
// dimension is the length of the union of all extents, and the windows. Bytes held in several phases are
// attributed to one: resident before loading before unloading.
//
// A value: what would happen if somebody came or went is tried out on a copy. Thread-compatible.
class Ledger {
 public:
  void Add(const Footprint& footprint, HoldPhase phase) { Change(footprint, phase, 1); }
  // REQUIRES: was added in this phase.
  void Remove(const Footprint& footprint, HoldPhase phase) { Change(footprint, phase, -1); }
  // As if everything that is unloading had gone.
  void DropUnloading();

  const Bytes& held(HoldPhase phase) const { return held_[static_cast<std::size_t>(phase)]; }
  Bytes used() const;

 private:
  static constexpr std::size_t kPhases = 3;
  using Holders = std::array<std::int64_t, kPhases>;
  // Holders from this offset up to the next key; nobody before the first key nor after the last
  // one. Neighbours differ, so the map is as small as it can be.
  using Boundaries = std::map<std::uint64_t, Holders>;

  void Change(const Footprint& footprint, HoldPhase phase, int by);
  void ChangeExtent(const Extent& extent, HoldPhase phase, int by);
  static Boundaries::iterator Split(Boundaries& boundaries, std::uint64_t offset);
  static void Merge(Boundaries& boundaries, std::uint64_t first, std::uint64_t last);
  Bytes* Attribution(const Holders& holders);  // null: nobody holds these bytes

  std::map<FileId, Boundaries> files_;
  std::array<Bytes, kPhases> held_;  // by HoldPhase
};

}  // namespace hearth
