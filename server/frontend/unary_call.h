// One unary RPC in gRPC's CompletionQueue API, as a function: request in, `Finish` later, from any
// thread. Who may not call it is refused before that.
//
//   ServeUnary(loop, "inference.GRPCInferenceService/ModelReady", service, &AsyncService::RequestModelReady, 4,
//              [](UnaryCall<ModelReadyRequest, ModelReadyResponse> call) {
//                call.response().set_ready(true);
//                std::move(call).Finish(absl::OkStatus());
//              });
#pragma once

#include <grpcpp/grpcpp.h>

#include <cstddef>
#include <functional>
#include <memory>
#include <stop_token>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "server/base/check.h"
#include "server/base/clock.h"
#include "server/frontend/call_deadline.h"
#include "server/frontend/event_loop.h"
#include "server/frontend/grpc_status.h"
#include "server/frontend/rpc_guard.h"

namespace hearth {

namespace unary_internal {
template <typename Request, typename Response>
class CallState;
}  // namespace unary_internal

// The duty to answer one request. Move-only; dropped unanswered it answers INTERNAL, so that no
// client waits for a reply that cannot come. Thread-compatible.
template <typename Request, typename Response>
class UnaryCall {
  using State = unary_internal::CallState<Request, Response>;

 public:
  explicit UnaryCall(State* state) : state_(state) {}
  UnaryCall(UnaryCall&& other) noexcept : state_(std::exchange(other.state_, nullptr)) {}
  UnaryCall& operator=(UnaryCall&&) = delete;
  ~UnaryCall() {
    if (state_) std::move(*this).Finish(absl::InternalError("the request was dropped unanswered"));
  }

  // Both are gone once the call is finished.
  Request& request() { return state_->request; }
  Response& response() { return state_->response; }

  // Requested when the client went away or its deadline passed. May be kept after the call is
  // finished.
  std::stop_token cancelled() const { return state_->stop.get_token(); }

  // The client's deadline on `clock`.
  Deadline deadline(const Clock& clock) const { return DeadlineOf(state_->context, clock); }

  const grpc::ServerContext& context() const { return state_->context; }

  // Goes with the answer, before it. `key` in lower case.
  void AddHeader(const std::string& key, const std::string& value) {
    state_->context.AddInitialMetadata(key, value);
  }
  // May this client do what is `group`'s, too?
  absl::Status Check(AccessGroup group) const { return state_->Check(group); }

  // Goes with the answer, after it. `key` in lower case.
  void AddTrailer(const std::string& key, const std::string& value) {
    state_->context.AddTrailingMetadata(key, value);
  }

  // Sends `response()` or the error. Nothing of this call may be used afterwards.
  void Finish(const absl::Status& status) && { std::exchange(state_, nullptr)->Finish(status); }

 private:
  State* state_;
};

namespace unary_internal {

// Bytes; 0 of a message that is not bytes yet, whose size nobody knows.
template <typename Message>
std::size_t SizeOf(const Message& message) {
  if constexpr (std::is_same_v<Message, grpc::ByteBuffer>) return message.Length();
  return 0;
}

// How calls of one method on one loop come into being.
template <typename Request, typename Response>
struct Method {
  std::function<void(grpc::ServerContext*, Request*, grpc::ServerAsyncResponseWriter<Response>*,
                     void*)>
      arm;
  std::function<void(UnaryCall<Request, Response>)> handler;
  EventLoop& loop;
  Rpc rpc;
};

// Owns itself. Born waiting for a client; when one comes it puts a successor in its place. gRPC
// then reports two events, "answer sent" and "call over (or cancelled)", and after both of them, in
// either order, nothing refers to it. A call that no client came for gets neither.
template <typename Request, typename Response>
class CallState final : private Outgoing {
 public:
  using MethodPtr = std::shared_ptr<const Method<Request, Response>>;

  static void Arm(MethodPtr method) { new CallState(std::move(method)); }

