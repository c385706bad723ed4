#include "server/metrics/triton_names.h"

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/registry.h>

namespace hearth {
namespace {

// Whole ones, as Triton's.
double Microseconds(Duration d) {
  return static_cast<double>(std::chrono::duration_cast<std::chrono::microseconds>(d).count());
}

prometheus::Family<prometheus::Counter>& Counters(prometheus::Registry& registry, const char* name,
                                                  const char* help) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(registry);
}

}  // namespace

void TritonModelMetrics::RequestSucceeded(const RequestTimes& times, std::int64_t rows, bool counts_run) {
  success_->Increment();
  inferences_->Increment(static_cast<double>(rows));
  if (counts_run) executions_->Increment();
  request_us_->Increment(Microseconds(times.total));
  queue_us_->Increment(Microseconds(times.queue));
  input_us_->Increment(Microseconds(times.input));
  infer_us_->Increment(Microseconds(times.infer));
  output_us_->Increment(Microseconds(times.output));
}

void TritonModelMetrics::RequestCached(Duration total, Duration looked) {
  success_->Increment();
  request_us_->Increment(Microseconds(total));
  cache_hits_->Increment();
  cache_hit_us_->Increment(Microseconds(looked));
}

void TritonModelMetrics::ResponseNotCached(Duration looked) {
  cache_misses_->Increment();
  cache_miss_us_->Increment(Microseconds(looked));
}

void TritonModelMetrics::RequestFailed(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kCancelled:
      return canceled_->Increment();
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kDeadlineExceeded:
      return rejected_->Increment();
    case absl::StatusCode::kInternal:
    case absl::StatusCode::kUnknown:
    case absl::StatusCode::kDataLoss:
      return backend_->Increment();
    default:
      return other_->Increment();
  }
}

TritonMetrics::TritonMetrics(prometheus::Registry& registry)
    : success_(
          Counters(registry, "nv_inference_request_success", "Requests answered with success")),
      failure_(
          Counters(registry, "nv_inference_request_failure", "Requests that failed, by reason")),
      inferences_(Counters(registry, "nv_inference_count", "Inferences, each batch element one")),
      executions_(Counters(registry, "nv_inference_exec_count", "Runs of the model")),
      request_us_(Counters(registry, "nv_inference_request_duration_us",
                           "Microseconds from request to answer, summed")),
      queue_us_(Counters(registry, "nv_inference_queue_duration_us",
                         "Microseconds waited before the run, summed")),
      input_us_(Counters(registry, "nv_inference_compute_input_duration_us",
                         "Microseconds spent preparing inputs, summed")),
      infer_us_(Counters(registry, "nv_inference_compute_infer_duration_us",
                         "Microseconds spent running the model, summed")),
      output_us_(Counters(registry, "nv_inference_compute_output_duration_us",
                          "Microseconds spent on outputs, summed")),
      cache_hits_(Counters(registry, "nv_cache_num_hits_per_model", "Requests answered with a kept answer")),
      cache_hit_us_(Counters(registry, "nv_cache_hit_duration_per_model", "Microseconds in which kept answers were found, summed")),
      cache_misses_(Counters(registry, "nv_cache_num_misses_per_model", "Requests for which no answer was kept")),
      cache_miss_us_(Counters(registry, "nv_cache_miss_duration_per_model",
                              "Microseconds in which no kept answer was found, summed")),
      load_seconds_(prometheus::BuildGauge()
                        .Name("nv_model_load_duration_secs")
                        .Help("Seconds that the model's last successful load took")
                        .Register(registry)) {}

std::unique_ptr<TritonModelMetrics> TritonMetrics::Model(
    const std::map<std::string, std::string>& labels) {
  const auto failure = [&](const char* reason) {
    auto with_reason = labels;
    with_reason["reason"] = reason;
    return &failure_.Add(with_reason);
  };
  std::unique_ptr<TritonModelMetrics> model(new TritonModelMetrics);
  model->success_ = &success_.Add(labels);
  model->rejected_ = failure("REJECTED");
  model->canceled_ = failure("CANCELED");
  model->backend_ = failure("BACKEND");
  model->other_ = failure("OTHER");
  model->inferences_ = &inferences_.Add(labels);
  model->executions_ = &executions_.Add(labels);
  model->request_us_ = &request_us_.Add(labels);
  model->queue_us_ = &queue_us_.Add(labels);
  model->input_us_ = &input_us_.Add(labels);
  model->infer_us_ = &infer_us_.Add(labels);
  model->output_us_ = &output_us_.Add(labels);
  model->cache_hits_ = &cache_hits_.Add(labels);
  model->cache_hit_us_ = &cache_hit_us_.Add(labels);
  model->cache_misses_ = &cache_misses_.Add(labels);
  model->cache_miss_us_ = &cache_miss_us_.Add(labels);
  return model;
}

void TritonMetrics::LoadSucceeded(std::string_view model, Duration total) {
  load_seconds_.Add({{"model", std::string(model)}}).Set(ToSeconds(total));
}

}  // namespace hearth
