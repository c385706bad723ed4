#include "server/frontend/infer_exchange.h"

#include <utility>

#include "server/frontend/infer_message.h"

namespace hearth {

void Exchange(grpc::ByteBuffer& bytes, InferRpc rpc, Deadline deadline, std::stop_token cancelled,
              const InferenceRpcDeps& deps, InferAnswerCallback done) {
  const TimePoint now = deps.clock.Now();
  const absl::StatusOr<InferMessage> wire = TakeInferRequest(bytes, deps.buffers);
  if (!wire.ok()) return std::move(done)({"", wire.status()});
  std::string id = wire->head.id();
  auto request = ToInferRequest(*wire, deps.buffers, deadline, now);
  if (!request.ok()) return std::move(done)({std::move(id), request.status()});
  deps.infer.Infer(*std::move(request), std::move(cancelled),
                   [rpc, id = std::move(id), done = std::move(done)](absl::StatusOr<InferResponse> response) mutable {
                     if (!response.ok()) return std::move(done)({std::move(id), response.status()});
                     absl::StatusOr<grpc::ByteBuffer> answer = ToWire(*response, id, rpc);
                     std::move(done)({std::move(id), std::move(answer)});
                   });
}

}  // namespace hearth
