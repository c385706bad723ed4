// The `keep_alive` hint of a request, as clients write it.
#pragma once

#include <cstdint>
#include <string_view>

#include "server/base/clock.h"
#include "server/base/status.h"

namespace hearth {

// "5m", "0s"; "-1" is kKeepForever. INVALID_ARGUMENT says what may be written.
absl::StatusOr<Duration> ParseKeepAlive(std::string_view text);
// A number counts seconds; any below 0 is kKeepForever.
absl::StatusOr<Duration> KeepAliveSeconds(std::int64_t seconds);

}  // namespace hearth
