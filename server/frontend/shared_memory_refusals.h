// What gRPC and HTTP say alike of shared memory that is not there.
#pragma once

#include <string>
#include <string_view>

#include "server/base/status.h"
#include "server/base/strings.h"

namespace hearth {

// `kind`: "system" or "cuda".
inline absl::Status RegionNotFound(std::string_view kind, const std::string& name) {
  return absl::NotFoundError(StrCat("Unable to find ", kind, " shared memory region: '", name, "'"));
}

inline absl::Status NoCudaMemory() {
  return absl::UnimplementedError(
      "CUDA shared memory is not supported by this server: use system shared memory, or send tensors in the message");
}

}  // namespace hearth
