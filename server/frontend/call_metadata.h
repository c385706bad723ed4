// What a client sent beside its request.
#pragma once

#include <grpcpp/server_context.h>

#include <string_view>

namespace hearth {

// The first value of that key, in lower case; empty: there is none. Good as long as the call.
inline std::string_view MetadataOf(const grpc::ServerContext& context, const char* key) {
  const auto& metadata = context.client_metadata();
  const auto found = metadata.find(key);
  return found == metadata.end() ? std::string_view() : std::string_view(found->second.data(), found->second.size());
}

}  // namespace hearth
