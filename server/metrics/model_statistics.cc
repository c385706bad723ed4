#include "server/metrics/model_statistics.h"

#include "server/metrics/metrics.h"

namespace hearth {

void StatisticsCounter::Succeeded(const RequestTimes& times, std::int64_t rows, std::int64_t run_rows, WallTime when) {
  MutexLock lock(mu_);
  sums_.success.Add(times.total);
  sums_.queue.Add(times.queue);
  sums_.input.Add(times.input);
  sums_.infer.Add(times.infer);
  sums_.output.Add(times.output);
  sums_.inferences += static_cast<std::uint64_t>(rows);
  sums_.last_inference = std::max(sums_.last_inference, when);
  if (run_rows == 0) return;
  ++sums_.executions;
  auto at = sums_.by_batch_size.find(run_rows);
  if (at == sums_.by_batch_size.end()) {
    if (sums_.by_batch_size.size() >= kMaxBatchSizes) return;
    at = sums_.by_batch_size.try_emplace(run_rows).first;
  }
  at->second.input.Add(times.input);
  at->second.infer.Add(times.infer);
  at->second.output.Add(times.output);
}

void StatisticsCounter::Cached(Duration total, Duration looked, WallTime when) {
  MutexLock lock(mu_);
  sums_.success.Add(total);
  sums_.queue.Add(Duration::zero());
  sums_.cache_hit.Add(looked);
  sums_.last_inference = std::max(sums_.last_inference, when);
}

void StatisticsCounter::NotCached(Duration looked) {
  MutexLock lock(mu_);
  sums_.cache_miss.Add(looked);
}

void StatisticsCounter::Failed(Duration total) {
  MutexLock lock(mu_);
  sums_.fail.Add(total);
}

ModelStatistics StatisticsCounter::Get() const {
  MutexLock lock(mu_);
  return sums_;
}

}  // namespace hearth
