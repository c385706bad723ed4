// One model version's requests since it was first asked for, in the sums that ModelStatistics has.
#pragma once

#include <cstdint>
#include <map>

#include "server/base/clock.h"
#include "server/base/mutex.h"

namespace hearth {

struct RequestTimes;

// A value. Every request counts once in each sum that it had a part in; times are each request's own, and those of a run
// that answered several count for each of them. By batch size, a run counts once.
struct ModelStatistics {
  struct Sum {
    std::uint64_t count = 0;
    Duration time{};

    void Add(Duration duration) {
      ++count;
      time += duration;
    }
  };
  struct Batches {
    Sum input, infer, output;
  };

  Sum success, fail;  // from the request's arrival to its answer
  Sum queue, input, infer, output;  // of successes; the last three without those that were cached
  Sum cache_hit, cache_miss;  // looking for a kept answer
  std::uint64_t inferences = 0;  // the batch sizes of those that were run, summed up
  std::uint64_t executions = 0;  // runs of the program
  WallTime last_inference{};     // when the last one was answered; the epoch: there was none
  std::map<std::int64_t, Batches> by_batch_size;
};

// Thread-safe; a lock of its own is held for a few additions.
class StatisticsCounter {
 public:
  void Succeeded(const RequestTimes& times, std::int64_t rows, std::int64_t run_rows, WallTime when) ABSL_LOCKS_EXCLUDED(mu_);
  void Cached(Duration total, Duration looked, WallTime when) ABSL_LOCKS_EXCLUDED(mu_);
  void NotCached(Duration looked) ABSL_LOCKS_EXCLUDED(mu_);
  void Failed(Duration total) ABSL_LOCKS_EXCLUDED(mu_);
  ModelStatistics Get() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  // Clients choose the sizes of batches: more different ones than this are only in the other sums.
  static constexpr std::size_t kMaxBatchSizes = 256;

  mutable Mutex mu_;
  ModelStatistics sums_ ABSL_GUARDED_BY(mu_);
};

}  // namespace hearth
