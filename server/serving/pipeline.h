// The way of one request, in the order in which it is walked:
//
//   Start     count it, or refuse it: stopping, too many
//   Resolve   name and version text -> ModelId                          version_routes.h, catalog
//   Acquire   ModelId -> a pinned model; a resident one at once,
//             else when it has been loaded, within the deadline         manager
//   Admit     the request against the signature, then into the model's
//             run queue                                                 validate.h, concurrency.h
//   Run       on a compute thread: too late or cancelled? else run
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

#include "server/serving/infer.h"
#include "server/serving/infer_service.h"
#include "server/serving/served_models.h"

namespace hearth {

class InferCall;

// Thread-safe. See InferService for what its owner has to see to.
class Pipeline {
 public:
  Pipeline(InferService::Deps deps, InferService::Options options);

  void Start(InferRequest request, std::stop_token cancelled, InferCallback done);
  void SetOptions(const InferService::Options& options);
  std::int64_t in_flight() const { return in_flight_.load(); }
  void StopAccepting() { stopping_.store(true); }

 private:
  friend class InferCall;
  using CallPtr = std::unique_ptr<InferCall>;

  absl::Status CheckAccepting(std::int64_t in_flight) const;
  absl::StatusOr<ModelId> Resolve(const InferRequest& request) const;
  void Acquire(CallPtr call);
  void AcquireCold(CallPtr call);
  void Admit(CallPtr call);
  void Run(CallPtr call);

  const InferService::Deps deps_;
  // InferService::Options, of which each request may see some old and some new: they have nothing to do with each other.
  std::atomic<std::size_t> max_tensors_{0};
  std::atomic<std::size_t> max_dims_{0};
  std::atomic<std::int64_t> max_in_flight_{0};
  std::atomic<bool> access_log_{false};
  std::atomic<bool> stopping_{false};
  std::atomic<std::int64_t> in_flight_{0};
  ServedModels models_;
};

}  // namespace hearth
