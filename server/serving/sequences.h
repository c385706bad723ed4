// Live sequences: what modules with a state of their own remember between the requests of one client.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "server/base/clock.h"
#include "server/base/mutex.h"
#include "server/base/timer.h"
#include "server/metrics/metrics.h"
#include "server/residency/alarm.h"
#include "server/residency/model_manager.h"
#include "server/serving/infer_call.h"
#include "server/storage/catalog.h"

namespace hearth {

// One client's state of one load of a model. Whoever has the turn (a call whose `sequence` it is) has the members that are
// not Sequences' own to itself.
struct Sequence {
  std::string model;  // name, and its id: constant
  std::string id;
  ServedModel* served = nullptr;  // constant once the first request has its model, as is the handle
  // Pins the load that the state belongs to, also while another version or a new load of it answers others.
  ModelHandle handle;
  std::unique_ptr<Session> session;  // from the first run on; dies before the handle

 private:
  friend class Sequences;
  SequenceOptions options;
  bool busy = true;  // somebody has the turn
  bool over = false;
  TimePoint last_used{};
  std::deque<InferCall::Ptr> waiting;
};

// Requests of a sequence run one at a time, in the order in which they came. A sequence begins with a request that says
// so (another one of the same name ends then), and ends with one that says so, when nobody asked for it for its idle
// time, when a run of it fails, for nobody knows what that left, or when its model is unloaded. One whose
// first request did not run has not begun. Live ones keep their load
// of the model resident (SequenceOptions::OnPressure).
//
// Thread-safe. Outlived by its Deps; outlives its calls.
class Sequences {
 public:
  struct Deps {
    const Catalog& catalog;
    ModelManager& manager;
    Timer& timer;
    const Clock& clock;
  };
  explicit Sequences(Deps deps);
  ~Sequences();

  // kNow: `call` has the turn of its `sequence`. kLater: it was taken, and has to wait for its turn. kNone: there is no such
  // sequence, and it does not begin one. kTooMany: it would, and there are as many as there may be.
  enum class Entered : std::uint8_t { kNow, kLater, kNone, kTooMany };
  Entered Enter(InferCall::Ptr& call) ABSL_LOCKS_EXCLUDED(mu_);

  // Its model remembers nothing: those who waited, with no sequence any more. REQUIRES: `call` has the turn.
  std::vector<InferCall::Ptr> Dissolve(InferCall& call) ABSL_LOCKS_EXCLUDED(mu_);

  // `call` gives its turn back. What the state is now: kNext: as its run left it. kBefore: as it was, for it did not run; a
  // sequence that was to begin with it does not. kLost: nobody knows, and the sequence is over.
  enum class StateIs : std::uint8_t { kNext, kBefore, kLost };
  struct Left {
    InferCall::Ptr next;                  // has the turn now
    std::vector<InferCall::Ptr> orphans;  // waited for a sequence that is over
  };
  Left Leave(InferCall& call, StateIs state) ABSL_LOCKS_EXCLUDED(mu_);

  // No more begin, and all end as soon as nobody has the turn.
  void Close() ABSL_LOCKS_EXCLUDED(mu_);

  std::vector<Metrics::Sample> Samples() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  enum class Why : std::uint8_t { kEnd, kRestart, kIdle, kError, kRefused, kUnload, kPressure, kShutdown };
  static constexpr std::array<const char*, 8> kWhys = {"end",     "restart", "idle",     "error",
                                                       "refused", "unload",  "pressure", "shutdown"};
  using Ptr = std::shared_ptr<Sequence>;
  using OfModel = absl::flat_hash_map<std::string, Ptr>;

  void End(Sequence& sequence, Why why) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  std::optional<Why> WhyEnd(const Sequence& sequence, TimePoint now) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void SetSweep() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Sweep() ABSL_LOCKS_EXCLUDED(mu_);

  const Deps deps_;
  mutable Mutex mu_;
  bool closed_ ABSL_GUARDED_BY(mu_) = false;
  absl::flat_hash_map<std::string, OfModel> live_ ABSL_GUARDED_BY(mu_);  // by model, by id
  std::size_t waiting_ ABSL_GUARDED_BY(mu_) = 0;
  std::array<std::uint64_t, kWhys.size()> ended_ ABSL_GUARDED_BY(mu_){};
  Alarm alarm_;  // for Sweep(); goes first
};

// The refusal of a request of a sequence that is not there.
absl::Status NoSuchSequence(const InferRequest& request);

}  // namespace hearth
