// Which bytes of something are in use, and by how many.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

namespace hearth {

// [begin, end).
struct ByteRange {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;

  std::uint64_t size() const { return end - begin; }
  friend bool operator==(const ByteRange&, const ByteRange&) = default;
};

// Thread-compatible.
class RangeUses {
 public:
  // One more uses `range`. What nobody used before is added to `first`.
  void Add(const ByteRange& range, std::vector<ByteRange>& first) { Change(range, 1, 0, first); }

  // One less does. What nobody uses any more is added to `last`.
  // REQUIRES: was added.
  void Remove(const ByteRange& range, std::vector<ByteRange>& last) { Change(range, -1, 1, last); }

  bool empty() const { return boundaries_.empty(); }

 private:
  // Users from this offset up to the next key; none before the first and after the last.
  using Boundaries = std::map<std::uint64_t, std::int64_t>;

  // Adds to `changed` what had `from` users.
  void Change(const ByteRange& range, int by, std::int64_t from, std::vector<ByteRange>& changed);
  Boundaries::iterator Split(std::uint64_t offset);

  Boundaries boundaries_;
};

}  // namespace hearth
