#include "server/serving/served_models.h"

#include <utility>

#include "absl/hash/hash.h"

namespace hearth {

ServedModel* ServedModels::FindIn(const Bucket& bucket, const ModelId& id) {
  ServedModel* model = bucket.load(std::memory_order_acquire);
  while (model != nullptr && model->id != id) model = model->next_;
  return model;
}

ServedModel& ServedModels::Get(const ModelId& id) {
  Bucket& bucket = buckets_[absl::Hash<ModelId>{}(id) % kBuckets];
  if (ServedModel* known = FindIn(bucket, id)) return *known;
  MutexLock lock(mu_);
  if (ServedModel* known = FindIn(bucket, id)) return *known;
  owned_.push_back(
      std::make_unique<ServedModel>(id, metrics_.Model(id.name, id.version)));
  ServedModel& model = *owned_.back();
  model.next_ = bucket.load(std::memory_order_relaxed);
  bucket.store(&model, std::memory_order_release);
  return model;
}

}  // namespace hearth
