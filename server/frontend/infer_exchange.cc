#include "server/frontend/infer_exchange.h"

#include <utility>

#include "server/base/strings.h"
#include "server/frontend/call_deadline.h"
#include "server/frontend/call_metadata.h"
#include "server/frontend/infer_message.h"

namespace hearth {

namespace {

// The model may be named by the metadata, by the message, or by both alike.
absl::Status NameModel(const InferCaller& caller, inference::ModelInferRequest& wire) {
  const std::string_view header = caller.model;
  if (!caller.other_model.empty()) {
    return absl::InvalidArgumentError(StrCat("the request's metadata (grpc.model_headers) is for model '", header,
                                             "', and for '", caller.other_model, "': leave one out"));
  }
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
  InferCaller caller{.deadline = DeadlineOf(context, deps.clock), .trace = TraceOf(MetadataOf(context, "traceparent")), .model = {}, .other_model = {}, .context = context};
  for (const std::string& header : deps.model_headers) {
    const auto [begin, end] = context.client_metadata().equal_range(header);
    for (auto at = begin; at != end; ++at) {
      const std::string_view model(at->second.data(), at->second.size());
      if (caller.model.empty()) caller.model = model;
      if (!model.empty() && model != caller.model) caller.other_model = model;
    }
  }
  return caller;
}

void Exchange(grpc::ByteBuffer& bytes, InferRpc rpc, InferCaller caller, std::stop_token cancelled,
              const InferenceRpcDeps& deps, InferAnswerCallback done) {
  const TimePoint now = deps.clock.Now();
  absl::StatusOr<InferMessage> wire = TakeInferRequest(bytes, deps.buffers);
  const auto refuse = [&](std::string id, const inference::ModelInferRequest& head, const absl::Status& why) {
    deps.infer.TellRefused({.model = head.model_name(), .version = head.model_version(), .id = id, .trace = caller.trace,
                            .received = now}, why);
    std::move(done)({std::move(id), why});
  };
  if (!wire.ok()) return refuse("", {}, wire.status());
  std::string id = IdOf(wire->head);
  if (absl::Status named = NameModel(caller, wire->head); !named.ok()) {
    return refuse(std::move(id), wire->head, named);
  }
  OutputTargets targets;
  auto request = ToInferRequest(*wire, deps.buffers, deps.memory, caller.deadline, now, targets);
  if (!request.ok()) return refuse(std::move(id), wire->head, request.status());
  request->trace = caller.trace;
  deps.infer.Infer(*std::move(request), std::move(cancelled),
                   [rpc, id = std::move(id), targets = std::move(targets), memory = deps.buffers.allowance(),
                    &shares = deps.shares, &context = caller.context, done = std::move(done)](absl::StatusOr<InferResponse> response) mutable {
                     const absl::Status status = response.ok() ? Deliver(targets, *response) : response.status();
                     if (!status.ok()) return std::move(done)({std::move(id), status});
                     if (!AreSmall(response->outputs)) {
                       const absl::Status held = ChargeOutputs(memory, shares.Of(context.peer()), response->outputs);
                       if (!held.ok()) return std::move(done)({std::move(id), held});
                     }
                     absl::StatusOr<grpc::ByteBuffer> answer = ToWire(*response, id, rpc, targets);
                     response->outputs.clear();
                     std::move(done)({std::move(id), std::move(answer)});
                   });
}

}  // namespace hearth
