#include "server/frontend/infer_exchange.h"

#include <utility>

#include "server/base/strings.h"
#include "server/frontend/call_deadline.h"
#include "server/frontend/call_metadata.h"
#include "server/frontend/infer_message.h"

namespace hearth {

namespace {

// The model may be named by the metadata, by the message, or by both alike.
absl::Status NameModel(std::string_view header, inference::ModelInferRequest& wire) {
  if (header.empty() || wire.model_name() == header) return absl::OkStatus();
  if (wire.model_name().empty()) {
    wire.set_model_name(std::string(header));
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      StrCat("the request is for model '", wire.model_name(), "', and its metadata (grpc.model_headers) for '", header, "'"));
}

}  // namespace

InferCaller CallerOf(const grpc::ServerContext& context, const InferenceRpcDeps& deps) {
  InferCaller caller{.deadline = DeadlineOf(context, deps.clock), .trace = TraceOf(MetadataOf(context, "traceparent")), .model = {}};
  for (const std::string& header : deps.model_headers) {
    if (caller.model.empty()) caller.model = MetadataOf(context, header.c_str());
  }
  return caller;
}

void Exchange(grpc::ByteBuffer& bytes, InferRpc rpc, InferCaller caller, std::stop_token cancelled,
              const InferenceRpcDeps& deps, InferAnswerCallback done) {
  const TimePoint now = deps.clock.Now();
  absl::StatusOr<InferMessage> wire = TakeInferRequest(bytes, deps.buffers);
  if (!wire.ok()) return std::move(done)({"", wire.status()});
  std::string id = wire->head.id();
  if (absl::Status named = NameModel(caller.model, wire->head); !named.ok()) {
    return std::move(done)({std::move(id), std::move(named)});
  }
  OutputTargets targets;
  auto request = ToInferRequest(*wire, deps.buffers, deps.memory, caller.deadline, now, targets);
  if (!request.ok()) return std::move(done)({std::move(id), request.status()});
  request->trace = caller.trace;
  deps.infer.Infer(*std::move(request), std::move(cancelled),
                   [rpc, id = std::move(id), targets = std::move(targets),
                    done = std::move(done)](absl::StatusOr<InferResponse> response) mutable {
                     const absl::Status status = response.ok() ? Deliver(targets, *response) : response.status();
                     if (!status.ok()) return std::move(done)({std::move(id), status});
                     absl::StatusOr<grpc::ByteBuffer> answer = ToWire(*response, id, rpc, targets);
                     std::move(done)({std::move(id), std::move(answer)});
                   });
}

}  // namespace hearth
