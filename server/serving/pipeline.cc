#include "server/serving/pipeline.h"

#include <optional>
#include <utility>

#include "server/base/check.h"
#include "server/base/log.h"
#include "server/base/server_exiting.h"
#include "server/serving/version_routes.h"

namespace hearth {
namespace {

// Among so many requests in progress, some have ended by then.
constexpr std::chrono::milliseconds kSoon{100};

absl::Status Cancelled() { return absl::CancelledError("the request was cancelled"); }

// Tells the manager when a waiting request is cancelled. Shared by the thread that asked and the
// callback that waits; whoever lets go last ends the registration. That may happen inside the
// registration's own callback, which std::stop_callback allows.
struct CancelRegistration {
  struct TellManager {
    ModelManager& manager;
    ModelManager::Ticket ticket;
    void operator()() const noexcept { manager.Cancel(ticket); }
  };
  std::optional<std::stop_callback<TellManager>> callback;
};

// The outputs asked for, in that order; all of them if none was named.
absl::StatusOr<TensorList> SelectOutputs(const InferRequest& request, TensorList outputs) {
  if (request.outputs.empty()) return outputs;
  TensorList selected;
  selected.reserve(request.outputs.size());
  for (const std::string& name : request.outputs) {
    NamedTensor* found = nullptr;
    for (NamedTensor& output : outputs) {
      if (output.name == name) found = &output;
    }
    if (found == nullptr) return UnexpectedOutput(request.id, name, request.model);
    selected.push_back(std::move(*found));
  }
  return selected;
}

}  // namespace

// One request on its way. Owned by whoever does the next step; answered exactly once, by its
// destructor if nobody else did (a task that an executor dropped).
class InferCall final : public RunQueue::Runnable {
 public:
  InferCall(Pipeline& pipeline, InferRequest r, std::stop_token c, InferCallback d)
      : request(std::move(r)),
        cancelled(std::move(c)),
        accepted(pipeline.deps_.clock.Now()),
        pipeline_(pipeline),
        done_(std::move(d)) {
    if (request.received == TimePoint{}) request.received = accepted;
  }

  ~InferCall() override {
    if (done_) Fail(ServerExiting());
    pipeline_.in_flight_.fetch_sub(1);  // last: the pipeline may go once nothing is in flight
  }

  void Run(std::unique_ptr<Runnable> self) override {
    self.release();
    pipeline_.Run(Pipeline::CallPtr(this));
  }

  // Lets go of the model and of the right to run it, so that neither waits for the answer to be
  // sent.
  void LetGo() {
    handle.Reset();
    slot.Release();
  }

  void Fail(absl::Status status) {
    LetGo();
    HEARTH_CHECK(!status.ok());
    LogAccess(status, pipeline_.deps_.clock.Now() - request.received);
    if (model != nullptr) {
      model->metrics.RequestFailed(status.code(), pipeline_.deps_.clock.Now() - request.received);
    } else {
      pipeline_.deps_.metrics.RequestRefused(status.code());
    }
    std::exchange(done_, nullptr)(std::move(status));
  }

  void Succeed(InferResponse response, const RequestTimes& times, std::int64_t batch_size) {
    request.inputs.clear();  // their memory serves the next request while this answer is sent
    model->metrics.RequestSucceeded(times, batch_size, pipeline_.deps_.clock.WallNow());
    LogAccess(absl::OkStatus(), times.total);
    std::exchange(done_, nullptr)(std::move(response));
  }

  absl::Status CheckStillWanted(TimePoint now) const {
    if (cancelled.stop_requested()) return Cancelled();
    if (request.deadline <= now) return absl::DeadlineExceededError("Request timeout expired");
    return absl::OkStatus();
  }

  InferRequest request;
  const std::stop_token cancelled;
  const TimePoint accepted;
  ServedModel* model = nullptr;  // once resolved
  ModelHandle handle;            // from Acquire to the end of the run
  std::optional<CacheResult> cache;  // once acquired
  Duration waited_for_load{};

 private:
  void LogAccess(const absl::Status& status, Duration total) const {
    if (!pipeline_.access_log_.load(std::memory_order_relaxed)) return;
    log::Info("request",
              {{"model", request.model},
               {"version", model != nullptr ? std::to_string(model->id.version) : request.version},
               {"id", request.id},
               {"code", absl::StatusCodeToString(status.code())},
               {"cache", cache ? ToString(*cache) : "none"},
               {"ms", ToMilliseconds(total)},
               {"reason", FromAbsl(status.message())}});
  }

