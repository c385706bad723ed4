#include "server/metrics/triton_names.h"

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/registry.h>

namespace hearth {
namespace {

double Microseconds(Duration d) { return std::chrono::duration<double, std::micro>(d).count(); }

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
  return model;
}

void TritonMetrics::LoadSucceeded(std::string_view model, Duration total) {
  load_seconds_.Add({{"model", std::string(model)}}).Set(ToSeconds(total));
}

}  // namespace hearth
