#include "server/frontend/model_rpc.h"

#include <string>
#include <utility>

#include "server/frontend/model_config_wire.h"
#include "server/frontend/model_statistics_wire.h"
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

void Statistics(StatisticsCall call, const ModelRpcDeps& deps) {
  const absl::Status status = FillStatistics(deps.repository, deps.metrics, call.request().name(),
                                             call.request().version(), call.response());
  std::move(call).Finish(status);
}

}  // namespace

void ServeModels(EventLoop& loop, AsyncService& service, const ModelRpcDeps& deps) {
  ServeUnary(loop, "inference.GRPCInferenceService/ModelConfig", service, &AsyncService::RequestModelConfig, kArmed,
             [deps](ConfigCall call) { Config(std::move(call), deps); });
  ServeUnary(loop, "inference.GRPCInferenceService/ModelStatistics", service, &AsyncService::RequestModelStatistics, kArmed,
             [deps](StatisticsCall call) { Statistics(std::move(call), deps); });
}

}  // namespace hearth
