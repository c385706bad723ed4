#include "server/frontend/grpc_status.h"

#include <cstddef>
#include <string>

namespace hearth {
namespace {

constexpr std::size_t kMaxEncodedMessage = 6000;
constexpr std::string_view kCutMark = " [cut]";

// How much of `message` fits: gRPC percent-encodes every byte that is not printable ASCII.
std::size_t FittingPrefix(std::string_view message) {
  std::size_t encoded = 0;
  for (std::size_t i = 0; i < message.size(); ++i) {
    const char c = message[i];
    encoded += (c >= ' ' && c <= '~' && c != '%') ? 1 : 3;
    if (encoded > kMaxEncodedMessage) {
      // Not in the middle of a UTF-8 sequence.
      while (i > 0 && (static_cast<unsigned char>(message[i]) & 0xC0) == 0x80) --i;
      return i;
    }
  }
  return message.size();
}

}  // namespace

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const std::string_view message = FromAbsl(status.message());
  const std::size_t fitting = FittingPrefix(message);
  std::string text(message.substr(0, fitting));
  if (fitting < message.size()) text += kCutMark;
  return {static_cast<grpc::StatusCode>(status.code()), text};
}

grpc::Status ToGrpcStatus(const absl::Status& status, grpc::ServerContext& context) {
  if (const auto wait = RetryAfter(status)) {
    context.AddTrailingMetadata("grpc-retry-pushback-ms", std::to_string(wait->count()));
  }
  return ToGrpcStatus(status);
}

}  // namespace hearth
