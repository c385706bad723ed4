#include "server/frontend/rpc_guard.h"

#include <algorithm>
#include <array>
#include <vector>

namespace hearth {
namespace {

using Group = AccessGroup;

// LogSettings and TraceSetting only tell; settings_rpc.cc asks about control for what would change something.
constexpr std::pair<std::string_view, Group> kRpcs[] = {
    {"grpc.health.v1.Health/Check", Group::kHealth},
    {"grpc.health.v1.Health/Watch", Group::kHealth},
    {"grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Group::kMetadata},
    {"inference.GRPCInferenceService/ServerLive", Group::kHealth},
    {"inference.GRPCInferenceService/ServerReady", Group::kHealth},
    {"inference.GRPCInferenceService/ModelReady", Group::kHealth},
    {"inference.GRPCInferenceService/ServerMetadata", Group::kMetadata},
    {"inference.GRPCInferenceService/ModelMetadata", Group::kMetadata},
    {"inference.GRPCInferenceService/ModelConfig", Group::kMetadata},
    {"inference.GRPCInferenceService/RepositoryIndex", Group::kMetadata},
    {"inference.GRPCInferenceService/LogSettings", Group::kMetadata},
    {"inference.GRPCInferenceService/TraceSetting", Group::kMetadata},
    {"inference.GRPCInferenceService/ModelInfer", Group::kInference},
    {"inference.GRPCInferenceService/ModelStreamInfer", Group::kInference},
    {"inference.GRPCInferenceService/ModelStatistics", Group::kStatistics},
    {"inference.GRPCInferenceService/RepositoryModelLoad", Group::kRepository},
    {"inference.GRPCInferenceService/RepositoryModelUnload", Group::kRepository},
    {"inference.GRPCInferenceService/SystemSharedMemoryStatus", Group::kControl},
    {"inference.GRPCInferenceService/SystemSharedMemoryRegister", Group::kControl},
    {"inference.GRPCInferenceService/SystemSharedMemoryUnregister", Group::kControl},
    {"inference.GRPCInferenceService/CudaSharedMemoryStatus", Group::kControl},
    {"inference.GRPCInferenceService/CudaSharedMemoryRegister", Group::kControl},
    {"inference.GRPCInferenceService/CudaSharedMemoryUnregister", Group::kControl},
    {"hearth.v1.Cache/Stat", Group::kStatistics},
    {"hearth.v1.Cache/Explain", Group::kStatistics},
    {"hearth.v1.Cache/Watch", Group::kStatistics},
    {"hearth.v1.Cache/Plan", Group::kStatistics},
    {"hearth.v1.Cache/Prefetch", Group::kControl},
    {"hearth.v1.Cache/Pin", Group::kControl},
    {"hearth.v1.Cache/Unpin", Group::kControl},
    {"hearth.v1.Cache/Evict", Group::kControl},
    {"hearth.v1.Config/Reload", Group::kControl},
};

// "ipv4:127.0.0.1:4711", "ipv6:%5B::1%5D:4711", "unix:/run/hearth.sock".
bool IsLoopback(std::string_view peer) {
  return peer.starts_with("ipv4:127.") || peer.starts_with("ipv6:%5B::1%5D:") || peer.starts_with("ipv6:[::1]:") ||
         peer.starts_with("unix:");
}

std::string_view ToView(grpc::string_ref text) { return {text.data(), text.size()}; }

// What the client's certificate says it is, if it was verified: its alternative names, or else its common name.
std::vector<std::string> CertificateNames(const grpc::ServerContext& context) {
  std::vector<std::string> names;
  const auto auth = context.auth_context();
  if (auth == nullptr || !auth->IsPeerAuthenticated()) return names;
  for (const char* property : {"x509_subject_alternative_name", "x509_common_name"}) {
    for (const grpc::string_ref& name : auth->FindPropertyValues(property)) names.emplace_back(name.data(), name.size());
    if (!names.empty()) break;
  }
  return names;
}

}  // namespace

std::span<const std::pair<std::string_view, AccessGroup>> GroupedRpcs() { return kRpcs; }

Rpc FindRpc(std::string_view name) {
  const auto* const found = std::find_if(std::begin(kRpcs), std::end(kRpcs), [name](const auto& rpc) { return rpc.first == name; });
  if (found == std::end(kRpcs)) return {name, std::nullopt};
  return {name, found->second};
}

absl::Status RpcGuard::AskAbout(const Rpc& rpc, const grpc::ServerContext& context) const {
  const std::string peer = context.peer();
  const std::vector<std::string> names = CertificateNames(context);
  Caller caller{.address = peer, .loopback = IsLoopback(peer), .certificate_names = names};
  for (const auto& [key, value] : context.client_metadata()) {
    if (key == "authorization") caller.authorization = ToView(value);
    caller.forwarded |= TellsOfElsewhere(ToView(key));
  }
  return access_.Check(Listener::kGrpc, rpc.group, rpc.name, caller);
}

}  // namespace hearth
