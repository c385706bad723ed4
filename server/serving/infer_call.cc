#include "server/serving/infer_call.h"

#include <algorithm>
#include <utility>

#include "server/base/check.h"
#include "server/base/log.h"
#include "server/base/server_exiting.h"
#include "server/serving/batch.h"
#include "server/serving/pipeline.h"
#include "server/serving/sequences.h"

namespace hearth {
namespace {

constexpr std::size_t kLoggedBytes = 256;  // of what clients choose
constexpr std::size_t kLoggedReason = 1024;  // which may quote some of that

}  // namespace

InferCall::InferCall(Pipeline& pipeline, InferRequest r, std::stop_token c, InferCallback d)
    : request(std::move(r)),
      cancelled(std::move(c)),
      accepted(pipeline.deps_.clock.Now()),
      pipeline_(pipeline),
      done_(std::move(d)) {
  if (request.received == TimePoint{}) request.received = accepted;
}

InferCall::~InferCall() {
  if (done_) {
    if (sequence != nullptr) pipeline_.LeaveSequence(*this, Sequences::StateIs::kLost);
    Fail(ServerExiting());
  }
  pipeline_.in_flight_.fetch_sub(1);  // last: the pipeline may go once nothing is in flight
}

absl::Status InferCall::StillWanted(TimePoint now) const {
  if (request.deadline <= now) return absl::DeadlineExceededError("Request timeout expired");  // gRPC cancels it, too
  if (cancelled.stop_requested()) return absl::CancelledError("the request was cancelled");
  return absl::OkStatus();
}

const Model& InferCall::loaded() const { return sequence != nullptr && !handle ? *sequence->handle : *handle; }

bool InferCall::MayJoin(const RunJob& other, const BatchingOptions& batching) const {
  const auto& call = static_cast<const InferCall&>(other);
  if (sequence != nullptr || call.sequence != nullptr) return false;
  return &*handle == &*call.handle && hearth::MayJoin(request.inputs, call.request.inputs, batching.pad);
}

void InferCall::Run(std::vector<RunJob::Ptr> batch, RunSlot slot) {
  std::vector<Ptr> calls;
  calls.reserve(batch.size());
  for (RunJob::Ptr& job : batch) calls.emplace_back(static_cast<InferCall*>(job.release()));
  pipeline_.Run(std::move(calls), std::move(slot));
}

void InferCall::Fail(absl::Status status) {
  handle.Reset();
  if (sequence != nullptr) pipeline_.LeaveSequence(*this, Sequences::StateIs::kBefore);  // it was not run
  HEARTH_CHECK(!status.ok());
  const Duration total = pipeline_.deps_.clock.Now() - request.received;
  Tell(status, total);
  if (model != nullptr) {
    model->metrics.RequestFailed(status.code(), total);
  } else {
    pipeline_.deps_.metrics.RequestRefused(status.code());
  }
  std::exchange(done_, nullptr)(std::move(status));
}

void InferCall::Succeed(InferResponse response, const RequestTimes& times, std::int64_t run_rows) {
  request.inputs.clear();  // their memory serves the next request while this answer is sent
  model->metrics.RequestSucceeded(times, rows, pipeline_.deps_.clock.WallNow(), run_rows);
  Tell(absl::OkStatus(), times.total);
  std::exchange(done_, nullptr)(std::move(response));
}

void InferCall::SucceedCached(InferResponse response, Duration looked) {
  handle.Reset();
  response.kept = kept = true;
  const Duration total = pipeline_.deps_.clock.Now() - request.received;
  model->metrics.RequestCached(total, looked, rows, pipeline_.deps_.clock.WallNow());
  Tell(absl::OkStatus(), total);
  std::exchange(done_, nullptr)(std::move(response));
}

// Whoever wants to know that it is answered.
void InferCall::Tell(const absl::Status& status, Duration total) const {
  if (pipeline_.access_log_.load(std::memory_order_relaxed)) {
    LogAccess(request, model != nullptr ? std::to_string(model->id.version) : request.version,
              cache ? ToString(*cache) : "none", kept ? "hit" : key ? "miss" : "none", status, total);
  }
  SpanSink* const spans = pipeline_.deps_.spans;
  if (spans != nullptr && request.trace && request.trace->span.sampled) spans->Add(Span(status, total));
}

RequestSpan InferCall::Span(const absl::Status& status, Duration total) const {
  const Clock& clock = pipeline_.deps_.clock;
  RequestSpan span;
  span.trace = *request.trace;
  span.model = request.model;
  if (model != nullptr) span.version = model->id.version;
  span.request_id = request.id;
  span.code = status.code();
  span.message = std::string(FromAbsl(status.message()));
  span.cache = cache;
  span.kept = kept;
  span.begin = clock.WallNow() - std::chrono::duration_cast<WallTime::duration>(clock.Now() - request.received);
  span.total = total;
  const Duration accepted_after = accepted - request.received;
  if (waited_for_load > Duration::zero()) span.load = {accepted_after, waited_for_load};
  if (ran) {
    const Duration started_after = ran->started - request.received;
    const Duration queued_from = accepted_after + waited_for_load;
    span.queue = {queued_from, std::max(started_after - queued_from, Duration::zero())};
    span.compute = {started_after, ran->ended - ran->started};
    span.run_rows = ran->rows;
  } else if (queued) {  // it gave up, or was told to, before a thread had time for it
    const Duration queued_from = *queued - request.received;
    span.queue = {queued_from, std::max(total - queued_from, Duration::zero())};
  }
  return span;
}

void LogAccess(const InferRequest& request, std::string_view version, std::string_view cache,
               std::string_view response_cache, const absl::Status& status, Duration total) {
  log::Info("request",
            {{"model", request.model.substr(0, kLoggedBytes)},
             {"version", version.substr(0, kLoggedBytes)},
             {"id", request.id.substr(0, kLoggedBytes)},
             {"trace", request.trace ? ToHex(request.trace->span.trace) : ""},
             {"code", absl::StatusCodeToString(status.code())},
             {"cache", cache},
             {"response_cache", response_cache},
             {"ms", ToMilliseconds(total)},
             {"reason", FromAbsl(status.message()).substr(0, kLoggedReason)}});
}

}  // namespace hearth
