// What the kernel says about this process: the standard process_* metrics.
#pragma once

#include <vector>

#include "server/metrics/metrics.h"

namespace hearth {

// Reads /proc/self now. What cannot be read is left out. Thread-safe.
std::vector<Metrics::Sample> ReadProcessStats();

}  // namespace hearth
