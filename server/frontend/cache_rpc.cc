#include "server/frontend/cache_rpc.h"

#include <chrono>
#include <cstdint>
#include <functional>
#include <utility>

#include "server/frontend/cache_event_wire.h"
#include "server/frontend/unary_call.h"
#include "server/frontend/wire_time.h"

namespace hearth {
namespace {

using AsyncService = hearth::v1::Cache::AsyncService;
using StatCall = UnaryCall<hearth::v1::StatRequest, hearth::v1::StatResponse>;

constexpr int kArmed = 2;

void FillServer(const CacheRpcDeps& deps, hearth::v1::Server& wire) {
  wire.set_name(deps.server_name);
  wire.set_version(deps.server_version);
  wire.set_uptime_seconds(ToSeconds(deps.clock.Now() - deps.started));
  wire.set_not_ready_reason(deps.repository.why_not_ready());
  wire.set_ready(wire.not_ready_reason().empty());
  wire.set_not_loading_reason(std::string(FromAbsl(deps.repository.CheckLoads().message())));
  wire.set_in_flight(deps.infer.in_flight());
}

using Number = std::function<std::uint64_t(const Bytes&)>;

void FillBudget(const MemoryBudget::Usage& usage, Dimension::Kind kind, const Number& number,
                hearth::v1::Budget& wire) {
  wire.set_dimension(std::string(ToString(kind)));
  wire.set_capacity_bytes(number(usage.capacity));
  wire.set_used_bytes(number(usage.used()));
  wire.set_resident_bytes(number(usage.resident));
  wire.set_loading_bytes(number(usage.loading));
  wire.set_unloading_bytes(number(usage.unloading));
  wire.set_lost_bytes(number(usage.lost));
}

void FillBudgets(const MemoryBudget::Usage& usage, const DeviceNames& devices, hearth::v1::StatResponse& wire) {
  FillBudget(usage, Dimension::kDevice, [](const Bytes& bytes) { return bytes.device_bytes.total(); },
             *wire.add_budgets());
  for (const Dimension dimension : Dimensions(devices.size())) {
    const bool on_device = dimension.kind == Dimension::kDevice;
    hearth::v1::Budget& budget = on_device ? *wire.add_devices() : *wire.add_budgets();
    FillBudget(usage, dimension.kind, [dimension](const Bytes& bytes) { return Of(bytes, dimension); }, budget);
    if (on_device) budget.set_device(NameOf(dimension, devices));
  }
}

void FillTotals(const ModelMetrics::Totals& totals, hearth::v1::Model& wire) {
  wire.set_requests_succeeded(totals.succeeded);
  wire.set_requests_failed(totals.failed);
  if (totals.succeeded == 0) return;
  const auto count = static_cast<double>(totals.succeeded);
  wire.set_mean_request_seconds(totals.seconds / count);
  wire.set_mean_infer_seconds(totals.infer_seconds / count);
}

// The cache keeps last use on the monotonic clock; people read the other one.
WallTime ToWall(TimePoint time, const Clock& clock) {
  return clock.WallNow() - std::chrono::duration_cast<WallTime::duration>(clock.Now() - time);
}

void FillLoad(const LoadReport& report, hearth::v1::LoadSummary& wire) {
  wire.set_weight_bytes(report.weight_bytes);
  wire.set_copied_bytes(report.copied_bytes);
  wire.set_mapped_bytes(report.mapped_bytes);
  wire.set_cached_bytes(report.cached_bytes);
  wire.set_kept_program(report.kept_program);
  wire.set_shared_bytes(report.shared_bytes);
  wire.set_from(std::string(ToString(report.from)));
}

void FillModel(const ModelCache::Row& row, const DeviceNames& devices, const Clock& clock, hearth::v1::Model& wire) {
  wire.set_name(row.id.name);
  wire.set_version(row.id.version);
  wire.set_state(std::string(ToString(row.state)));
  wire.set_in_use(static_cast<std::int64_t>(row.pins));
  wire.set_pinned(row.pinned);
  wire.set_waiters(static_cast<std::int64_t>(row.waiters));
  Bytes bytes{{}, row.host_bytes, row.mapped_bytes};
  bytes.device_bytes.Set(row.device, row.device_bytes);
  FillBytes(bytes, devices, *wire.mutable_bytes());
  wire.mutable_bytes()->set_window(row.window_bytes);
  if (row.last_used != TimePoint{})
    FillTime(ToWall(row.last_used, clock), *wire.mutable_last_used());
  if (row.loaded_at != WallTime{}) FillTime(row.loaded_at, *wire.mutable_loaded_at());
  wire.set_hits(row.hits);
  for (std::size_t i = 0; i < kLoadPhaseCount; ++i) {
    const auto phase = static_cast<LoadPhase>(i);
    if (row.load_report[phase].wall == Duration{}) continue;  // did not happen
    hearth::v1::LoadPhase* wire_phase = wire.add_load_phases();
    wire_phase->set_name(std::string(ToString(phase)));
    const PhaseCost& cost = row.load_report[phase];
    wire_phase->set_milliseconds(ToMilliseconds(cost.wall));
    wire_phase->set_start_milliseconds(ToMilliseconds(cost.start));
    wire_phase->set_cpu_milliseconds(ToMilliseconds(cost.cpu));
    wire_phase->set_bytes(cost.bytes);
    wire_phase->set_minor_faults(cost.minor_faults);
    wire_phase->set_major_faults(cost.major_faults);
    for (const PhasePart& part : row.load_report.parts) {
      if (part.phase != phase) continue;
      hearth::v1::LoadPart* wire_part = wire_phase->add_parts();
      wire_part->set_start_milliseconds(ToMilliseconds(part.start));
      wire_part->set_milliseconds(ToMilliseconds(part.wall));
    }
  }
  if (!wire.load_phases().empty()) FillLoad(row.load_report, *wire.mutable_load());
  wire.set_hung(row.hangs);
  if (!row.error.ok()) wire.set_error(std::string(FromAbsl(row.error.message())));
}

void FillRest(const RestRow& row, const DeviceNames& devices, const Clock& clock, hearth::v1::Model& wire) {
  wire.set_name(row.id.name);
  wire.set_version(row.id.version);
  wire.set_state(std::string(ToString(row.tier)));
  FillBytes(row.bytes, devices, *wire.mutable_bytes());
  FillTime(ToWall(row.last_used, clock), *wire.mutable_last_used());
}

void Stat(StatCall call, const CacheRpcDeps& deps) {
  FillServer(deps, *call.response().mutable_server());
  const DeviceNames& devices = deps.repository.devices();
  FillBudgets(deps.repository.usage(), devices, call.response());
  const std::string& only = call.request().model();
  // Both are by id. A model that is on its way up again has a row of either kind: what happens to it says more.
  const std::vector<RestRow> rests = deps.repository.Rests();
  auto rest = rests.begin();
  const auto add = [&](const ModelId& id, const auto& fill) {
    if (!only.empty() && id.name != only) return;
    hearth::v1::Model* model = call.response().add_models();
    fill(*model);
    FillTotals(deps.metrics.Model(id.name, id.version).totals(), *model);
  };
  const auto add_rests_before = [&](const ModelId* end) {
    for (; rest != rests.end() && (end == nullptr || rest->id < *end); ++rest) {
      add(rest->id, [&](hearth::v1::Model& wire) { FillRest(*rest, devices, deps.clock, wire); });
    }
  };
  for (const ModelCache::Row& row : deps.repository.Resident()) {
    add_rests_before(&row.id);
    if (rest != rests.end() && rest->id == row.id) ++rest;
    add(row.id, [&](hearth::v1::Model& wire) { FillModel(row, devices, deps.clock, wire); });
  }
  add_rests_before(nullptr);
  std::move(call).Finish(absl::OkStatus());
}

}  // namespace

void ServeCache(EventLoop& loop, AsyncService& service, const CacheRpcDeps& deps) {
  ServeUnary(loop, "hearth.v1.Cache/Stat", service, &AsyncService::RequestStat, kArmed,
             [deps](StatCall call) { Stat(std::move(call), deps); });
}

}  // namespace hearth
