// How the requests of one model wait for a compute thread, and which of them run together. Plain data, from its options.
#pragma once

#include <cstddef>
#include <cstdint>

#include "server/base/clock.h"
#include "server/model/model_spec.h"

namespace hearth {

struct RunPolicy {
  int limit = 0;                    // runs at the same time; 0: as many as there are compute threads
  std::int64_t max_batch_size = 0;  // what ModelOptions says
  BatchingOptions batching;
  QueueOptions queue;
  int threads = 0;  // processors that a run takes; 0: as many as that of any model that does not say

  bool batches() const { return batching.enabled && max_batch_size > 1; }
};

inline RunPolicy PolicyOf(const ModelOptions& options) {
  return {options.instances, options.max_batch_size, options.batching, options.queue, options.intra_op_threads};
}

}  // namespace hearth
