// One request that is ready to run.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "server/base/clock.h"
#include "server/base/status.h"
#include "server/model/model_spec.h"
#include "server/serving/run_slot.h"

namespace hearth {

// Owned by its queue, then by whoever runs it. Destroyed without any of the calls below when the compute threads have
// shut down: whoever owes somebody an answer gives it from the destructor.
class RunJob {
 public:
  using Ptr = std::unique_ptr<RunJob>;

  virtual ~RunJob() = default;

  // OK, or why it is not to be run any more: it comes too late, or was cancelled.
  virtual absl::Status StillWanted(TimePoint now) const = 0;
  // Whether one run may answer both. Asked of jobs of the same queue, in any order; symmetric.
  virtual bool MayJoin(const RunJob& other, const BatchingOptions& batching) const = 0;
  // On a compute thread, called on the first of `batch`. The slot is to be let go of before anybody is answered.
  virtual void Run(std::vector<Ptr> batch, RunSlot slot) = 0;
  // Instead of a run, once; its owner destroys it then. On the timer's thread, or that of whoever posted it.
  virtual void Refuse(absl::Status why) = 0;

  std::int64_t rows = 1;  // of a batch
  int priority = 0;       // 1 goes first; 0, or one that the model does not have: its default
  TimePoint posted{};     // set by the queue
};

}  // namespace hearth
