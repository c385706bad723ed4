#include "server/residency/ledger.h"

#include <iterator>

#include "server/base/check.h"

namespace hearth {

Bytes Ledger::used() const {
  Bytes sum = held_[0];
  sum += held_[1];
  sum += held_[2];
  return sum;
}

void Ledger::DropUnloading() {
  constexpr auto kUnloading = static_cast<std::size_t>(HoldPhase::kUnloading);
  held_[kUnloading] = {};
  for (auto file = files_.begin(); file != files_.end();) {
    Boundaries& boundaries = file->second;
    for (auto& [offset, holders] : boundaries) holders[kUnloading] = 0;
    Merge(boundaries, boundaries.begin()->first, boundaries.rbegin()->first);
    file = boundaries.empty() ? files_.erase(file) : std::next(file);
  }
}

void Ledger::Change(const Footprint& footprint, HoldPhase phase, int by) {
  Bytes& held = held_[static_cast<std::size_t>(phase)];
  if (by < 0) {
    HEARTH_CHECK(footprint.host_bytes <= held.host_bytes);
    HEARTH_CHECK(footprint.window_bytes <= held.mapped_bytes);
    held.host_bytes -= footprint.host_bytes;
    held.mapped_bytes -= footprint.window_bytes;
  } else {
    held.host_bytes += footprint.host_bytes;
    held.mapped_bytes += footprint.window_bytes;
  }
  if (footprint.device_bytes > 0) {
    const std::uint64_t there = held.device_bytes[footprint.device];
    HEARTH_CHECK(by > 0 || footprint.device_bytes <= there);
    held.device_bytes.Set(footprint.device, by > 0 ? there + footprint.device_bytes : there - footprint.device_bytes);
  }
  for (const Extent& extent : footprint.extents) ChangeExtent(extent, phase, by);
}

void Ledger::ChangeExtent(const Extent& extent, HoldPhase phase, int by) {
  if (extent.length == 0) return;
  const std::uint64_t end = extent.offset + extent.length;
  HEARTH_CHECK(end > extent.offset);
  Boundaries& boundaries = files_[extent.file];
  const auto first = Split(boundaries, extent.offset);
  const auto last = Split(boundaries, end);
  for (auto it = first; it != last; ++it) {
    const std::uint64_t length = std::next(it)->first - it->first;
    Holders& holders = it->second;
    if (Bytes* from = Attribution(holders)) from->mapped_bytes -= length;
    holders[static_cast<std::size_t>(phase)] += by;
    HEARTH_CHECK(holders[static_cast<std::size_t>(phase)] >= 0);
    if (Bytes* to = Attribution(holders)) to->mapped_bytes += length;
  }
  Merge(boundaries, extent.offset, end);
  if (boundaries.empty()) files_.erase(extent.file);
}

// Makes `offset` a key without changing who holds what.
Ledger::Boundaries::iterator Ledger::Split(Boundaries& boundaries, std::uint64_t offset) {
  const auto next = boundaries.lower_bound(offset);
  if (next != boundaries.end() && next->first == offset) return next;
  const Holders before = next == boundaries.begin() ? Holders{} : std::prev(next)->second;
  return boundaries.emplace_hint(next, offset, before);
}

// Erases the keys in [first, last] at which nothing changes.
void Ledger::Merge(Boundaries& boundaries, std::uint64_t first, std::uint64_t last) {
  auto it = boundaries.lower_bound(first);
  while (it != boundaries.end() && it->first <= last) {
    const Holders before = it == boundaries.begin() ? Holders{} : std::prev(it)->second;
    it = it->second == before ? boundaries.erase(it) : std::next(it);
  }
}

Bytes* Ledger::Attribution(const Holders& holders) {
  for (const HoldPhase phase : {HoldPhase::kResident, HoldPhase::kLoading, HoldPhase::kUnloading}) {
    const auto index = static_cast<std::size_t>(phase);
    if (holders[index] > 0) return &held_[index];
  }
  return nullptr;
}

}  // namespace hearth
