// Triton's model configuration, from text to what hearth knows of a model: the TritonConfigReader of a Catalog.
#pragma once

#include <string>
#include <vector>

#include "model_config.pb.h"
#include "server/base/status.h"
#include "server/storage/triton_config.h"

namespace hearth {

// INVALID_ARGUMENT: it is no such configuration; with the source, and line and column where they are known.
absl::StatusOr<inference::ModelConfig> ParseModelConfig(const TritonConfig& config);

// Both steps, as TritonConfigReader has them: this, then ApplyModelConfig (model_config_options.h).
absl::Status ReadModelConfig(const std::string& model, const TritonConfig& config, ModelOptions& options,
                             std::vector<std::string>& remarks);

}  // namespace hearth