  Pipeline& pipeline_;
  InferCallback done_;
};

Pipeline::Pipeline(InferService::Deps deps, InferService::Options options)
    : deps_(deps), models_(deps.metrics, deps.compute) {
  SetOptions(options);
}

void Pipeline::SetOptions(const InferService::Options& options) {
  max_tensors_ = options.limits.max_tensors;
  max_dims_ = options.limits.max_dims;
  max_in_flight_ = options.max_in_flight;
  access_log_ = options.access_log;
}

void Pipeline::Start(InferRequest request, std::stop_token cancelled, InferCallback done) {
  // Counted before the look at stopping_: whoever stops and then sees nothing in flight can be
  // sure.
  const std::int64_t in_flight = in_flight_.fetch_add(1) + 1;
  auto call =
      std::make_unique<InferCall>(*this, std::move(request), std::move(cancelled), std::move(done));
  if (absl::Status status = CheckAccepting(in_flight); !status.ok()) return call->Fail(status);
  absl::StatusOr<ModelId> id = Resolve(call->request);
  if (!id.ok()) return call->Fail(std::move(id).status());
  call->model = &models_.Get(*id);
  Acquire(std::move(call));
}

absl::Status Pipeline::CheckAccepting(std::int64_t in_flight) const {
  if (stopping_.load()) return ServerExiting();
  const std::int64_t most = max_in_flight_.load(std::memory_order_relaxed);
  if (most > 0 && in_flight > most) {
    return WithRetryAfter(absl::UnavailableError("Exceeds maximum queue size"), kSoon);
  }
  return absl::OkStatus();
}

absl::StatusOr<ModelId> Pipeline::Resolve(const InferRequest& request) const {
  return deps_.versions.Resolve(request.model, request.version);
}

void Pipeline::Acquire(CallPtr call) {
  call->handle = deps_.manager.TryAcquire(call->model->id);
  if (!call->handle) {
    // What it was to go on with may have left in between; another version answers then.
    absl::StatusOr<ModelId> id = Resolve(call->request);
    if (!id.ok()) return call->Fail(std::move(id).status());
    call->model = &models_.Get(*id);
    return AcquireCold(std::move(call));
  }
  call->cache = CacheResult::kHit;
  Admit(std::move(call));
}

void Pipeline::AcquireCold(CallPtr call) {
  const auto registration = std::make_shared<CancelRegistration>();
  const std::stop_token cancelled = call->cancelled;
  const ModelId& id = call->model->id;
  const Deadline deadline = call->request.deadline;
  const ModelManager::Ticket ticket = deps_.manager.Acquire(
      id, deadline,
      [this, call = std::move(call),
       registration](absl::StatusOr<ModelManager::Acquired> acquired) mutable {
        if (!acquired.ok()) return call->Fail(std::move(acquired).status());
        call->handle = std::move(acquired->handle);
        call->cache = acquired->cache;
        call->waited_for_load = acquired->waited;
        // The wait may have been long: unloaded or taken out of the repository since?
        const ModelId& wanted = call->model->id;
        if (auto still = deps_.catalog.Resolve(wanted.name, wanted.version); !still.ok()) {
          call->handle.Reset();
          deps_.manager.Unload(wanted, [] {});
          return call->Fail(std::move(still).status());
        }
        Admit(std::move(call));
      });
  if (ticket != 0 && cancelled.stop_possible()) {
    registration->callback.emplace(cancelled,
                                   CancelRegistration::TellManager{deps_.manager, ticket});
  }
}

void Pipeline::Admit(CallPtr call) {
  const InferRequest& request = call->request;
  const Model& model = *call->handle;
  if (request.keep_alive) deps_.manager.KeepAlive(call->handle, *request.keep_alive);
  const RequestLimits limits{.max_tensors = max_tensors_.load(std::memory_order_relaxed),
                             .max_dims = max_dims_.load(std::memory_order_relaxed)};
  if (absl::Status status =
          ValidateRequest({request.model, request.id, request.inputs, request.outputs},
                          model.signature(), limits);
      !status.ok()) {
    return call->Fail(std::move(status));
  }
  RunQueue& runs = call->model->runs;
  if (call->model->IsNewLoad(model)) {
    const auto options = deps_.catalog.Options(call->model->id.name);
    runs.SetLimit(options == nullptr ? ModelOptions{}.instances : options->instances);
    call->model->SetSeen(model);
  }
  runs.Post(std::move(call));
}

void Pipeline::Run(CallPtr call) {
  const Clock& clock = deps_.clock;
  const TimePoint started = clock.Now();
  if (absl::Status status = call->CheckStillWanted(started); !status.ok()) {
    return call->Fail(std::move(status));
  }
  const InferRequest& request = call->request;
  const Signature& signature = call->handle->signature();
  const std::int64_t batch_size = BatchSize(request.inputs, signature);
  absl::StatusOr<TensorList> outputs = call->handle->Run(request.inputs, nullptr);
  if (outputs.ok()) {
    absl::Status kept = CheckDeclaredOutputs(
        {request.model, request.id, request.inputs, request.outputs}, signature, *outputs);
    if (!kept.ok()) outputs = std::move(kept);
  }
  const TimePoint ran = clock.Now();
  call->LetGo();
  if (absl::IsDataLoss(outputs.status())) {
    // The file went away under the mapping: what is resident is of no use to anybody. The next
    // request loads whatever is there by then.
    deps_.manager.Unload(call->model->id, [] {}, EvictionReason::kDataLoss);
  }
  if (outputs.ok()) outputs = SelectOutputs(call->request, *std::move(outputs));
  if (!outputs.ok()) return call->Fail(std::move(outputs).status());

  const TimePoint now = clock.Now();
  const RequestTimes times{.total = now - call->request.received,
                           .queue = started - call->accepted,
                           .input = call->accepted - call->request.received,
                           .infer = ran - started,
                           .output = now - ran};
  call->Succeed({call->model->id, *std::move(outputs), *call->cache, call->waited_for_load}, times,
                batch_size);
}

}  // namespace hearth
