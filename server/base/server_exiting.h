// The one refusal of everybody who comes, or still waits, while the server stops.
#pragma once

#include <chrono>

#include "server/base/status.h"

namespace hearth {

// UNAVAILABLE, with a hint: by then another replica should be found in this one's place.
[[nodiscard]] inline absl::Status ServerExiting() {
  return WithRetryAfter(absl::UnavailableError("Server exiting"), std::chrono::seconds(1));
}

}  // namespace hearth
