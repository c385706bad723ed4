#include "server/serving/served_models.h"

#include <utility>

#include "absl/hash/hash.h"

namespace hearth {

// Two loads differ in the address of what they made, or, where the second got the freed memory of
// the first, in how many nanoseconds they took.
std::uint64_t ServedModel::StampOf(const Model& model) {
  const auto address = reinterpret_cast<std::uintptr_t>(&model);
  const auto took = static_cast<std::uint64_t>(model.load_report().total().count());
  return address ^ (took * 0x9e3779b97f4a7c15ULL);
}

bool ServedModel::IsNewLoad(const Model& model) const {
  return seen_.load(std::memory_order_acquire) != StampOf(model);
}

void ServedModel::SetSeen(const Model& model) { seen_.store(StampOf(model), std::memory_order_release); }

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
