#include "server/frontend/admin_rpc.h"

#include <memory>
#include <utility>

#include "server/frontend/admin_wire.h"
#include "server/frontend/unary_call.h"

namespace hearth {
namespace {

using AsyncService = inference::GRPCInferenceService::AsyncService;

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

constexpr int kArmed = 4;

void ServerMetadata(ServerMetadataCall call, const AdminRpcDeps& deps) {
  FillServer(deps.server_name, deps.server_version, call.response());
  call.response().add_extensions("logging");  // what only gRPC has
  if (deps.shared_memory) call.response().add_extensions("system_shared_memory");
  std::move(call).Finish(absl::OkStatus());
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

void Index(IndexCall call, const AdminRpcDeps& deps) {
  const absl::Status status = CheckRepositoryName(call.request().repository_name());
  if (status.ok()) FillIndex(deps.repository.Index(call.request().ready()), call.response());
  std::move(call).Finish(status);
}

void Load(LoadCall call, const AdminRpcDeps& deps) {
  const auto& request = call.request();
  const absl::Status status = CheckRepositoryName(request.repository_name());
  const auto config = ReadLoadParameters(request.parameters());
  if (!status.ok() || !config.ok()) {
    std::move(call).Finish(status.ok() ? config.status() : status);
    return;
  }
  const std::string name = request.model_name();
  const Deadline deadline = call.deadline(deps.clock);
  deps.repository.Load(name, *config, deadline,
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
  ServeUnary(loop, "inference.GRPCInferenceService/ServerLive", service, &AsyncService::RequestServerLive, kArmed, [deps](ServerLiveCall call) {
    call.response().set_live(deps.repository.live());
    std::move(call).Finish(absl::OkStatus());
  });
  ServeUnary(loop, "inference.GRPCInferenceService/ServerReady", service, &AsyncService::RequestServerReady, kArmed,
             [deps](ServerReadyCall call) {
               call.response().set_ready(deps.repository.ready());
               std::move(call).Finish(absl::OkStatus());
             });
  ServeUnary(loop, "inference.GRPCInferenceService/ModelReady", service, &AsyncService::RequestModelReady, kArmed, [deps](ModelReadyCall call) {
    const auto& request = call.request();
    call.response().set_ready(deps.repository.ModelReady(request.name(), request.version()));
    std::move(call).Finish(absl::OkStatus());
  });
  ServeUnary(loop, "inference.GRPCInferenceService/ServerMetadata", service, &AsyncService::RequestServerMetadata, kArmed,
             [deps](ServerMetadataCall call) { ServerMetadata(std::move(call), deps); });
  ServeUnary(loop, "inference.GRPCInferenceService/ModelMetadata", service, &AsyncService::RequestModelMetadata, kArmed,
             [deps](ModelMetadataCall call) { Metadata(std::move(call), deps); });
  ServeUnary(loop, "inference.GRPCInferenceService/RepositoryIndex", service, &AsyncService::RequestRepositoryIndex, kArmed,
             [deps](IndexCall call) { Index(std::move(call), deps); });
  ServeUnary(loop, "inference.GRPCInferenceService/RepositoryModelLoad", service, &AsyncService::RequestRepositoryModelLoad, kArmed,
             [deps](LoadCall call) { Load(std::move(call), deps); });
  ServeUnary(loop, "inference.GRPCInferenceService/RepositoryModelUnload", service, &AsyncService::RequestRepositoryModelUnload, kArmed,
             [deps](UnloadCall call) { Unload(std::move(call), deps); });
}

}  // namespace hearth
