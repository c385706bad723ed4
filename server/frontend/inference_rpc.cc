#include "server/frontend/inference_rpc.h"

#include <string>
#include <utility>

#include "server/frontend/convert.h"
#include "server/frontend/unary_call.h"

namespace hearth {
namespace {

using AsyncService = inference::GRPCInferenceService::AsyncService;
using InferCall = UnaryCall<inference::ModelInferRequest, inference::ModelInferResponse>;

// A burst of new clients finds this many calls waiting for it, per loop.
constexpr int kArmed = 64;

void Infer(InferCall call, const InferenceRpcDeps& deps) {
  // Moved out: its bytes are freed when this returns, not when a load that the request may have to
  // wait for is done.
  const inference::ModelInferRequest wire = std::move(call.request());
  const TimePoint now = deps.clock.Now();
  auto request = ToInferRequest(wire, deps.buffers, call.deadline(deps.clock), now);
  if (!request.ok()) {
    std::move(call).Finish(request.status());
    return;
  }
  const std::stop_token cancelled = call.cancelled();
  deps.infer.Infer(
      *std::move(request), cancelled,
      [id = wire.id(), call = std::move(call)](absl::StatusOr<InferResponse> answer) mutable {
        absl::Status status = answer.status();
        if (status.ok()) status = ToWire(*answer, id, call.response());
        std::move(call).Finish(status);
      });
}

}  // namespace

void ServeInference(EventLoop& loop, AsyncService& service, InferenceRpcDeps deps) {
  ServeUnary(loop, service, &AsyncService::RequestModelInfer, kArmed,
             [deps](InferCall call) { Infer(std::move(call), deps); });
}

}  // namespace hearth
