// The entrance for inference. The way of one request is pipeline.h:
// resolve -> acquire -> validate -> run on the compute pool -> answer.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>

#include "server/base/clock.h"
#include "server/base/executor.h"
#include "server/base/status.h"
#include "server/base/timer.h"
#include "server/metrics/metrics.h"
#include "server/residency/model_manager.h"
#include "server/serving/infer.h"
#include "server/serving/validate.h"
#include "server/serving/request_span.h"
#include "server/serving/response_cache.h"
#include "server/serving/run_scheduler.h"
#include "server/storage/catalog.h"
#include "server/tensor/buffer_pool.h"

namespace hearth {

class Pipeline;
class VersionRoutes;

// The one entrance from every front end. Thread-safe. Outlived by what Deps refers to. REQUIRES,
// when destroyed: nothing is in flight (drain, or shut the manager and the compute executor down
// first: both answer what they drop).
class InferService {
 public:
  struct Deps {
    const Catalog& catalog;
    ModelManager& manager;
    Executor& compute;
    Timer& timer;
    const Clock& clock;
    Metrics& metrics;
    const VersionRoutes& versions;
    BufferPool& buffers;          // for batches
    Executor* reserve = nullptr;  // RunScheduler::Deps
    Executor* answers = nullptr;  // sends those of a batch; null: the thread that ran it does
    SpanSink* spans = nullptr;    // null: nobody collects traces
    int intra_op_threads = 1;     // RunScheduler::Deps::threads
  };
  struct Options {
    RequestLimits limits;
    // Requests accepted and not yet answered, of all models together; more are refused: UNAVAILABLE
    // "Exceeds maximum queue size". 0: no limit.
    std::int64_t max_in_flight = 0;
    bool access_log = false;  // one line per request
    std::uint64_t response_cache_bytes = 0;  // for models whose options have it; 0: none
  };
  InferService(Deps deps, Options options);
  explicit InferService(Deps deps) : InferService(deps, Options()) {}
  ~InferService();

  // Calls `done` exactly once: inline for a refusal or an answer of the response cache, else on a compute, load or timer
  // thread, or the one for answers. Never blocks. A request whose `cancelled` is requested while it waits or queues is answered CANCELLED
  // and never run; once running it is finished, and answered so as well. The same holds for one whose deadline passes,
  // DEADLINE_EXCEEDED, but that once running it is answered if nobody has cancelled it for that.
  // The model is let go of before `done` is called.
  void Infer(InferRequest request, std::stop_token cancelled, InferCallback done);

  // Tells of one that a front end refused, because it could not be read: what there is of it, and why. It counts, and has
  // its line in the access log, as one that Infer refuses.
  void TellRefused(const InferRequest& request, const absl::Status& why) const;

  // For requests that come from now on.
  void SetOptions(const Options& options);

  // Requests accepted and not yet answered.
  std::int64_t in_flight() const;

  // Of those, the ones that wait for a compute thread, and the runs.
  RunScheduler::Counts runs() const;
  std::vector<Metrics::Sample> SequenceSamples() const;
  ResponseCache::Counts responses() const;

  // Refuse everything from now on: UNAVAILABLE "Server exiting".
  void StopAccepting();

 private:
  const std::unique_ptr<Pipeline> pipeline_;
};

// "" -> none; "3" -> 3; otherwise INVALID_ARGUMENT "failed to get model version from specified
// version string 'x' (details: ...), version should be an integral value > 0".
absl::StatusOr<std::optional<std::int64_t>> ParseVersion(const std::string& text);

}  // namespace hearth
