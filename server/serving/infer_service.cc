#include "server/serving/infer_service.h"

#include <charconv>
#include <utility>

#include "server/serving/pipeline.h"

namespace hearth {

InferService::InferService(Deps deps, Options options)
    : pipeline_(std::make_unique<Pipeline>(deps, options)) {}

InferService::~InferService() = default;

void InferService::Infer(InferRequest request, std::stop_token cancelled, InferCallback done) {
  pipeline_->Start(std::move(request), std::move(cancelled), std::move(done));
}

void InferService::TellRefused(const InferRequest& request, const absl::Status& why) const {
  pipeline_->TellRefused(request, why);
}

void InferService::SetOptions(const Options& options) { pipeline_->SetOptions(options); }

std::int64_t InferService::in_flight() const { return pipeline_->in_flight(); }

RunScheduler::Counts InferService::runs() const { return pipeline_->runs(); }

std::vector<Metrics::Sample> InferService::SequenceSamples() const { return pipeline_->SequenceSamples(); }

ResponseCache::Counts InferService::responses() const { return pipeline_->responses(); }

void InferService::StopAccepting() { pipeline_->StopAccepting(); }

absl::StatusOr<std::optional<std::int64_t>> ParseVersion(const std::string& text) {
  if (text.empty()) return std::nullopt;
  std::int64_t version = 0;
  const char* const end = text.data() + text.size();
  const auto [stopped, error] = std::from_chars(text.data(), end, version);
  const char* details = nullptr;
  if (error == std::errc::result_out_of_range) {
    details = "out of range";
  } else if (error != std::errc() || stopped != end) {
    details = "not a decimal number";
  } else if (version <= 0) {
    details = "not above 0";
  }
  if (details == nullptr) return version;
  return absl::InvalidArgumentError(
      StrCat("failed to get model version from specified version string '", text,
             "' (details: ", details, "), version should be an integral value > 0"));
}

}  // namespace hearth
