// Points in time as protobuf has them.
#pragma once

#include <chrono>
#include <cstdint>

#include "google/protobuf/timestamp.pb.h"
#include "server/base/clock.h"

namespace hearth {

inline void FillTime(WallTime time, google::protobuf::Timestamp& wire) {
  const auto since = time.time_since_epoch();
  const auto seconds = std::chrono::floor<std::chrono::seconds>(since);
  wire.set_seconds(seconds.count());
  wire.set_nanos(static_cast<std::int32_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(since - seconds).count()));
}

}  // namespace hearth
