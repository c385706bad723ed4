#include "server/storage/range_uses.h"

#include <iterator>

#include "server/base/check.h"

namespace hearth {

void RangeUses::Change(const ByteRange& range, int by, std::int64_t from, std::vector<ByteRange>& changed) {
  if (range.begin >= range.end) return;
  const auto first = Split(range.begin), last = Split(range.end);
  for (auto it = first; it != last; ++it) {
    const ByteRange part{it->first, std::next(it)->first};
    if (it->second == from) {
      if (!changed.empty() && changed.back().end == part.begin) {
        changed.back().end = part.end;
      } else {
        changed.push_back(part);
      }
    }
    it->second += by;
    HEARTH_CHECK(it->second >= 0);
  }
  // Keys at which nothing changes.
  for (auto it = boundaries_.lower_bound(range.begin); it != boundaries_.end() && it->first <= range.end;) {
    const std::int64_t before = it == boundaries_.begin() ? 0 : std::prev(it)->second;
    it = it->second == before ? boundaries_.erase(it) : std::next(it);
  }
}

// Makes `offset` a key without changing who uses what.
RangeUses::Boundaries::iterator RangeUses::Split(std::uint64_t offset) {
  const auto next = boundaries_.lower_bound(offset);
  if (next != boundaries_.end() && next->first == offset) return next;
  return boundaries_.emplace_hint(next, offset, next == boundaries_.begin() ? 0 : std::prev(next)->second);
}

}  // namespace hearth
