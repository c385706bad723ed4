// Which group every RPC belongs to, and whether a client may call it.
#pragma once

#include <grpcpp/grpcpp.h>

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "server/base/access_groups.h"
#include "server/base/status.h"
#include "server/serving/access.h"

namespace hearth {

// An RPC as its path says it without the first slash: "inference.GRPCInferenceService/ModelInfer". `group`: none for one
// that stands in no list, which nobody may call.
struct Rpc {
  std::string_view name;
  std::optional<AccessGroup> group;
};

// Every RPC that has a group.
std::span<const std::pair<std::string_view, AccessGroup>> GroupedRpcs();
// `name` outlives the result.
Rpc FindRpc(std::string_view name);

// Asks Access about calls over gRPC. Thread-safe.
class RpcGuard {
 public:
  explicit RpcGuard(Access& access) : access_(access) {}

  // May this client? Looks at the client only where the answer depends on it.
  absl::Status Check(const Rpc& rpc, const grpc::ServerContext& context) const {
    if (rpc.group && access_.IsOpen(Listener::kGrpc, *rpc.group)) return absl::OkStatus();
    return AskAbout(rpc, context);
  }

 private:
  absl::Status AskAbout(const Rpc& rpc, const grpc::ServerContext& context) const;

  Access& access_;
};

}  // namespace hearth
