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
  OutputTargets targets;
  auto request = ToInferRequest(*wire, deps.buffers, deps.memory, deadline, now, targets);
  if (!request.ok()) return std::move(done)({std::move(id), request.status()});
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
