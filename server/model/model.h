// The interface of a loaded model.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "server/base/status.h"
#include "server/model/footprint.h"
#include "server/model/load_report.h"
#include "server/model/rest.h"
#include "server/model/signature.h"
#include "server/tensor/tensor.h"

namespace hearth {

// What a module writes to while it runs (an LSTM's state, say), apart from everybody else's. Empty for
// most models. Belongs to the Model that made it and must not outlive it. Thread-compatible: one run
// at a time.
class Session {
 public:
  virtual ~Session() = default;
};

// One loaded model: program and weights, ready to run.
//
// Immutable once built, so thread-safe: Run() may be called from any number of threads at once (one at
// a time per session). The destructor frees memory and may block for milliseconds: it is never run
// under a lock, nor on a thread that answers requests.
class Model {
 public:
  Model() = default;
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;
  virtual ~Model() = default;

  // A number that no other load of this process has.
  std::uint64_t load() const { return load_; }

  virtual const Signature& signature() const = 0;
  virtual const Footprint& footprint() const = 0;    // measured, not estimated
  virtual const LoadReport& load_report() const = 0;

  // What may be kept when it leaves. Null: nothing, since its weights are used where they are mapped.
  virtual std::shared_ptr<const Rest> rest() const { return nullptr; }

  // Whether a run leaves something that the next one of its session sees.
  virtual bool stateful() const { return false; }

  // A copy of what the module writes to, as it was when the model was loaded. Weights stay shared.
  virtual absl::StatusOr<std::unique_ptr<Session>> NewSession() const = 0;

  // Blocks until the outputs are in host memory. Never throws.
  // `session`: state to start from and to leave behind; null: start from load-time state and leave
  // nothing, so no request sees what another one did.
  // Outputs own their bytes (they may share ownership of the request's inputs, never of weights or
  // state, which the next run could overwrite).
  // INVALID_ARGUMENT: the program refused these inputs (the text is its own message).
  // REQUIRES: `inputs` went through serving/validate.
  virtual absl::StatusOr<TensorList> Run(const TensorList& inputs, Session* session) const = 0;

 private:
  static inline std::atomic<std::uint64_t> next_load_{1};
  const std::uint64_t load_ = next_load_.fetch_add(1, std::memory_order_relaxed);
};

}  // namespace hearth
