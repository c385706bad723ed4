// ModelInfer's request, off the wire: what hearth reads of it is what protobuf reads, however it is cut, and its
// conversion neither crashes nor reads beyond it. The first byte says how it is cut.
#include <google/protobuf/util/message_differencer.h>
#include <grpcpp/support/slice.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "server/frontend/convert.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::size_t step = 1 + data[0];
  std::vector<grpc::Slice> slices;
  for (std::size_t at = 1; at < size; at += step) slices.emplace_back(data + at, std::min(step, size - at));
  grpc::ByteBuffer bytes(slices.data(), slices.size());

  hearth::BufferPool pool(1 << 20);
  const auto message = hearth::TakeInferRequest(bytes, pool);
  inference::ModelInferRequest expected;
  if (message.ok() != expected.ParseFromArray(data + 1, static_cast<int>(size - 1))) std::abort();
  if (!message.ok()) return 0;
  inference::ModelInferRequest whole = message->head;
  for (const auto& raw : message->raw) whole.add_raw_input_contents(raw.bytes.data(), raw.bytes.size());
  // Of one that has a value that is not equal to itself, the text is compared.
  if (!google::protobuf::util::MessageDifferencer::Equals(whole, expected) &&
      whole.DebugString() != expected.DebugString()) {
    std::abort();
  }
  const hearth::SharedMemory memory(/*allowed=*/true);
  hearth::OutputTargets targets;
  (void)hearth::ToInferRequest(*message, pool, memory, hearth::kNoDeadline, hearth::TimePoint{}, targets);
  return 0;
}
