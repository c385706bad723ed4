#include "server/frontend/grpc_status.h"

#include <chrono>
#include <cstddef>
#include <string>

#include "google/rpc/retry.pb.h"

namespace hearth {
namespace {

constexpr std::size_t kMaxEncodedMessage = 6000;
constexpr std::string_view kCutMark = " [cut]";

// gRPC percent-encodes every byte that is not printable ASCII.
std::size_t EncodedSize(char c) { return (c >= ' ' && c <= '~' && c != '%') ? 1 : 3; }

// How much of `message` fits.
std::size_t FittingPrefix(std::string_view message) {
  std::size_t encoded = 0;
  for (std::size_t i = 0; i < message.size(); ++i) {
    encoded += EncodedSize(message[i]);
    if (encoded > kMaxEncodedMessage) {
      // Not in the middle of a UTF-8 sequence.
      while (i > 0 && (static_cast<unsigned char>(message[i]) & 0xC0) == 0x80) --i;
      return i;
    }
  }
  return message.size();
}

// The serialised google.rpc.Status that says the same as `status` and when to ask again.
std::string Details(const grpc::Status& status, std::chrono::milliseconds wait) {
  google::rpc::RetryInfo retry;
  const auto seconds = std::chrono::floor<std::chrono::seconds>(wait);
  retry.mutable_retry_delay()->set_seconds(seconds.count());
  retry.mutable_retry_delay()->set_nanos(
      static_cast<int>(std::chrono::duration_cast<std::chrono::nanoseconds>(wait - seconds).count()));
  google::rpc::Status details;
  details.set_code(status.error_code());
  details.set_message(status.error_message());
  details.add_details()->PackFrom(retry);
  return details.SerializeAsString();
}

bool FitTogether(const std::string& message, const std::string& details) {
  std::size_t encoded = details.size() * 4 / 3;  // base64
  for (const char c : message) encoded += EncodedSize(c);
  return encoded <= kMaxEncodedMessage;
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
  const grpc::Status plain = ToGrpcStatus(status);
  const auto wait = RetryAfter(status);
  if (!wait) return plain;
  context.AddTrailingMetadata("grpc-retry-pushback-ms", std::to_string(wait->count()));
  const std::string details = Details(plain, *wait);
  if (!FitTogether(plain.error_message(), details)) return plain;
  return {plain.error_code(), plain.error_message(), details};
}

}  // namespace hearth
