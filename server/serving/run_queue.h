// The requests of one model that wait to be run, and which of them go next.
#pragma once

#include <cstddef>
#include <deque>
#include <utility>
#include <vector>

#include "server/base/clock.h"
#include "server/serving/run_job.h"
#include "server/serving/run_policy.h"

namespace hearth {

// By priority, then first come first served; those whose time to wait is over and who are not refused for it come last.
// Says nothing about threads. Thread-compatible: RunScheduler's lock guards it.
class RunQueue {
 public:
  using Refusal = std::pair<RunJob::Ptr, absl::Status>;

  bool empty() const { return size_ == 0; }
  std::size_t size() const { return size_; }
  const RunPolicy& policy() const { return policy_; }
  // For those that wait as well; they keep their places.
  void SetPolicy(const RunPolicy& policy);

  // Nobody waits for others any more.
  void Hurry() { policy_.batching.max_delay = {}; }

  // False: as many wait as may; `job` is untouched.
  [[nodiscard]] bool Push(RunJob::Ptr& job, TimePoint now);

  // Whoever is next. REQUIRES: !empty().
  const RunJob& front() const;

  // When Take() may be called: in the past if at once, else when the first one has waited long enough for others.
  // REQUIRES: !empty().
  TimePoint due(TimePoint now) const;

  // At most so many runs are to be had of those that are here. 0 if empty.
  std::size_t runs() const;

  // The first one and who runs with it; never empty. REQUIRES: due() has passed.
  std::vector<RunJob::Ptr> Take(TimePoint now);

  // Takes out those that are not to run any more, and puts those last whose time to wait is over.
  std::vector<Refusal> Expire(TimePoint now);

  // Takes out everybody.
  std::vector<RunJob::Ptr> Drain();

 private:
  using Level = std::deque<RunJob::Ptr>;
  struct Place {
    std::size_t level;
    std::size_t index;
  };
  // Who would run with the first one, itself included, in the order of their turns.
  std::vector<Place> Gather(TimePoint now) const;
  bool Waited(const RunJob& job, TimePoint now) const;
  std::size_t LevelOf(const RunJob& job) const;
  const Level* FirstLevel() const;

  RunPolicy policy_;
  std::vector<Level> levels_{2};  // one for each priority, and the last for those whose time is over
  std::size_t size_ = 0;
  std::int64_t rows_ = 0;
};

}  // namespace hearth
