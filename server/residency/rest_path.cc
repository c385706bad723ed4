// What becomes of what is left of models: the way down.
#include <utility>

#include "server/base/bytes.h"
#include "server/base/log.h"
#include "server/residency/model_manager.h"

namespace hearth {

// When there is a thread for it, for nobody waits: as far as the host's memory is free, or holds rests that are worth
// less.
void ModelManager::PostWarm(const ModelId& id) {
  tasks_.Post(ExecutorOf(LoadPriority::kBackground), [this, id](TaskGroup::How how) {
    if (how == TaskGroup::How::kRun) Warm(id);
  });
}

void ModelManager::Warm(const ModelId& id) {
  LoadWatch::Scope watched = watch_.Begin({id, 0, &ExecutorOf(LoadPriority::kBackground)}, settings().load_timeout);
  std::optional<ModelCache::Warming> warming = RoomForRest(id);
  if (!warming) {
    if (cache_.TierOf(id) == Tier::kMapped) TellFell(id, Tier::kMapped, {});
    return;
  }
  watched.Allow(Reading(warming->files->footprint()));
  const Bytes bytes = SumOf(warming->files->footprint());
  absl::StatusOr<std::unique_ptr<const Rest::Pages>> pages = warming->files->Hold(warming->stop);
  if (!pages.ok() && !absl::IsCancelled(pages.status())) {
    log::Warning("files of a model that made room are not kept in memory",
                 {{"model", id.name}, {"version", id.version}, {"error", FromAbsl(pages.status().message())}});
  }
  std::unique_ptr<const Rest::Pages> held = pages.ok() ? *std::move(pages) : nullptr;
  std::optional<ModelCache::Fallen> fallen = cache_.EndWarming(*std::move(warming), std::move(held));
  const Tier tier = cache_.TierOf(id);
  if (fallen) Free(*std::move(fallen));
  if (tier != Tier::kCold) TellFell(id, tier, tier == Tier::kHost ? bytes : Bytes{});
}

std::optional<ModelCache::Warming> ModelManager::RoomForRest(const ModelId& id) {
  std::optional<ModelCache::WarmingView> view = cache_.ViewForWarming(id);
  if (!view) return std::nullopt;
  const EvictionPolicy& policy = *settings().eviction;
  const TimePoint now = deps_.clock.Now();
  // Where losses add up they grow with the bytes, and a great rest must not outweigh many small ones for that.
  const auto worth = [&](const EvictionCandidate& rest) {
    return policy.adds_up() ? rest.demand : policy.Loss(rest, now);
  };
  std::erase_if(view->others, [&](const EvictionCandidate& other) { return worth(other) >= worth(view->own); });
  const auto chosen = ChooseVictims(view->others, policy, now, view->settled, budget_.capacity(), *view->own.footprint);
  if (!chosen) return std::nullopt;
  std::vector<EvictionCandidate> lesser;
  for (const std::size_t i : *chosen) lesser.push_back(view->others[i]);
  for (ModelCache::Fallen& fallen : cache_.TakeIdle(lesser).fallen) Free(std::move(fallen));  // so that it fits
  return cache_.BeginWarming(view->own);
}

void ModelManager::Free(ModelCache::Fallen fallen) {
  if (fallen.stop) fallen.stop->request_stop();
  fallen.pages.reset();
  fallen.files.reset();
  std::vector<std::shared_ptr<Completion>> gone;
  if (fallen.charged) gone = cache_.ForgetPages(*fallen.slot);
  if (fallen.to < fallen.from) TellFell(fallen.slot->id, fallen.to, {});
  RoomChanged();
}

void ModelManager::PostFree(ModelCache::Fallen fallen) {
  tasks_.Post(unload_executor(), [this, fallen = std::move(fallen)](TaskGroup::How) mutable {
    const LoadWatch::Scope watched = watch_.Begin({fallen.slot->id, 0, &unload_executor()}, settings().load_timeout);
    Free(std::move(fallen));  // also when dropped: the bytes have to come back
  });
}

void ModelManager::TellFell(const ModelId& id, Tier tier, const Bytes& bytes) {
  events_.Add({.kind = CacheEventKind::kFell, .id = id, .bytes = bytes, .tier = tier});
  log::Info("model fell", {{"model", id.name}, {"version", id.version}, {"to", ToString(tier)}});
}

}  // namespace hearth
