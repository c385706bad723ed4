// The way of one request, in the order in which it is walked:
//
//   Start     count it, or refuse it: stopping, too many
//   Resolve   name and version text -> ModelId                          version_routes.h, catalog
//             of a sequence: wait for its turn                          sequences.h
//   Acquire   ModelId -> a pinned model; a resident one at once,
//             else when it has been loaded, within the deadline         manager
//   Admit     the request against the signature, then into the model's
//             queue                                                     validate.h, run_scheduler.h
//   Run       on a compute thread, alone or as one batch with others
//             that waited                                               batch.h
//   Answer    outputs asked for, metrics, `done`
//
// Start to Admit run on the caller's thread where the model is resident, so a bad request never
// costs a compute thread.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <stop_token>
#include <vector>

#include "server/serving/infer.h"
#include "server/serving/infer_call.h"
#include "server/serving/infer_service.h"
#include "server/serving/response_cache.h"
#include "server/serving/run_scheduler.h"
#include "server/serving/sequences.h"
#include "server/serving/served_models.h"

namespace hearth {

// Thread-safe. See InferService for what its owner has to see to.
class Pipeline {
 public:
  Pipeline(InferService::Deps deps, InferService::Options options);

  void Start(InferRequest request, std::stop_token cancelled, InferCallback done);
  void TellRefused(const InferRequest& request, const absl::Status& why) const;
  void SetOptions(const InferService::Options& options);
  std::int64_t in_flight() const { return in_flight_.load(); }
  RunScheduler::Counts runs() const { return scheduler_.counts(); }
  void StopAccepting() {
    stopping_.store(true);
    sequences_.Close();
    scheduler_.Hurry();
  }
  ResponseCache::Counts responses() const { return responses_.counts(); }
  std::vector<Metrics::Sample> SequenceSamples() const { return sequences_.Samples(); }

 private:
  friend class InferCall;
  using CallPtr = InferCall::Ptr;

  absl::Status CheckAccepting(std::int64_t in_flight) const;
  absl::StatusOr<ModelId> Resolve(const InferRequest& request) const;
  void EnterSequence(CallPtr call);
  void GoOn(CallPtr call);  // with a sequence that has begun
  // The next request of its sequence has its turn.
  void LeaveSequence(InferCall& call, Sequences::StateIs state);
  // Of a call whose model is there: its sequence is the model's if that remembers anything, else there is none.
  absl::Status SettleSequence(InferCall& call);
  absl::StatusOr<TensorList> RunInSequence(InferCall& call) const;
  void Acquire(CallPtr call);
  void AcquireCold(CallPtr call);
  void Admit(CallPtr call);
  void Run(std::vector<CallPtr> calls, RunSlot slot);
  bool RunTogether(std::vector<CallPtr>& calls, RunSlot& slot, TimePoint started);
  void RunAlone(CallPtr call, RunSlot slot);
  // True: it was answered with what somebody else was given for the same inputs.
  bool AnswerCached(InferCall& call);
  bool Answer(InferCall& call, absl::StatusOr<TensorList> outputs, const InferCall::Ran& ran, bool counts_run);

  const InferService::Deps deps_;
  // InferService::Options, of which each request may see some old and some new: they have nothing to do with each other.
  std::atomic<std::size_t> max_tensors_{0};
  std::atomic<std::size_t> max_dims_{0};
  std::atomic<std::int64_t> max_in_flight_{0};
  std::atomic<bool> access_log_{false};
  std::atomic<bool> stopping_{false};
  std::atomic<std::int64_t> in_flight_{0};
  ServedModels models_;
  Sequences sequences_;
  ResponseCache responses_;
  RunScheduler scheduler_;  // goes first: requests that wait are in the queues of the models
};

}  // namespace hearth
