// Who waits for a model to load, and until when.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/any_invocable.h"
#include "server/base/clock.h"
#include "server/base/status.h"
#include "server/metrics/metrics.h"
#include "server/residency/model_handle.h"

namespace hearth {

struct CacheEntry;

struct Waiter {
  // Called once, outside every lock.
  absl::AnyInvocable<void(absl::StatusOr<ModelHandle>, CacheResult) &&> done;
  Deadline deadline = kNoDeadline;
  bool request = true;  // a request, served before somebody who only wants the model loaded
  LoadPriority priority = LoadPriority::kNormal;
  CacheResult result = CacheResult::kLoad;  // set when it is queued: started the load, or joined it
};

// By entry, by ticket and by deadline; O(log n) each. Thread-compatible: guarded by ModelCache.
class Waiters {
 public:
  using Ticket = std::uint64_t;  // never 0, never used twice

  Ticket Add(const CacheEntry* entry, Waiter waiter);

  struct Taken {
    const CacheEntry* entry;
    Waiter waiter;
  };
  std::optional<Taken> Take(Ticket ticket);
  std::vector<Waiter> TakeAll(const CacheEntry* entry);    // in the order they came
  std::vector<Taken> TakeNormal(const CacheEntry* entry);  // likewise, those of LoadPriority::kNormal
  std::vector<Taken> TakeExpired(TimePoint now);           // deadline <= now

  std::size_t count() const { return by_ticket_.size(); }
  std::size_t count(const CacheEntry* entry) const;
  bool HasRequest(const CacheEntry* entry) const;
  bool HasNormal(const CacheEntry* entry) const;  // of LoadPriority::kNormal
  std::optional<TimePoint> next_deadline() const;

 private:
  template <typename Is>
  bool Any(const CacheEntry* entry, const Is& is) const;

  struct Place {
    const CacheEntry* entry;
    Waiter waiter;
  };
  std::map<Ticket, Place> by_ticket_;
  absl::flat_hash_map<const CacheEntry*, std::set<Ticket>> by_entry_;
  std::set<std::pair<Deadline, Ticket>> by_deadline_;  // without those that wait for ever
  Ticket next_ = 1;
};

}  // namespace hearth
