// The body of an inference over HTTP: whatever it is, it is read or refused, what is read of a tensor is never more than
// its limits, and the conversion that follows neither crashes nor reads beyond it. The first two bytes say how much is JSON.
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <string_view>

#include "server/frontend/convert.h"
#include "server/frontend/rest_infer.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  std::optional<std::size_t> json = static_cast<std::size_t>(data[0]) * 256 + data[1];
  if (*json == 0) json.reset();
  const std::string_view body(reinterpret_cast<const char*>(data) + 2, size - 2);
  hearth::BufferPool pool(1 << 20);
  const auto request = hearth::ReadInferRequest(body, json, pool);
  if (!request.ok()) return 0;
  std::size_t bytes = 0;
  for (const auto& raw : request->message.raw) bytes += raw.bytes.size();
  if (bytes > 8 * body.size()) std::abort();  // "1," is a FP64
  if (request->binary.asked.size() != static_cast<std::size_t>(request->message.head.outputs_size())) std::abort();
  (void)hearth::ToInferRequest(request->message, pool, hearth::kNoDeadline, hearth::TimePoint{});
  return 0;
}
