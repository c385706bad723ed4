// What the Open Inference Protocol has beside inference <-> what serving/ has: the same for every front end.
#pragma once

#include <google/protobuf/map.h>

#include <memory>
#include <string>
#include <vector>

#include "inference.pb.h"
#include "server/base/status.h"
#include "server/model/load_report.h"
#include "server/serving/repository_service.h"

namespace hearth {

using RepositoryParameters = google::protobuf::Map<std::string, inference::ModelRepositoryParameter>;

void FillServer(const std::string& name, const std::string& version, inference::ServerMetadataResponse& wire);
void FillMetadata(const ModelMetadata& metadata, inference::ModelMetadataResponse& wire);
void FillIndex(const std::vector<IndexRow>& rows, inference::RepositoryIndexResponse& wire);

// UNIMPLEMENTED unless it is empty.
absl::Status CheckRepositoryName(const std::string& name);
// What a load was asked to override; null: nothing. INVALID_ARGUMENT with Triton's text where it has one.
absl::StatusOr<std::shared_ptr<const TritonConfig>> ReadLoadParameters(const RepositoryParameters& parameters);
// INVALID_ARGUMENT with Triton's text where it has one.
absl::Status CheckUnloadParameters(const RepositoryParameters& parameters);

// The phases as HTTP's header of that name has them: "open;dur=0.412, map;dur=0.051". The response of this call has no
// fields to put them into.
std::string ServerTiming(const LoadReport& report);

}  // namespace hearth
