#include "server/serving/pipeline.h"

#include <algorithm>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "server/base/check.h"
#include "server/base/log.h"
#include "server/base/server_exiting.h"
#include "server/serving/batch.h"
#include "server/serving/classify.h"
#include "server/serving/version_routes.h"

namespace hearth {
namespace {

// Among so many requests in progress, some have ended by then.
constexpr std::chrono::milliseconds kSoon{100};
constexpr std::size_t kLargeBatch = std::size_t{1} << 20;  // bytes of its outputs

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

// Those of which classes were asked for.
absl::Status ClassifyOutputs(const Catalog& catalog, const InferRequest& request, bool batched, TensorList& outputs) {
  std::shared_ptr<const ModelOptions> options;
  for (std::size_t i = 0; i < request.top_classes.size(); ++i) {
    if (request.top_classes[i] == 0) continue;
    if (options == nullptr) options = catalog.Options(request.model);
    const std::vector<std::string>* names = nullptr;
    if (options != nullptr) {
      const auto found = options->class_names.find(outputs[i].name);
      if (found != options->class_names.end()) names = found->second.names.get();
    }
    HEARTH_RETURN_IF_ERROR(Classify(request.top_classes[i], batched, names, outputs[i]));
  }
  return absl::OkStatus();
}

absl::StatusOr<TensorList> AsAsked(const Catalog& catalog, const InferCall& call, TensorList outputs) {
  HEARTH_ASSIGN_OR_RETURN(TensorList selected, SelectOutputs(call.request, std::move(outputs)));
  HEARTH_RETURN_IF_ERROR(ClassifyOutputs(catalog, call.request, call.batched, selected));
  return selected;
}

// Of a call that still has its model.
absl::StatusOr<TensorList> Checked(const InferCall& call, TensorList outputs) {
  const InferRequest& request = call.request;
  HEARTH_RETURN_IF_ERROR(CheckDeclaredOutputs({request.model, request.id, request.inputs, request.outputs},
                                              call.loaded().signature(), outputs));
  return outputs;
}

void TellUnknownPads(const ModelOptions* options, const Signature& signature, const ModelId& id) {
  if (options == nullptr) return;
  for (const std::string& name : options->batching.pad) {
    const bool known = FindInfo(signature.inputs, name) != nullptr;
    if (!known) log::Warning("batching.pad names no input of the model", {{"model", ToString(id)}, {"name", name}});
  }
}

void TellTooManyThreads(const ModelOptions* options, int processors, const ModelId& id) {
  if (options == nullptr || options->intra_op_threads <= processors) return;
  log::Warning("a model is to have more threads than there are processors for computing, and gets as many as there are",
               {{"model", ToString(id)}, {"intra_op_threads", options->intra_op_threads}, {"processors", processors}});
}

void TellOverdue(const RunScheduler::Overdue& run) {
  log::Warning(run.ended ? "a run that took far longer than others of its model did has ended"
                         : "a run takes far longer than others of its model did; it goes on, and keeps its thread",
               {{"model", ToString(run.model)}, {"seconds", ToSeconds(run.so_far)}, {"typical_seconds", ToSeconds(run.typical)}});
}

}  // namespace

Pipeline::Pipeline(InferService::Deps deps, InferService::Options options)
    : deps_(deps),
      models_(deps.metrics),
      sequences_({deps.catalog, deps.manager, deps.timer, deps.clock}),
      scheduler_({deps.compute, deps.timer, deps.clock, deps.reserve, TellOverdue, deps.intra_op_threads}) {
  SetOptions(options);
}

void Pipeline::SetOptions(const InferService::Options& options) {
  max_tensors_ = options.limits.max_tensors;
  max_dims_ = options.limits.max_dims;
  max_in_flight_ = options.max_in_flight;
  access_log_ = options.access_log;
  responses_.SetCapacity(options.response_cache_bytes);
}

void Pipeline::Start(InferRequest request, std::stop_token cancelled, InferCallback done) {
  // Counted before the look at stopping_: whoever stops and then sees nothing in flight can be
  // sure.
  const std::int64_t in_flight = in_flight_.fetch_add(1) + 1;
  auto call =
      std::make_unique<InferCall>(*this, std::move(request), std::move(cancelled), std::move(done));
  if (!call->request.trace && deps_.spans != nullptr && deps_.spans->Samples()) {
    call->request.trace = RequestTrace{NewTrace(true), std::nullopt};
  }
  if (absl::Status status = CheckAccepting(in_flight); !status.ok()) return call->Fail(status);
  absl::StatusOr<ModelId> id = Resolve(call->request);
  if (!id.ok()) return call->Fail(std::move(id).status());
  call->model = &models_.Get(*id);
  if (call->request.sequence) return EnterSequence(std::move(call));
  Acquire(std::move(call));
}

void Pipeline::TellRefused(const InferRequest& request, const absl::Status& why) const {
  deps_.metrics.RequestRefused(why.code());
  if (access_log_.load(std::memory_order_relaxed)) {
    LogAccess(request, request.version, "none", "none", why, deps_.clock.Now() - request.received);
  }
}

void Pipeline::EnterSequence(CallPtr call) {
  switch (sequences_.Enter(call)) {
    case Sequences::Entered::kLater:
      return;
    case Sequences::Entered::kTooMany:
      return call->Fail(WithRetryAfter(
          absl::UnavailableError(StrCat("model '", call->request.model,
                                        "' has as many sequences as it may; end some, or set sequences.max in its model.yaml")),
          kSoon));
    case Sequences::Entered::kNone:
      // Nobody is to make room for a model that would only refuse.
      if (call->model->remembers.load(std::memory_order_relaxed)) return call->Fail(NoSuchSequence(call->request));
      return Acquire(std::move(call));
    case Sequences::Entered::kNow:
      if (!call->sequence->handle) return Acquire(std::move(call));  // it begins
      return GoOn(std::move(call));
  }
}

void Pipeline::GoOn(CallPtr call) {
  ServedModel* const served = call->sequence->served;
  const bool another = !call->request.version.empty() && call->model != served;
  call->model = served;
  call->cache = CacheResult::kHit;
  if (another) {
    return call->Fail(absl::InvalidArgumentError(
        StrCat("sequence ", call->request.sequence->id, " goes on with version ", served->id.version, " of model '",
               served->id.name, "', which it began with, not '", call->request.version, "'")));
  }
  Admit(std::move(call));
}

absl::Status Pipeline::SettleSequence(InferCall& call) {
  if (!call.handle) return absl::OkStatus();  // it had begun
  const bool remembers = call.handle->stateful();
  if (call.sequence == nullptr) return remembers ? NoSuchSequence(call.request) : absl::OkStatus();
  if (remembers) {
    call.sequence->served = call.model;
    call.sequence->handle = std::move(call.handle);
    return absl::OkStatus();
  }
  for (CallPtr& free : sequences_.Dissolve(call)) Acquire(std::move(free));
  return absl::OkStatus();
}

void Pipeline::LeaveSequence(InferCall& call, Sequences::StateIs state) {
  Sequences::Left left = sequences_.Leave(call, state);
  for (CallPtr& orphan : left.orphans) {
    absl::Status why = NoSuchSequence(orphan->request);
    orphan->Fail(std::move(why));
  }
  if (left.next == nullptr) return;
  // Not here: it may be refused, and the next one, and so on.
  deps_.compute.Post([this, next = std::move(left.next)]() mutable { GoOn(std::move(next)); });
}

absl::Status Pipeline::CheckAccepting(std::int64_t in_flight) const {
  if (stopping_.load()) return ServerExiting();
  const std::int64_t most = max_in_flight_.load(std::memory_order_relaxed);
  if (most > 0 && in_flight > most) {
    return WithRetryAfter(absl::UnavailableError(StrCat("Exceeds maximum queue size: ", most, " requests of all models are in "
                                                        "progress (grpc.max_in_flight)")), kSoon);
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
  if (request.sequence) {
    if (absl::Status settled = SettleSequence(*call); !settled.ok()) return call->Fail(std::move(settled));
  }
  const Model& model = call->loaded();
  if (request.keep_alive) deps_.manager.KeepAlive(call->handle ? call->handle : call->sequence->handle, *request.keep_alive);
  const RequestLimits limits{.max_tensors = max_tensors_.load(std::memory_order_relaxed),
                             .max_dims = max_dims_.load(std::memory_order_relaxed)};
  if (absl::Status status =
          ValidateRequest({request.model, request.id, request.inputs, request.outputs},
                          model.signature(), limits);
      !status.ok()) {
    return call->Fail(std::move(status));
  }
  ServedModel& served = *call->model;
  if (served.IsNewLoad(model)) {
    const auto options = deps_.catalog.Options(served.id.name);
    scheduler_.SetPolicy(served.lane, PolicyOf(options == nullptr ? ModelOptions{} : *options));
    TellUnknownPads(options.get(), model.signature(), served.id);
    TellTooManyThreads(options.get(), scheduler_.processors(), served.id);
    // What was filled up to the length of others is nobody else's answer.
    served.caches_responses = options != nullptr && options->response_cache && options->batching.pad.empty();
    served.remembers = model.stateful();
    served.wants_sequence = options != nullptr && options->sequences.required;
    served.SetSeen(model);
  }
  if (served.wants_sequence.load(std::memory_order_relaxed) && !request.sequence) {
    return call->Fail(absl::InvalidArgumentError(StrCat("inference request to model '", request.model,
                                                        "' must specify a non-zero or non-empty correlation ID (sequence_id)")));
  }
  call->rows = BatchSize(request.inputs, model.signature());
  call->batched = model.signature().max_batch_size > 0;
  call->priority = request.priority;
  if (served.caches_responses.load(std::memory_order_relaxed) && AnswerCached(*call)) return;
  if (request.trace) call->queued = deps_.clock.Now();
  scheduler_.Post(served.lane, std::move(call));
}

void Pipeline::Run(std::vector<CallPtr> calls, RunSlot slot) {
  const TimePoint started = deps_.clock.Now();
  std::erase_if(calls, [&](CallPtr& call) {
    absl::Status status = call->StillWanted(started);
    if (!status.ok()) call->Fail(std::move(status));
    return call->answered();
  });
  if (calls.size() > 1 && RunTogether(calls, slot, started)) return;
  for (CallPtr& call : calls) RunAlone(std::move(call), &call == &calls.back() ? std::move(slot) : RunSlot());
}

// False: nobody was answered, and each has to be run for itself to know whose fault it is.
bool Pipeline::RunTogether(std::vector<CallPtr>& calls, RunSlot& slot, TimePoint started) {
  std::vector<const TensorList*> requests;
  std::vector<std::int64_t> rows;
  for (const CallPtr& call : calls) {
    requests.push_back(&call->request.inputs);
    rows.push_back(call->rows);
  }
  const InferCall& first = *calls.front();
  absl::StatusOr<TensorList> inputs = Join(requests, deps_.buffers);
  if (!inputs.ok()) return false;
  const TimePoint joined = deps_.clock.Now();
  absl::StatusOr<TensorList> outputs = first.handle->Run(*inputs, nullptr);
  const TimePoint ran = deps_.clock.Now();
  if (!outputs.ok()) return false;
  inputs->clear();
  absl::StatusOr<std::vector<TensorList>> split = Split(*outputs, rows);
  if (!split.ok()) {
    log::Warning("requests cannot be batched, and are run one by one from now on; take `batching` out of the model's model.yaml",
                 {{"model", ToString(first.model->id)}, {"reason", FromAbsl(split.status().message())}});
    scheduler_.StopBatching(first.model->lane);
    return false;
  }
  std::size_t bytes = 0;
  for (const NamedTensor& output : *outputs) bytes += output.tensor.data.size();
  outputs->clear();
  std::vector<absl::StatusOr<TensorList>> answers;
  for (std::size_t i = 0; i < calls.size(); ++i) answers.push_back(Checked(*calls[i], std::move((*split)[i])));
  for (const CallPtr& call : calls) call->handle.Reset();
  slot.Release();
  const InferCall::Ran run{.started = started,
                           .joining = joined - started,
                           .infer = ran - joined,
                           .ended = ran,
                           .rows = std::accumulate(rows.begin(), rows.end(), std::int64_t{0})};
  auto answer = [this, run, calls = std::move(calls), answers = std::move(answers)]() mutable {
    bool counted = false;
    for (std::size_t i = 0; i < calls.size(); ++i) {
      if (Answer(*calls[i], std::move(answers[i]), run, !counted)) counted = true;
      calls[i].reset();  // its client may ask again, which is not one more then
    }
  };
  // To send one costs tens of microseconds, all of them a good part of what the next batch takes. Large ones are sent here:
  // a batch whose answers take long to write, and memory, holds up its own model and no answers of others.
  if (deps_.answers != nullptr && bytes <= kLargeBatch) {
    deps_.answers->Post(std::move(answer));
  } else {
    answer();
  }
  return true;
}

void Pipeline::RunAlone(CallPtr call, RunSlot slot) {
  const TimePoint started = deps_.clock.Now();
  if (absl::Status status = call->StillWanted(started); !status.ok()) return call->Fail(std::move(status));
  absl::StatusOr<TensorList> outputs =
      call->sequence != nullptr ? RunInSequence(*call) : call->handle->Run(call->request.inputs, nullptr);
  if (outputs.ok()) outputs = Checked(*call, *std::move(outputs));
  const TimePoint ran = deps_.clock.Now();
  // Before the answer, so that neither the model nor the next run waits for it to be sent.
  call->handle.Reset();
  if (call->sequence != nullptr) {
    LeaveSequence(*call, outputs.ok() ? Sequences::StateIs::kNext : Sequences::StateIs::kLost);
  }
  slot.Release();
  if (absl::IsDataLoss(outputs.status())) {
    // The file went away under the mapping: what is resident is of no use to anybody. The next
    // request loads whatever is there by then.
    deps_.manager.Unload(call->model->id, [] {}, EvictionReason::kDataLoss);
  }
  Answer(*call, std::move(outputs),
         {.started = started, .joining = {}, .infer = ran - started, .ended = ran, .rows = call->rows}, true);
}

absl::StatusOr<TensorList> Pipeline::RunInSequence(InferCall& call) const {
  Sequence& sequence = *call.sequence;
  if (sequence.session == nullptr) {
    HEARTH_ASSIGN_OR_RETURN(sequence.session, sequence.handle->NewSession());
  }
  return sequence.handle->Run(call.request.inputs, sequence.session.get());
}

bool Pipeline::AnswerCached(InferCall& call) {
  const TensorList& inputs = call.request.inputs;
  if (call.sequence != nullptr || !responses_.enabled() || !ResponseCache::Fits(inputs)) return false;
  const TimePoint begin = deps_.clock.Now();
  const ResponseCache::Key key = ResponseCache::KeyOf(call.handle->load(), inputs);
  std::optional<TensorList> outputs = responses_.Find(key, inputs);
  const Duration looked = deps_.clock.Now() - begin;
  if (!outputs) {
    call.key = key;
    call.model->metrics.ResponseNotCached(looked);
    return false;
  }
  absl::StatusOr<TensorList> asked = AsAsked(deps_.catalog, call, *std::move(outputs));
  if (!asked.ok()) {
    call.Fail(std::move(asked).status());
  } else {
    call.SucceedCached({call.model->id, *std::move(asked), *call.cache, call.waited_for_load}, looked);
  }
  return true;
}

// True: with success. `counts_run`: then the run is counted with this one, of those that it answers.
bool Pipeline::Answer(InferCall& call, absl::StatusOr<TensorList> outputs, const InferCall::Ran& ran, bool counts_run) {
  call.ran = ran;
  if (outputs.ok() && call.key) responses_.Add(*call.key, call.request.inputs, *outputs);
  if (outputs.ok() && call.cancelled.stop_requested()) {
    outputs = call.StillWanted(ran.ended);  // what its client has heard; nobody is there for the answer
  } else if (outputs.ok()) {
    outputs = AsAsked(deps_.catalog, call, *std::move(outputs));
  }
  if (!outputs.ok()) {
    call.Fail(std::move(outputs).status());
    return false;
  }
  const TimePoint now = deps_.clock.Now();
  const RequestTimes times{.total = now - call.request.received,
                           .queue = ran.started - call.accepted,
                           .input = call.accepted - call.request.received + ran.joining,
                           .infer = ran.infer,
                           .output = now - ran.ended};
  call.Succeed({call.model->id, *std::move(outputs), *call.cache, call.waited_for_load}, times, counts_run ? ran.rows : 0);
  return true;
}

}  // namespace hearth
