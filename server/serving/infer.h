// One inference as every front end sees it. Plain data.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "server/base/clock.h"
#include "server/base/status.h"
#include "server/base/trace_context.h"
#include "server/metrics/metrics.h"
#include "server/model/signature.h"
#include "server/tensor/tensor.h"

namespace hearth {

// One request of a sequence: requests of one client that share the state of a module.
struct SequenceControl {
  std::string id;  // of any bytes; numbers and texts that look like them are told apart by the front end
  bool start = false;
  bool end = false;
};

struct InferRequest {
  std::string model;
  std::string version = {};  // as sent: a number or a label; empty: the highest
  std::string id = {};       // for messages; may be empty
  TensorList inputs = {};
  std::vector<std::string> outputs = {};  // empty: all
  std::vector<std::size_t> top_classes = {};  // of each of `outputs`: classify.h's; 0: it as it is; empty: all as they are
  Deadline deadline = kNoDeadline;
  std::optional<Duration> keep_alive = {};  // ModelManager::KeepAlive, from this request on
  int priority = 0;  // 1 goes first; 0: the model's default
  std::optional<SequenceControl> sequence = {};
  std::optional<RequestTrace> trace = {};
  TimePoint received{};  // first byte parsed; left out: when Infer was called
  std::shared_ptr<const void> charge = {};  // counts names and shapes for as long as they are here
};

struct InferResponse {
  ModelId model;
  TensorList outputs;  // in the order asked for, or the program's
  CacheResult cache = CacheResult::kHit;
  Duration waited_for_load{};
  bool kept = false;  // the response cache had it: nothing was run for it
};

using InferCallback = absl::AnyInvocable<void(absl::StatusOr<InferResponse>) &&>;

}  // namespace hearth
