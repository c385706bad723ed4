#include "server/frontend/cache_control_rpc.h"

#include <string>
#include <utility>

#include "server/frontend/cache_event_wire.h"
#include "server/frontend/unary_call.h"

namespace hearth {
namespace {

using AsyncService = hearth::v1::Cache::AsyncService;
using PrefetchCall = UnaryCall<hearth::v1::PrefetchRequest, hearth::v1::PrefetchResponse>;
using PinCall = UnaryCall<hearth::v1::PinRequest, hearth::v1::PinResponse>;
using UnpinCall = UnaryCall<hearth::v1::UnpinRequest, hearth::v1::UnpinResponse>;
using EvictCall = UnaryCall<hearth::v1::EvictRequest, hearth::v1::EvictResponse>;
using PlanCall = UnaryCall<hearth::v1::PlanRequest, hearth::v1::PlanResponse>;
using ExplainCall = UnaryCall<hearth::v1::ExplainRequest, hearth::v1::ExplainResponse>;

constexpr int kArmed = 2;

void Prefetch(PrefetchCall call, CacheService& cache) {
  const auto found = cache.Prefetch(call.request().model(), call.request().version());
  if (found.ok()) {
    call.response().set_version(found->id.version);
    call.response().set_state(std::string(ToString(found->before)));
  }
  std::move(call).Finish(found.status());
}

// Pin and Unpin.
template <typename Call>
void ChangePin(Call call, CacheService& cache,
               absl::StatusOr<ModelId> (CacheService::*change)(const std::string&, const std::string&)) {
  const absl::StatusOr<ModelId> id = (cache.*change)(call.request().model(), call.request().version());
  if (id.ok()) call.response().set_version(id->version);
  std::move(call).Finish(id.status());
}

void Evict(EvictCall call, CacheService& cache) {
  const std::string model = call.request().model();
  const std::string version = call.request().version();
  cache.Evict(model, version, [call = std::move(call)](absl::StatusOr<CacheService::Evicted> evicted) mutable {
    if (evicted.ok()) {
      call.response().set_version(evicted->id.version);
      call.response().set_was_resident(evicted->was_resident);
    }
    std::move(call).Finish(evicted.status());
  });
}

void FillExplanation(const Explanation& explanation, const DeviceNames& devices,
                     hearth::v1::ExplainResponse& wire) {
  wire.set_model(explanation.id.name);
  wire.set_version(explanation.id.version);
  const bool left = !explanation.row && explanation.tier != Tier::kCold;
  wire.set_state(std::string(left ? ToString(explanation.tier)
                                  : ToString(explanation.row ? explanation.row->state : ModelState::kAbsent)));
  wire.set_sentence(explanation.sentence);
  wire.set_pinned_by_configuration(explanation.pins.configured);
  wire.set_pinned_on_request(explanation.pins.asked);
  wire.set_unloaded(explanation.unloaded);
  const EventLog::History& history = explanation.history;
  wire.set_refused(history.refused);
  wire.set_evictions(history.evictions);
  if (history.last) FillEvent(*history.last, explanation.at, devices, *wire.mutable_last());
  if (history.last_eviction) {
    FillEvent(*history.last_eviction, explanation.at, devices, *wire.mutable_last_eviction());
  }
  if (history.last_failure) FillEvent(*history.last_failure, explanation.at, devices, *wire.mutable_last_failure());
}

void Explain(ExplainCall call, CacheService& cache) {
  const auto explanation = cache.Explain(call.request().model(), call.request().version());
  if (explanation.ok()) FillExplanation(*explanation, cache.devices(), call.response());
  std::move(call).Finish(explanation.status());
}

void Plan(PlanCall call, CacheService& cache) {
  call.response().set_half_life_seconds(ToSeconds(cache.plan_half_life()));
  for (const CacheService::MemoryPlan& memory : cache.Plan()) {
    hearth::v1::MemoryPlan& wire = *call.response().add_plans();
    wire.set_dimension(std::string(ToString(memory.dimension.kind)));
    if (memory.dimension.kind == Dimension::kDevice) wire.set_device(NameOf(memory.dimension, cache.devices()));
    wire.set_capacity_bytes(memory.capacity_bytes);
    wire.set_loads(memory.plan.loads);
    wire.set_load_seconds(memory.plan.seconds);
    wire.set_returns(memory.plan.returns);
    for (const GhostList::Point& point : memory.plan.points) {
      hearth::v1::PlanPoint& spared = *wire.add_points();
      spared.set_more_bytes(point.more_bytes);
      spared.set_loads(point.loads);
      spared.set_load_seconds(point.seconds);
    }
  }
  std::move(call).Finish(absl::OkStatus());
}

}  // namespace

void ServeCacheControl(EventLoop& loop, AsyncService& service, CacheService& cache) {
  ServeUnary(loop, "hearth.v1.Cache/Prefetch", service, &AsyncService::RequestPrefetch, kArmed,
             [&cache](PrefetchCall call) { Prefetch(std::move(call), cache); });
  ServeUnary(loop, "hearth.v1.Cache/Pin", service, &AsyncService::RequestPin, kArmed,
             [&cache](PinCall call) { ChangePin(std::move(call), cache, &CacheService::Pin); });
  ServeUnary(loop, "hearth.v1.Cache/Unpin", service, &AsyncService::RequestUnpin, kArmed,
             [&cache](UnpinCall call) { ChangePin(std::move(call), cache, &CacheService::Unpin); });
  ServeUnary(loop, "hearth.v1.Cache/Evict", service, &AsyncService::RequestEvict, kArmed,
             [&cache](EvictCall call) { Evict(std::move(call), cache); });
  ServeUnary(loop, "hearth.v1.Cache/Explain", service, &AsyncService::RequestExplain, kArmed,
             [&cache](ExplainCall call) { Explain(std::move(call), cache); });
  ServeUnary(loop, "hearth.v1.Cache/Plan", service, &AsyncService::RequestPlan, kArmed,
             [&cache](PlanCall call) { Plan(std::move(call), cache); });
}

}  // namespace hearth
