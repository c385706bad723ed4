// The two messages of ModelInfer as gRPC hands them over and takes them: tensors are copied once on their way in, and
// not at all on their way out.
#pragma once

#include <grpcpp/support/byte_buffer.h>

#include <vector>

#include "inference.pb.h"
#include "server/base/status.h"
#include "server/tensor/buffer_pool.h"
#include "server/tensor/tensor.h"

namespace hearth {

// A ModelInferRequest, its raw tensors apart.
struct InferMessage {
  inference::ModelInferRequest head;     // without raw_input_contents
  std::vector<BufferPool::Buffer> raw;   // raw_input_contents, in order, each in memory of its own
  absl::Status raw_status;               // RESOURCE_EXHAUSTED: there was no memory for them, and `raw` is empty
};

// Takes `bytes` apart and empties it. Everything but the raw tensors is protobuf's to judge; what it would refuse as a
// whole message is refused. INTERNAL, as gRPC has it for a request that cannot be parsed. RESOURCE_EXHAUSTED: no memory for
// anything; where there is none for tensors only, there is a message that says so.
absl::StatusOr<InferMessage> TakeInferRequest(grpc::ByteBuffer& bytes, BufferPool& pool);

// A message with `head` and the bytes of `outputs` as its raw_output_contents. Those of large tensors are not copied:
// the message holds their owners until it has been sent.
// REQUIRES: `head` has no raw_output_contents, and all of it fits into a message (2 GiB).
grpc::ByteBuffer MakeInferResponse(const inference::ModelInferResponse& head, const TensorList& outputs);

// A ModelStreamInferResponse around `response`, the bytes of a ModelInferResponse, which stay where they are.
// REQUIRES: it fits into a message.
grpc::ByteBuffer WrapForStream(const grpc::ByteBuffer& response);

}  // namespace hearth
