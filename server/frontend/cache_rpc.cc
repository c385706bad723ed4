#include "server/frontend/cache_rpc.h"

#include <chrono>
#include <cstdint>
#include <utility>

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
  wire.set_in_flight(deps.infer.in_flight());
}

void FillBudgets(const MemoryBudget::Usage& usage, hearth::v1::StatResponse& wire) {
  const std::pair<const char*, std::uint64_t Bytes::*> dimensions[] = {
      {"device", &Bytes::device_bytes},
      {"host", &Bytes::host_bytes},
      {"mapped", &Bytes::mapped_bytes}};
  const Bytes used = usage.used();
  for (const auto& [name, bytes] : dimensions) {
    hearth::v1::Budget* budget = wire.add_budgets();
    budget->set_dimension(name);
    budget->set_capacity_bytes(usage.capacity.*bytes);
    budget->set_used_bytes(used.*bytes);
    budget->set_resident_bytes(usage.resident.*bytes);
    budget->set_loading_bytes(usage.loading.*bytes);
    budget->set_unloading_bytes(usage.unloading.*bytes);
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
}

void FillModel(const ModelCache::Row& row, const Clock& clock, hearth::v1::Model& wire) {
  wire.set_name(row.id.name);
  wire.set_version(row.id.version);
  wire.set_state(std::string(ToString(row.state)));
  wire.set_in_use(static_cast<std::int64_t>(row.pins));
  wire.set_pinned(row.pinned);
  wire.set_waiters(static_cast<std::int64_t>(row.waiters));
  wire.mutable_bytes()->set_device(row.device_bytes);
  wire.mutable_bytes()->set_host(row.host_bytes);
  wire.mutable_bytes()->set_mapped(row.mapped_bytes);
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
  if (!row.error.ok()) wire.set_error(std::string(FromAbsl(row.error.message())));
}

void Stat(StatCall call, const CacheRpcDeps& deps) {
  FillServer(deps, *call.response().mutable_server());
  FillBudgets(deps.repository.usage(), call.response());
  const std::string& only = call.request().model();
  for (const ModelCache::Row& row : deps.repository.Resident()) {
    if (!only.empty() && row.id.name != only) continue;
    hearth::v1::Model* model = call.response().add_models();
    FillModel(row, deps.clock, *model);
    FillTotals(deps.metrics.Model(row.id.name, row.id.version).totals(), *model);
  }
  std::move(call).Finish(absl::OkStatus());
}

}  // namespace

void ServeCache(EventLoop& loop, AsyncService& service, const CacheRpcDeps& deps) {
  ServeUnary(loop, service, &AsyncService::RequestStat, kArmed,
             [deps](StatCall call) { Stat(std::move(call), deps); });
}

}  // namespace hearth
