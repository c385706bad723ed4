// What serving keeps for each model that was ever asked for.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "server/base/mutex.h"
#include "server/metrics/metrics.h"
#include "server/model/model.h"
#include "server/model/signature.h"
#include "server/serving/run_scheduler.h"

namespace hearth {

struct ServedModel {
  ServedModel(ModelId i, ModelMetrics& m) : id(std::move(i)), metrics(m), lane(id) {}

  // Its options may be new. True for every request until one has taken them over and said so, also for those that
  // come meanwhile: none runs by the options before.
  bool IsNewLoad(const Model& model) const { return seen_.load(std::memory_order_acquire) != model.load(); }
  void SetSeen(const Model& model) { seen_.store(model.load(), std::memory_order_release); }

  const ModelId id;
  ModelMetrics& metrics;
  RunScheduler::Lane lane;
  // Of the load that was seen last:
  std::atomic<bool> caches_responses{false};
  std::atomic<bool> remembers{false};  // Model::stateful()
  std::atomic<bool> wants_sequence{false};  // SequenceOptions::required

 private:
  friend class ServedModels;
  std::atomic<std::uint64_t> seen_{0};  // which load of it was seen last
  ServedModel* next_ = nullptr;         // in its bucket; constant once published
};

// A hash table that is read without a lock and only grows: the ids come from the catalog, so a
// client cannot make it grow. Thread-safe; references stay good as long as the table.
class ServedModels {
 public:
  explicit ServedModels(Metrics& metrics) : metrics_(metrics) {}

  ServedModel& Get(const ModelId& id) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  using Bucket = std::atomic<ServedModel*>;
  static ServedModel* FindIn(const Bucket& bucket, const ModelId& id);

  static constexpr std::size_t kBuckets = 1024;
  Metrics& metrics_;
  std::array<Bucket, kBuckets> buckets_{};
  Mutex mu_;
  std::vector<std::unique_ptr<ServedModel>> owned_ ABSL_GUARDED_BY(mu_);
};

}  // namespace hearth
