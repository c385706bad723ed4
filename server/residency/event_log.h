// The journal: what happened in the cache lately, and to each model last.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string_view>
#include <vector>

#include "server/base/clock.h"
#include "server/base/mutex.h"
#include "server/residency/cache_event.h"

namespace hearth {

// Bounded in every direction: so many events, so many models, so long a text. Readers hold a number, not a queue, so
// one that is slow costs nothing: it finds that what it had not read has gone, and how much that was.
//
// Every other request that is refused for a failure says the same; only the first one becomes an event, the others
// are counted.
//
// Thread-safe. Its lock is a leaf: it calls nobody under it.
class EventLog {
 public:
  struct Options {
    std::size_t events = 1024;
    std::size_t models = 4096;         // whose last events are kept; the one that was quiet longest is forgotten
    std::size_t message_bytes = 1000;  // of an error; what is longer is cut
  };
  using EventPtr = std::shared_ptr<const CacheEvent>;

  // What is remembered of a model when the journal has moved on. Null: it never happened.
  struct History {
    EventPtr last, last_eviction, last_failure;  // the last but for falls and losses: how it left says more
    EventPtr last_loss;
    std::uint64_t refused = 0;  // requests, since its latest load ended
    std::uint64_t evictions = 0;
  };

  class Listener {
   public:
    virtual ~Listener() = default;
    // On the thread that added something, outside the lock; several may come at once. Must be quick.
    virtual void EventAdded() = 0;
  };

  explicit EventLog(const Clock& clock) : EventLog(clock, Options()) {}
  EventLog(const Clock& clock, Options options) : clock_(clock), options_(options) {}
  EventLog(const EventLog&) = delete;
  EventLog& operator=(const EventLog&) = delete;

  // Numbers and stamps it.
  void Add(CacheEvent event) ABSL_LOCKS_EXCLUDED(mu_);

  // The oldest event that is left and whose number is `from` or more, of `model` if that is not empty; and how many
  // from `from` on, of whichever model, had gone unread. No event: nothing more for now. Go on at `next`.
  struct Found {
    EventPtr event;
    std::uint64_t dropped = 0;
    std::uint64_t next = 0;
  };
  Found Read(std::uint64_t from, std::string_view model) const ABSL_LOCKS_EXCLUDED(mu_);
  // Numbers of the oldest event that is left and of the next one to come.
  std::uint64_t begin() const ABSL_LOCKS_EXCLUDED(mu_);
  std::uint64_t end() const ABSL_LOCKS_EXCLUDED(mu_);

  History Of(const ModelId& id) const ABSL_LOCKS_EXCLUDED(mu_);

  // Told of every event for as long as it lives.
  void Listen(std::weak_ptr<Listener> listener) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  // False: it is one more of many, and counted.
  bool Remember(const EventPtr& event) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  std::uint64_t first() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return next_ - events_.size(); }

  const Clock& clock_;
  const Options options_;
  mutable Mutex mu_;
  std::uint64_t next_ ABSL_GUARDED_BY(mu_) = 1;
  std::deque<EventPtr> events_ ABSL_GUARDED_BY(mu_);  // numbered up to next_ - 1
  std::map<ModelId, History> models_ ABSL_GUARDED_BY(mu_);
  std::vector<std::weak_ptr<Listener>> listeners_ ABSL_GUARDED_BY(mu_);
};

}  // namespace hearth
