// What was asked of models so far, in Triton's terms.
#pragma once

#include <string>

#include "inference.pb.h"
#include "server/base/status.h"
#include "server/metrics/metrics.h"
#include "server/serving/repository_service.h"

namespace hearth {

// Of that version, or of all that the model has; without a name, of all that are resident or were asked for. The errors are
// RepositoryService::Uses'.
absl::Status FillStatistics(const RepositoryService& repository, const Metrics& metrics, const std::string& model,
                            const std::string& version, inference::ModelStatisticsResponse& response);

}  // namespace hearth
