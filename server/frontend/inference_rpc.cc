#include "server/frontend/inference_rpc.h"

#include <stop_token>
#include <utility>

#include "server/frontend/unary_call.h"

namespace hearth {
namespace {

using InferCall = UnaryCall<grpc::ByteBuffer, grpc::ByteBuffer>;

// A burst of new clients finds this many calls waiting for it, per loop.
constexpr int kArmed = 64;

void Infer(InferCall call, const InferenceRpcDeps& deps) {
  const InferCaller caller = CallerOf(call.context(), deps);
  std::stop_token cancelled = call.cancelled();
  if (caller.trace) call.AddHeader("traceparent", ToTraceParent(caller.trace->span));
  grpc::ByteBuffer& request = call.request();  // there until the call is finished
  Exchange(request, InferRpc::kUnary, caller, std::move(cancelled), deps,
           [call = std::move(call)](InferAnswer answer) mutable {
             if (answer.bytes.ok()) call.response() = *std::move(answer.bytes);
             std::move(call).Finish(answer.bytes.status());
           });
}

}  // namespace

void ServeInference(EventLoop& loop, InferenceAsyncService& service, InferenceRpcDeps deps) {
  ServeUnary(loop, "inference.GRPCInferenceService/ModelInfer", service, &InferenceAsyncService::RequestModelInfer, kArmed,
             [deps](InferCall call) { Infer(std::move(call), deps); });
}

}  // namespace hearth
