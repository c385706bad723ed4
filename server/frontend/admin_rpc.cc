#include "server/frontend/admin_rpc.h"

#include "absl/strings/str_format.h"

#include <memory>
#include <utility>

#include "server/frontend/unary_call.h"

namespace hearth {
namespace {

using AsyncService = inference::GRPCInferenceService::AsyncService;
using RepositoryParameters =
    google::protobuf::Map<std::string, inference::ModelRepositoryParameter>;

using ServerLiveCall = UnaryCall<inference::ServerLiveRequest, inference::ServerLiveResponse>;
using ServerReadyCall = UnaryCall<inference::ServerReadyRequest, inference::ServerReadyResponse>;
using ModelReadyCall = UnaryCall<inference::ModelReadyRequest, inference::ModelReadyResponse>;
using ServerMetadataCall =
    UnaryCall<inference::ServerMetadataRequest, inference::ServerMetadataResponse>;
using ModelMetadataCall =
    UnaryCall<inference::ModelMetadataRequest, inference::ModelMetadataResponse>;
using IndexCall = UnaryCall<inference::RepositoryIndexRequest, inference::RepositoryIndexResponse>;
using LoadCall =
    UnaryCall<inference::RepositoryModelLoadRequest, inference::RepositoryModelLoadResponse>;
using UnloadCall =
    UnaryCall<inference::RepositoryModelUnloadRequest, inference::RepositoryModelUnloadResponse>;

// Only what works is advertised.
constexpr const char* kExtensions[] = {"model_repository", "model_repository(unload_dependents)", "model_configuration",
                                       "statistics", "logging"};

constexpr int kArmed = 4;

void ServerMetadata(ServerMetadataCall call, const AdminRpcDeps& deps) {
  call.response().set_name(deps.server_name);
  call.response().set_version(deps.server_version);
  for (const char* extension : kExtensions) call.response().add_extensions(extension);
  if (deps.shared_memory) call.response().add_extensions("system_shared_memory");
  std::move(call).Finish(absl::OkStatus());
}

void FillTensors(
    const std::vector<TensorInfo>& tensors,
    google::protobuf::RepeatedPtrField<inference::ModelMetadataResponse::TensorMetadata>& wire) {
  for (const TensorInfo& info : tensors) {
    auto* tensor = wire.Add();
    tensor->set_name(info.name);
    tensor->set_datatype(std::string(ToString(info.dtype)));
    if (info.shape) tensor->mutable_shape()->Add(info.shape->begin(), info.shape->end());
  }
}

void FillMetadata(const hearth::ModelMetadata& metadata, inference::ModelMetadataResponse& wire) {
  wire.set_name(metadata.id.name);
  for (const std::int64_t version : metadata.versions) wire.add_versions(std::to_string(version));
  wire.set_platform(metadata.signature.platform);
  FillTensors(metadata.signature.inputs, *wire.mutable_inputs());
  FillTensors(metadata.signature.outputs, *wire.mutable_outputs());
  for (const auto& [key, value] : metadata.properties) (*wire.mutable_properties())[key] = value;
}

void Metadata(ModelMetadataCall call, const AdminRpcDeps& deps) {
  const std::string name = call.request().name();
  const std::string version = call.request().version();
  const Deadline deadline = call.deadline(deps.clock);
  deps.repository.Metadata(
      name, version, deadline,
      [call = std::move(call)](absl::StatusOr<hearth::ModelMetadata> answer) mutable {
        if (answer.ok()) FillMetadata(*answer, call.response());
        std::move(call).Finish(answer.status());
      });
}

absl::Status CheckRepositoryName(const std::string& name) {
  if (name.empty()) return absl::OkStatus();
  return absl::UnimplementedError("'repository_name' specification is not supported");
}

void Index(IndexCall call, const AdminRpcDeps& deps) {
  const absl::Status status = CheckRepositoryName(call.request().repository_name());
  if (status.ok()) {
    for (const IndexRow& row : deps.repository.Index(call.request().ready())) {
      auto* model = call.response().add_models();
      model->set_name(row.model);
      model->set_version(row.version);
      model->set_state(row.state);
      model->set_reason(row.reason);
    }
  }
  std::move(call).Finish(status);
}

absl::Status CheckLoadParameters(const RepositoryParameters& parameters) {
  for (const auto& [name, value] : parameters) {
    if (name == "config") {
      return absl::UnimplementedError(
          "load parameter 'config' is not supported: put the settings into the model's model.yaml");
    }
    if (name.rfind("file:", 0) == 0) {
      return absl::InvalidArgumentError(StrCat(
          "load parameter '", name, "' is not supported: put the file into the model repository"));
    }
    return absl::InvalidArgumentError(StrCat("unrecognized load parameter '", name, "'"));
  }
  return absl::OkStatus();
}

absl::Status CheckUnloadParameters(const RepositoryParameters& parameters) {
  for (const auto& [name, value] : parameters) {
    if (name != "unload_dependents") {
      return absl::InvalidArgumentError(StrCat("unrecognized unload parameter '", name, "'"));
    }
    if (value.parameter_choice_case() != inference::ModelRepositoryParameter::kBoolParam) {
      return absl::InvalidArgumentError(
          "invalid value type for 'unload_dependents' parameter, expected bool_param.");
    }
  }
  return absl::OkStatus();
}

// The phases as HTTP's header of that name has them: "open;dur=0.412, map;dur=0.051". The response of this RPC has no
// fields to put them into.
std::string ServerTiming(const LoadReport& report) {
  std::string text;
  for (std::size_t i = 0; i < kLoadPhaseCount; ++i) {
    if (report.phases[i].wall == Duration{}) continue;
    absl::StrAppendFormat(&text, "%s%s;dur=%.3f", text.empty() ? "" : ", ", ToString(static_cast<LoadPhase>(i)),
                          ToMilliseconds(report.phases[i].wall));
  }
  return text;
}

void Load(LoadCall call, const AdminRpcDeps& deps) {
  const auto& request = call.request();
  absl::Status status = CheckRepositoryName(request.repository_name());
  if (status.ok()) status = CheckLoadParameters(request.parameters());
  if (!status.ok()) {
    std::move(call).Finish(status);
    return;
  }
  const std::string name = request.model_name();
  const Deadline deadline = call.deadline(deps.clock);
  deps.repository.Load(name, deadline,
                       [call = std::move(call)](absl::StatusOr<LoadReport> report) mutable {
                         if (report.ok()) call.AddTrailer("server-timing", ServerTiming(*report));
                         std::move(call).Finish(report.status());
                       });
}

void Unload(UnloadCall call, const AdminRpcDeps& deps) {
  const auto& request = call.request();
  absl::Status status = CheckRepositoryName(request.repository_name());
  if (status.ok()) status = CheckUnloadParameters(request.parameters());
  if (!status.ok()) {
    std::move(call).Finish(status);
    return;
  }
  const std::string name = request.model_name();
  deps.repository.Unload(name, [call = std::move(call)](const absl::Status& done) mutable {
    std::move(call).Finish(done);
  });
}

}  // namespace

void ServeAdmin(EventLoop& loop, AsyncService& service, const AdminRpcDeps& deps) {
  ServeUnary(loop, service, &AsyncService::RequestServerLive, kArmed, [deps](ServerLiveCall call) {
    call.response().set_live(deps.repository.live());
    std::move(call).Finish(absl::OkStatus());
  });
  ServeUnary(loop, service, &AsyncService::RequestServerReady, kArmed,
             [deps](ServerReadyCall call) {
               call.response().set_ready(deps.repository.ready());
               std::move(call).Finish(absl::OkStatus());
             });
  ServeUnary(loop, service, &AsyncService::RequestModelReady, kArmed, [deps](ModelReadyCall call) {
    const auto& request = call.request();
    call.response().set_ready(deps.repository.ModelReady(request.name(), request.version()));
    std::move(call).Finish(absl::OkStatus());
  });
  ServeUnary(loop, service, &AsyncService::RequestServerMetadata, kArmed,
             [deps](ServerMetadataCall call) { ServerMetadata(std::move(call), deps); });
  ServeUnary(loop, service, &AsyncService::RequestModelMetadata, kArmed,
             [deps](ModelMetadataCall call) { Metadata(std::move(call), deps); });
  ServeUnary(loop, service, &AsyncService::RequestRepositoryIndex, kArmed,
             [deps](IndexCall call) { Index(std::move(call), deps); });
  ServeUnary(loop, service, &AsyncService::RequestRepositoryModelLoad, kArmed,
             [deps](LoadCall call) { Load(std::move(call), deps); });
  ServeUnary(loop, service, &AsyncService::RequestRepositoryModelUnload, kArmed,
             [deps](UnloadCall call) { Unload(std::move(call), deps); });
}

}  // namespace hearth
