#include "server/frontend/model_rpc.h"

#include <chrono>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "server/frontend/model_config_wire.h"
#include "server/frontend/unary_call.h"

namespace hearth {
namespace {

using AsyncService = inference::GRPCInferenceService::AsyncService;
using ConfigCall = UnaryCall<inference::ModelConfigRequest, inference::ModelConfigResponse>;
using StatisticsCall = UnaryCall<inference::ModelStatisticsRequest, inference::ModelStatisticsResponse>;

constexpr int kArmed = 4;

void Config(ConfigCall call, const ModelRpcDeps& deps) {
  const std::string name = call.request().name();
  const std::string version = call.request().version();
  const Deadline deadline = call.deadline(deps.clock);
  deps.repository.Metadata(name, version, deadline,
                           [call = std::move(call)](absl::StatusOr<ModelMetadata> answer) mutable {
                             if (answer.ok()) FillConfig(*answer, *call.response().mutable_config());
                             std::move(call).Finish(answer.status());
                           });
}

void FillSum(const ModelStatistics::Sum& sum, inference::StatisticDuration& wire) {
  wire.set_count(sum.count);
  wire.set_ns(static_cast<std::uint64_t>(std::chrono::nanoseconds(sum.time).count()));
}

void FillStatistics(const ModelStatistics& from, inference::ModelStatistics& wire) {
  using std::chrono::milliseconds;
  wire.set_last_inference(static_cast<std::uint64_t>(
      std::chrono::duration_cast<milliseconds>(from.last_inference.time_since_epoch()).count()));
  wire.set_inference_count(from.inferences);
  wire.set_execution_count(from.executions);
  inference::InferStatistics& sums = *wire.mutable_inference_stats();
  FillSum(from.success, *sums.mutable_success());
  FillSum(from.fail, *sums.mutable_fail());
  FillSum(from.queue, *sums.mutable_queue());
  FillSum(from.input, *sums.mutable_compute_input());
  FillSum(from.infer, *sums.mutable_compute_infer());
  FillSum(from.output, *sums.mutable_compute_output());
  for (const auto& [size, batches] : from.by_batch_size) {
    inference::InferBatchStatistics& batch = *wire.add_batch_stats();
    batch.set_batch_size(static_cast<std::uint64_t>(size));
    FillSum(batches.input, *batch.mutable_compute_input());
    FillSum(batches.infer, *batch.mutable_compute_infer());
    FillSum(batches.output, *batch.mutable_compute_output());
  }
}

void FillMemory(const std::string& type, std::int64_t id, std::uint64_t bytes, inference::ModelStatistics& wire) {
  if (bytes == 0) return;
  inference::MemoryUsage& usage = *wire.add_memory_usage();
  usage.set_type(type);
  usage.set_id(id);
  usage.set_byte_size(bytes);
}

void Statistics(StatisticsCall call, const ModelRpcDeps& deps) {
  const absl::StatusOr<std::vector<ModelUse>> uses =
      deps.repository.Uses(call.request().name(), call.request().version());
  if (!uses.ok()) {
    std::move(call).Finish(uses.status());
    return;
  }
  std::map<ModelId, ModelUse> rows;
  for (const ModelUse& use : *uses) rows.emplace(use.id, use);
  if (call.request().name().empty()) {  // those that have left are not forgotten
    for (const auto& [name, version] : deps.metrics.Known()) rows.try_emplace({name, version}, ModelUse{{name, version}});
  }
  for (const auto& [id, use] : rows) {
    inference::ModelStatistics& wire = *call.response().add_model_stats();
    wire.set_name(id.name);
    wire.set_version(std::to_string(id.version));
    const ModelMetrics* metrics = deps.metrics.Find(id.name, id.version);
    FillStatistics(metrics == nullptr ? ModelStatistics() : metrics->statistics(), wire);
    FillMemory("CPU", 0, use.host_bytes, wire);
    FillMemory("GPU", use.device, use.device_bytes, wire);
  }
  std::move(call).Finish(absl::OkStatus());
}

}  // namespace

void ServeModels(EventLoop& loop, AsyncService& service, const ModelRpcDeps& deps) {
  ServeUnary(loop, service, &AsyncService::RequestModelConfig, kArmed,
             [deps](ConfigCall call) { Config(std::move(call), deps); });
  ServeUnary(loop, service, &AsyncService::RequestModelStatistics, kArmed,
             [deps](StatisticsCall call) { Statistics(std::move(call), deps); });
}

}  // namespace hearth
