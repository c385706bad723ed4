#include "server/residency/ledger.h"

#include <algorithm>
#include <iterator>
#include <string_view>

#include "server/base/bytes.h"
#include "server/base/check.h"
#include "server/base/strings.h"

namespace hearth {

Bytes operator+(const Bytes& a, const Bytes& b) {
  return {a.device_bytes + b.device_bytes, a.host_bytes + b.host_bytes,
          a.mapped_bytes + b.mapped_bytes};
}

Bytes SumOf(const Footprint& footprint) {
  return {footprint.device_bytes, footprint.host_bytes, footprint.mapped_bytes()};
}

bool operator<=(const Bytes& a, const Bytes& b) {
  return a.device_bytes <= b.device_bytes && a.host_bytes <= b.host_bytes &&
         a.mapped_bytes <= b.mapped_bytes;
}

std::optional<std::string> Shortage(const Bytes& need, const Bytes& held, const Bytes& capacity) {
  struct Dimension {
    std::string_view name;
    std::uint64_t Bytes::*bytes;
  };
  constexpr Dimension kDimensions[] = {{"device", &Bytes::device_bytes},
                                       {"host", &Bytes::host_bytes},
                                       {"mapped", &Bytes::mapped_bytes}};
  for (const auto& [name, bytes] : kDimensions) {
    const std::uint64_t left = capacity.*bytes - std::min(held.*bytes, capacity.*bytes);
    if (need.*bytes <= left) continue;
    return StrCat(FormatBytes(need.*bytes), " of ", name, " memory, and ", FormatBytes(left),
                  " of the ", FormatBytes(capacity.*bytes), " of cache.budget.", name, " are left");
  }
  return std::nullopt;
}

Bytes Ledger::used() const { return held_[0] + held_[1] + held_[2]; }

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
    HEARTH_CHECK(footprint.device_bytes <= held.device_bytes);
    HEARTH_CHECK(footprint.host_bytes <= held.host_bytes);
    HEARTH_CHECK(footprint.window_bytes <= held.mapped_bytes);
    held.device_bytes -= footprint.device_bytes;
    held.host_bytes -= footprint.host_bytes;
    held.mapped_bytes -= footprint.window_bytes;
  } else {
    held.device_bytes += footprint.device_bytes;
    held.host_bytes += footprint.host_bytes;
    held.mapped_bytes += footprint.window_bytes;
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
