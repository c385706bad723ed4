// When each model is next to be looked at because nobody asks for it.
#pragma once

#include <cstddef>
#include <optional>
#include <set>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "server/base/clock.h"

namespace hearth {

struct CacheEntry;

// A hit does not come here, so a time is a lower bound: whoever takes an entry out looks at its last use, and puts it
// back if that was later. Thus an entry is looked at once in its span of idleness at most, however often it is used.
//
// Thread-compatible.
class IdleQueue {
 public:
  // Enters it, or moves it.
  void Set(CacheEntry& entry, TimePoint due) {
    Remove(entry);
    due_.emplace(&entry, due);
    queue_.emplace(due, &entry);
  }
  // Nothing, if it is not there.
  void Remove(CacheEntry& entry) {
    const auto known = due_.find(&entry);
    if (known == due_.end()) return;
    queue_.erase({known->second, &entry});
    due_.erase(known);
  }
  // Takes out the one whose time came first. Null: nobody's time has come.
  CacheEntry* TakeDue(TimePoint now) {
    if (queue_.empty() || queue_.begin()->first > now) return nullptr;
    CacheEntry* entry = queue_.begin()->second;
    Remove(*entry);
    return entry;
  }

  std::optional<TimePoint> next() const {
    if (queue_.empty()) return std::nullopt;
    return queue_.begin()->first;
  }
  bool contains(const CacheEntry& entry) const { return due_.contains(&entry); }
  std::size_t size() const { return queue_.size(); }

 private:
  std::set<std::pair<TimePoint, CacheEntry*>> queue_;
  absl::flat_hash_map<const CacheEntry*, TimePoint> due_;
};

}  // namespace hearth
