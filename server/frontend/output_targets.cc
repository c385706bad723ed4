#include "server/frontend/output_targets.h"

#include <optional>
#include <utility>

#include "server/base/check.h"
#include "server/frontend/infer_parameters.h"

namespace hearth {
namespace {

absl::StatusOr<OutputTarget> Read(const inference::ModelInferRequest::InferRequestedOutputTensor& wire,
                                  const SharedMemory& memory) {
  OutputTarget target;
  HEARTH_ASSIGN_OR_RETURN(const std::optional<SharedPlace> place,
                          ReadSharedPlace("output", wire.name(), wire.parameters()));
  if (!place) return target;
  HEARTH_ASSIGN_OR_RETURN(target.region, memory.Find(place->region));
  HEARTH_RETURN_IF_ERROR(target.region->Check(place->offset, place->byte_size));
  target.offset = place->offset;
  target.byte_size = place->byte_size;
  return target;
}

absl::Status Share(const OutputTarget& target, NamedTensor& output) {
  const std::size_t size = output.tensor.data.size();
  if (target.byte_size < size) {
    return absl::InternalError(StrCat("shared memory size specified with the request for output '", output.name, "' (",
                                      target.byte_size, " bytes) should be at least ", size,
                                      " bytes to hold the results"));
  }
  HEARTH_RETURN_IF_ERROR(target.region->Write(target.offset, output.tensor.data));
  output.tensor.data = {};
  output.tensor.owner.reset();
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<OutputTargets> ReadOutputTargets(const inference::ModelInferRequest& wire, const SharedMemory& memory) {
  OutputTargets targets;
  targets.reserve(static_cast<std::size_t>(wire.outputs_size()));
  for (const auto& output : wire.outputs()) {
    HEARTH_ASSIGN_OR_RETURN(OutputTarget target, Read(output, memory));
    targets.push_back(std::move(target));
  }
  return targets;
}

absl::Status Deliver(const OutputTargets& targets, InferResponse& response) {
  if (targets.empty()) return absl::OkStatus();
  HEARTH_CHECK(targets.size() == response.outputs.size());
  for (std::size_t i = 0; i < targets.size(); ++i) {
    if (targets[i].region != nullptr) HEARTH_RETURN_IF_ERROR(Share(targets[i], response.outputs[i]));
  }
  return absl::OkStatus();
}

}  // namespace hearth
