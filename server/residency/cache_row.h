// What people see of a model in the cache.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "server/base/clock.h"
#include "server/base/status.h"
#include "server/metrics/metrics.h"
#include "server/model/footprint.h"
#include "server/model/load_report.h"
#include "server/model/signature.h"
#include "server/residency/idle_gaps.h"
#include "server/residency/model_state.h"

namespace hearth {

// One generation of a model: a line of `hearth ps`.
struct CacheRow {
  ModelId id;
  ModelState state = ModelState::kAbsent;
  std::uint64_t pins = 0;          // handles given out and not dropped
  std::uint64_t hits = 0;          // since it was loaded
  std::uint64_t device_bytes = 0;  // charged; loading: the reserved peak
  DeviceNumber device = 0;         // where those are
  std::uint64_t host_bytes = 0;
  std::uint64_t mapped_bytes = 0;  // bytes that models share show up in each one's row
  std::uint64_t window_bytes = 0;  // of those, a window on weights that are larger than the budget
  TimePoint last_used{};
  WallTime loaded_at{};            // ready, draining
  std::uint64_t revision = 0;      // ready, draining, failed: ModelSpec::revision of what was loaded
  bool pinned = false;             // hard pin, of the configuration or asked for: never evicted
  std::size_t waiters = 0;
  LoadPriority priority = LoadPriority::kNormal;  // queued, loading
  TimePoint since{};               // queued, loading: since when it is
  bool hangs = false;              // queued, loading: its load; unloading: its destructor; see LoadWatch
  std::optional<Expectation> expected;  // queued, loading, ready: the use it was loaded ahead of
  LoadReport load_report;          // ready, draining
  absl::Status error;              // failed: why; queued: why it has no room yet; or that its load hangs
  TimePoint retry_at{};            // failed: remembered until then
};

}  // namespace hearth
