// Sends spans to an OpenTelemetry collector, by OTLP over HTTP.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "server/base/mutex.h"
#include "server/base/status.h"
#include "server/frontend/otlp_json.h"
#include "server/metrics/metrics.h"
#include "server/serving/request_span.h"

namespace hearth {

// Where a collector listens.
struct OtlpEndpoint {
  std::string host;
  std::string port;
  std::string target;  // "/v1/traces"
};

// "http://collector:4318/v1/traces"; without a path, that one; without a port, 4318. INVALID_ARGUMENT: it is not such a
// thing, or https, which a collector beside hearthd (an agent, a sidecar) is for.
absl::StatusOr<OtlpEndpoint> ParseOtlpEndpoint(std::string_view url);

// A thread of its own sends what came within a second. What a collector does not take in time is dropped, counted, and said
// once in the log until it takes something again: traces are never what a request waits for.
//
// Thread-safe. The destructor sends what is left, for two seconds at most.
class OtlpExporter final : public SpanSink {
 public:
  struct Options {
    OtlpEndpoint endpoint;
    OtlpResource resource;
    double sample = 0;  // of requests that belong to no trace, so many begin one
  };
  explicit OtlpExporter(Options options);
  ~OtlpExporter() override;

  void Add(RequestSpan span) override ABSL_LOCKS_EXCLUDED(mu_);
  bool Samples() override;

  std::vector<Metrics::Sample> Counts() const;

 private:
  void Loop() ABSL_LOCKS_EXCLUDED(mu_);
  // What is to be sent; waits for it. Empty: it is over.
  std::vector<RequestSpan> Take() ABSL_LOCKS_EXCLUDED(mu_);
  void Send(const std::vector<RequestSpan>& spans);

  const Options options_;
  std::atomic<std::uint64_t> sent_{0};
  std::atomic<std::uint64_t> dropped_{0};
  bool complained_ = false;  // the thread's
  Mutex mu_;
  CondVar wake_;
  std::vector<RequestSpan> waiting_ ABSL_GUARDED_BY(mu_);
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace hearth
