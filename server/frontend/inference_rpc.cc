#include "server/frontend/inference_rpc.h"

#include <string>
#include <utility>

#include "server/frontend/convert.h"
#include "server/frontend/infer_message.h"
#include "server/frontend/unary_call.h"

namespace hearth {
namespace {

using InferCall = UnaryCall<grpc::ByteBuffer, grpc::ByteBuffer>;

// A burst of new clients finds this many calls waiting for it, per loop.
constexpr int kArmed = 64;

void Infer(InferCall call, const InferenceRpcDeps& deps) {
  const TimePoint now = deps.clock.Now();
  auto message = TakeInferRequest(call.request(), deps.buffers);
  if (!message.ok()) {
    std::move(call).Finish(message.status());
    return;
  }
  const InferMessage wire = *std::move(message);
  auto request = ToInferRequest(wire, deps.buffers, call.deadline(deps.clock), now);
  if (!request.ok()) {
    std::move(call).Finish(request.status());
    return;
  }
  const std::stop_token cancelled = call.cancelled();
  deps.infer.Infer(
      *std::move(request), cancelled,
      [id = wire.head.id(), call = std::move(call)](absl::StatusOr<InferResponse> answer) mutable {
        if (answer.ok()) {
          absl::StatusOr<grpc::ByteBuffer> bytes = ToWire(*answer, id);
          if (bytes.ok()) call.response() = *std::move(bytes);
          std::move(call).Finish(bytes.status());
        } else {
          std::move(call).Finish(answer.status());
        }
      });
}

}  // namespace

void ServeInference(EventLoop& loop, InferenceAsyncService& service, InferenceRpcDeps deps) {
  ServeUnary(loop, service, &InferenceAsyncService::RequestModelInfer, kArmed,
             [deps](InferCall call) { Infer(std::move(call), deps); });
}

}  // namespace hearth
