#include "server/frontend/model_statistics_wire.h"

#include <chrono>
#include <cstdint>
#include <map>
#include <vector>

namespace hearth {
namespace {

void FillSum(const ModelStatistics::Sum& sum, inference::StatisticDuration& wire) {
  wire.set_count(sum.count);
  wire.set_ns(static_cast<std::uint64_t>(std::chrono::nanoseconds(sum.time).count()));
}

void FillOne(const ModelStatistics& from, inference::ModelStatistics& wire) {
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
  FillSum(from.cache_hit, *sums.mutable_cache_hit());
  FillSum(from.cache_miss, *sums.mutable_cache_miss());
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

}  // namespace

absl::Status FillStatistics(const RepositoryService& repository, const Metrics& metrics, const std::string& model,
                            const std::string& version, inference::ModelStatisticsResponse& response) {
  HEARTH_ASSIGN_OR_RETURN(const std::vector<ModelUse> uses, repository.Uses(model, version));
  std::map<ModelId, ModelUse> rows;
  for (const ModelUse& use : uses) rows.emplace(use.id, use);
  if (model.empty()) {  // those that have left are not forgotten
    for (const auto& [name, number] : metrics.Known()) rows.try_emplace({name, number}, ModelUse{{name, number}});
  }
  for (const auto& [id, use] : rows) {
    inference::ModelStatistics& wire = *response.add_model_stats();
    wire.set_name(id.name);
    wire.set_version(std::to_string(id.version));
    const ModelMetrics* counted = metrics.Find(id.name, id.version);
    FillOne(counted == nullptr ? ModelStatistics() : counted->statistics(), wire);
    FillMemory("CPU", 0, use.host_bytes, wire);
    FillMemory("GPU", use.device, use.device_bytes, wire);
  }
  return absl::OkStatus();
}

}  // namespace hearth
