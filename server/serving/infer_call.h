// One request on its way through the pipeline.
#pragma once

#include <memory>
#include <optional>
#include <stop_token>
#include <string_view>
#include <vector>

#include "server/base/clock.h"
#include "server/residency/model_handle.h"
#include "server/serving/infer.h"
#include "server/serving/request_span.h"
#include "server/serving/response_cache.h"
#include "server/serving/run_job.h"
#include "server/serving/served_models.h"

namespace hearth {

class Pipeline;
struct Sequence;

// Owned by whoever does the next step; answered exactly once, by its destructor if nobody else did (a task that an
// executor dropped). Thread-compatible.
class InferCall final : public RunJob {
 public:
  using Ptr = std::unique_ptr<InferCall>;

  InferCall(Pipeline& pipeline, InferRequest r, std::stop_token c, InferCallback d);
  ~InferCall() override;

  // What the call may still be waiting for: OK, CANCELLED or DEADLINE_EXCEEDED.
  absl::Status StillWanted(TimePoint now) const override;
  bool MayJoin(const RunJob& other, const BatchingOptions& batching) const override;
  void Run(std::vector<RunJob::Ptr> batch, RunSlot slot) override;
  void Refuse(absl::Status why) override { Fail(std::move(why)); }

  // Answers, once, and lets go of the model and of the sequence's turn first.
  void Fail(absl::Status status);
  // `run_rows`: see ModelMetrics::RequestSucceeded.
  // With an answer that was kept, found in `looked`.
  void SucceedCached(InferResponse response, Duration looked);
  void Succeed(InferResponse response, const RequestTimes& times, std::int64_t run_rows);

  // REQUIRES: acquired, not answered.
  const Model& loaded() const;

  bool answered() const { return done_ == nullptr; }

  InferRequest request;
  const std::stop_token cancelled;
  const TimePoint accepted;
  ServedModel* model = nullptr;  // once resolved
  ModelHandle handle;            // from Acquire to the end of the run; null where the sequence has it
  bool batched = false;          // what it takes and gives has a batch dimension; once acquired
  std::shared_ptr<Sequence> sequence;  // whose turn it has
  std::optional<CacheResult> cache;  // once acquired
  Duration waited_for_load{};
  std::optional<ResponseCache::Key> key;  // its answer is to be kept
  bool kept = false;                      // it is answered with one that was
  std::optional<TimePoint> queued;        // of one that is traced
  // The run, once there was one.
  struct Ran {
    TimePoint started{};
    Duration joining{};  // it with others
    Duration infer{};
    TimePoint ended{};
    std::int64_t rows = 0;  // of all that it answers
  };
  std::optional<Ran> ran;

 private:
  void Tell(const absl::Status& status, Duration total) const;
  RequestSpan Span(const absl::Status& status, Duration total) const;

  Pipeline& pipeline_;
  InferCallback done_;
};

// The line of the access log.
void LogAccess(const InferRequest& request, std::string_view version, std::string_view cache,
               std::string_view response_cache, const absl::Status& status, Duration total);

}  // namespace hearth
