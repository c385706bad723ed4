#include "server/serving/cache_service.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "server/serving/infer_service.h"

namespace hearth {

std::vector<CacheService::MemoryPlan> CacheService::Plan() const {
  std::vector<MemoryPlan> plans;
  const Bytes capacity = deps_.manager.usage().capacity;
  for (const Dimension dimension : Dimensions(devices().size())) {
    plans.push_back({dimension, Of(capacity, dimension), deps_.manager.PlanFor(dimension)});
  }
  return plans;
}

absl::StatusOr<ModelId> CacheService::Find(const std::string& model, const std::string& version) const {
  absl::StatusOr<ModelId> answering = deps_.versions.Resolve(model, version);
  const std::vector<std::int64_t> versions = deps_.catalog.Versions(model);
  if (answering.ok()) return answering;
  if (version.empty() && !versions.empty()) return ModelId{model, versions.back()};
  if (const auto number = ParseVersion(version); number.ok() && *number) {
    ModelId id{model, **number};
    const bool listed = std::find(versions.begin(), versions.end(), id.version) != versions.end();
    if (listed || RowOf(id)) return id;
  }
  return answering;  // says what is wrong
}

std::optional<ModelCache::Row> CacheService::RowOf(const ModelId& id) const {
  std::optional<ModelCache::Row> newest;
  for (ModelCache::Row& row : deps_.manager.Snapshot()) {  // oldest generation first
    if (row.id == id) newest = std::move(row);
  }
  return newest;
}

absl::StatusOr<CacheService::Prefetched> CacheService::Prefetch(const std::string& model,
                                                                const std::string& version) {
  HEARTH_ASSIGN_OR_RETURN(ModelId id, deps_.versions.Resolve(model, version));
  Prefetched prefetched{std::move(id)};
  if (const std::optional<ModelCache::Row> row = RowOf(prefetched.id)) {
    prefetched.before = row->state;
    const Duration left = row->retry_at - deps_.clock.Now();
    const absl::StatusOr<ModelSpec> spec = deps_.catalog.Spec(prefetched.id);
    const bool same = !spec.ok() || spec->revision == row->revision;  // else what failed is not what is there
    if (row->state == ModelState::kFailed && left > Duration::zero() && same) {
      return WithRetryAfter(row->error, std::chrono::ceil<std::chrono::milliseconds>(left));
    }
    // A hint that is repeated must not pile up waiters.
    if (row->state == ModelState::kReady || IsComing(row->state)) return prefetched;
  }
  deps_.manager.Load(prefetched.id, {.priority = LoadPriority::kBackground}, kNoDeadline,
                     [](const absl::StatusOr<LoadReport>&) {});
  return prefetched;
}

absl::StatusOr<ModelId> CacheService::Pin(const std::string& model, const std::string& version) {
  HEARTH_ASSIGN_OR_RETURN(ModelId id, Find(model, version));
  deps_.manager.Pin(id);
  return id;
}

absl::StatusOr<ModelId> CacheService::Unpin(const std::string& model, const std::string& version) {
  HEARTH_ASSIGN_OR_RETURN(ModelId id, Find(model, version));
  if (deps_.manager.Unpin(id).configured) {
    return absl::FailedPreconditionError(
        StrCat("model '", id.name, "' version ", id.version,
               " stays pinned: the configuration pins it; take `pin: true` out of it and run `hearth reload`"));
  }
  return id;
}

void CacheService::Evict(const std::string& model, const std::string& version,
                         absl::AnyInvocable<void(absl::StatusOr<Evicted>) &&> done) {
  absl::StatusOr<ModelId> id = Find(model, version);
  if (!id.ok()) return std::move(done)(std::move(id).status());
  deps_.manager.Evict(*id, [id = *id, done = std::move(done)](absl::StatusOr<bool> evicted) mutable {
    if (!evicted.ok()) return std::move(done)(std::move(evicted).status());
    std::move(done)(Evicted{std::move(id), *evicted});
  });
}

absl::StatusOr<Explanation> CacheService::Explain(const std::string& model,
                                                  const std::string& version) const {
  HEARTH_ASSIGN_OR_RETURN(ModelId id, Find(model, version));
  Explanation explanation{.id = id,
                          .row = RowOf(id),
                          .tier = deps_.manager.TierOf(id),
                          .pins = deps_.manager.pins(id),
                          .unloaded = deps_.catalog.IsUnloaded(model),
                          .history = deps_.manager.events().Of(id),
                          .at = deps_.clock.Now()};
  explanation.sentence = Sentence(explanation, devices());
  return explanation;
}

}  // namespace hearth
