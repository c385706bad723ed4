// Where the time of one request went, for whoever collects traces.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "server/base/clock.h"
#include "server/base/trace_context.h"
#include "server/metrics/metrics.h"
#include "server/model/signature.h"

namespace hearth {

// A value. Times of day are the clock's own, so that spans of one request fit each other.
struct RequestSpan {
  RequestTrace trace;
  std::string model;                                     // as asked for
  std::optional<std::int64_t> version;                   // once resolved
  std::string request_id;
  absl::StatusCode code = absl::StatusCode::kOk;
  std::string message;                                   // of a failure
  std::optional<CacheResult> cache;                      // once acquired
  bool kept = false;                                     // the response cache had the answer
  WallTime begin{};
  Duration total{};

  // A part of it, counted from `begin`.
  struct Part {
    Duration begin{};
    Duration took{};
  };
  std::optional<Part> load;     // waiting for the model, if it was not there
  std::optional<Part> queue;    // waiting for a compute thread
  std::optional<Part> compute;  // the run
  std::int64_t run_rows = 0;    // of the batch that the run was
};

// Thread-safe; Add() neither blocks nor waits.
class SpanSink {
 public:
  virtual ~SpanSink() = default;
  virtual void Add(RequestSpan span) = 0;
  // Whether a request that belongs to no trace yet begins one.
  virtual bool Samples() = 0;
};

}  // namespace hearth
