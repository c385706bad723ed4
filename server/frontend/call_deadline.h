// A client's deadline on a clock of ours.
#pragma once

#include <grpcpp/grpcpp.h>

#include <chrono>

#include "server/base/clock.h"

namespace hearth {

inline Deadline DeadlineOf(const grpc::ServerContext& context, const Clock& clock) {
  const auto at = context.deadline();
  if (at == std::chrono::system_clock::time_point::max()) return kNoDeadline;
  const auto left = at - std::chrono::system_clock::now();
  // Anything beyond a century is "for ever", and would overflow below.
  if (left > std::chrono::hours(24 * 36500)) return kNoDeadline;
  return clock.Now() + std::chrono::duration_cast<Duration>(left);
}

}  // namespace hearth
