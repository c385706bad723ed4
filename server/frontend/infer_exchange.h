// One inference, from the bytes of its request to the bytes of its answer, whichever call they came by.
#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>

#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "server/base/clock.h"
#include "server/base/status.h"
#include "server/frontend/convert.h"
#include "server/frontend/request_memory.h"
#include "server/serving/infer_service.h"
#include "server/serving/shared_memory.h"
#include "server/tensor/buffer_pool.h"

namespace hearth {

struct InferenceRpcDeps {
  InferService& infer;
  BufferPool& buffers;
  const SharedMemory& memory;
  const Clock& clock;
  const std::vector<std::string>& model_headers;  // metadata that may name the model
  AnswerShares& shares;
};

// What came with the call, apart from the request.
struct InferCaller {
  Deadline deadline;
  std::optional<RequestTrace> trace;
  std::string_view model;  // what `model_headers` name; empty: none does
  std::string_view other_model;  // one of them names another one
  const grpc::ServerContext& context;
};
InferCaller CallerOf(const grpc::ServerContext& context, const InferenceRpcDeps& deps);

struct InferAnswer {
  std::string id;  // the request's; empty, too, when it could not be read
  absl::StatusOr<grpc::ByteBuffer> bytes;
};

using InferAnswerCallback = absl::AnyInvocable<void(InferAnswer) &&>;

// Empties `request`, whose tensors are copied on this thread. Calls `done` exactly once, inline for what is refused;
// for the rest see InferService::Infer. What `deps` refers to is there until then.
void Exchange(grpc::ByteBuffer& request, InferRpc rpc, InferCaller caller, std::stop_token cancelled,
              const InferenceRpcDeps& deps, InferAnswerCallback done);

}  // namespace hearth