  // Any thread. Once the loop has taken the answer its thread may already be deleting this.
  void Finish(const absl::Status& status) {
    status_ = status;
    if (size() > kLargeMessage || !method_->loop.TakeAnswer(*this)) Send();
  }

  absl::Status Check(AccessGroup group) const { return method_->loop.guard().Check({method_->rpc.name, group}, context); }

  grpc::ServerContext context;
  Request request;
  Response response;
  std::stop_source stop;

 private:
  explicit CallState(MethodPtr method) : method_(std::move(method)) {
    method_->loop.calls().Add();
    context.AsyncNotifyWhenDone(&over_);
    method_->arm(&context, &request, &writer_, &arrived_);
  }
  ~CallState() { method_->loop.calls().Remove(); }

  std::size_t size() const { return status_.ok() ? SizeOf(response) : 0; }
  void Send() override {
    method_->loop.sending().Begin(sending_, size());
    // The last statement touches nothing after the operation has started, for the same reason.
    if (status_.ok()) {
      writer_.Finish(response, grpc::Status::OK, &finished_);
    } else {
      writer_.FinishWithError(ToGrpcStatus(status_, context), &finished_);
    }
  }

  void OnArrived(bool ok) {
    if (!ok) {  // the server is shutting down
      delete this;
      return;
    }
    Arm(method_);
    method_->loop.BeginCall();
    if (const absl::Status refusal = method_->loop.guard().Check(method_->rpc, context); !refusal.ok()) {
      return Finish(refusal);
    }
    if (SizeOf(request) > kLargeMessage) method_->loop.EndBurst();
    method_->handler(UnaryCall<Request, Response>(this));
  }
  void OnOver(bool) {
    if (context.IsCancelled()) stop.request_stop();
    Release();
  }
  void OnFinished(bool) {
    method_->loop.sending().End(sending_);
    Release();
  }
  void Release() {
    if (--events_left_ > 0) return;
    method_->loop.EndCall();
    delete this;
  }

  const MethodPtr method_;
  grpc::ServerAsyncResponseWriter<Response> writer_{&context};
  MemberEvent<CallState> arrived_{this, &CallState::OnArrived};
  MemberEvent<CallState> over_{this, &CallState::OnOver};
  MemberEvent<CallState> finished_{this, &CallState::OnFinished};
  absl::Status status_;  // what it is answered with
  SendWatch::Answer sending_{context};
  int events_left_ = 2;  // confined to the loop's thread
};

}  // namespace unary_internal

// Serves `request_method` of `service`, which is the RPC `name` (see Rpc), on `loop`: `handler` runs on the loop's thread and
// must not block. `armed`: how many clients may arrive at once before the loop's thread comes round.
// `service` and `name` outlive the loop. REQUIRES: the server has been started.
template <typename Service, typename Request, typename Response>
void ServeUnary(EventLoop& loop, std::string_view name, std::type_identity_t<Service>& service,
                void (Service::*request_method)(grpc::ServerContext*, Request*,
                                                grpc::ServerAsyncResponseWriter<Response>*,
                                                grpc::CompletionQueue*,
                                                grpc::ServerCompletionQueue*, void*),
                int armed,
                std::type_identity_t<std::function<void(UnaryCall<Request, Response>)>> handler) {
  auto arm = [&service, request_method, queue = loop.queue()](
                 grpc::ServerContext* context, Request* request,
                 grpc::ServerAsyncResponseWriter<Response>* writer, void* tag) {
    (service.*request_method)(context, request, writer, queue, queue, tag);
  };
  using Method = unary_internal::Method<Request, Response>;
  const std::shared_ptr<const Method> method(new Method{std::move(arm), std::move(handler), loop, FindRpc(name)});
  for (int i = 0; i < armed; ++i) unary_internal::CallState<Request, Response>::Arm(method);
}

}  // namespace hearth
