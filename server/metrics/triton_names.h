// The same numbers under Triton's names and units, for dashboards and autoscalers that know those.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "server/metrics/metrics.h"

namespace prometheus {
class Counter;
class Gauge;
class Registry;
template <typename T>
class Family;
}  // namespace prometheus

namespace hearth {

// One model's nv_inference_* counters. Thread-safe, lock-free.
class TritonModelMetrics {
 public:
  void RequestSucceeded(const RequestTimes& times, std::int64_t rows, bool counts_run);
  // Answered with a kept answer: a success, and no inference.
  void RequestCached(Duration total, Duration looked);
  void ResponseNotCached(Duration looked);
  void RequestFailed(absl::StatusCode code);

 private:
  friend class TritonMetrics;
  TritonModelMetrics() = default;

  prometheus::Counter* success_ = nullptr;
  prometheus::Counter* rejected_ = nullptr;
  prometheus::Counter* canceled_ = nullptr;
  prometheus::Counter* backend_ = nullptr;
  prometheus::Counter* other_ = nullptr;
  prometheus::Counter* inferences_ = nullptr;
  prometheus::Counter* executions_ = nullptr;
  prometheus::Counter* request_us_ = nullptr;
  prometheus::Counter* queue_us_ = nullptr;
  prometheus::Counter* input_us_ = nullptr;
  prometheus::Counter* infer_us_ = nullptr;
  prometheus::Counter* output_us_ = nullptr;
  prometheus::Counter* cache_hits_ = nullptr;
  prometheus::Counter* cache_hit_us_ = nullptr;
  prometheus::Counter* cache_misses_ = nullptr;
  prometheus::Counter* cache_miss_us_ = nullptr;
};

// The nv_* families of one registry, which must outlive it. Thread-safe.
class TritonMetrics {
 public:
  explicit TritonMetrics(prometheus::Registry& registry);

  std::unique_ptr<TritonModelMetrics> Model(const std::map<std::string, std::string>& labels);
  void LoadSucceeded(std::string_view model, Duration total);

 private:
  prometheus::Family<prometheus::Counter>& success_;
  prometheus::Family<prometheus::Counter>& failure_;
  prometheus::Family<prometheus::Counter>& inferences_;
  prometheus::Family<prometheus::Counter>& executions_;
  prometheus::Family<prometheus::Counter>& request_us_;
  prometheus::Family<prometheus::Counter>& queue_us_;
  prometheus::Family<prometheus::Counter>& input_us_;
  prometheus::Family<prometheus::Counter>& infer_us_;
  prometheus::Family<prometheus::Counter>& output_us_;
  prometheus::Family<prometheus::Counter>& cache_hits_;
  prometheus::Family<prometheus::Counter>& cache_hit_us_;
  prometheus::Family<prometheus::Counter>& cache_misses_;
  prometheus::Family<prometheus::Counter>& cache_miss_us_;
  prometheus::Family<prometheus::Gauge>& load_seconds_;
};

}  // namespace hearth
