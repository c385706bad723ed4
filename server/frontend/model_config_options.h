// What Triton's model configuration means to hearth.
#pragma once

#include <string>
#include <vector>

#include "model_config.pb.h"
#include "server/base/status.h"
#include "server/model/model_spec.h"

namespace hearth {

// Lays what `config` says of `model` over `options`; what it does not say stays. What hearth cannot do, and could not
// leave out without wrong answers, is INVALID_ARGUMENT with a sentence; what it can leave out is a sentence of `remarks`.
absl::Status ApplyModelConfig(const std::string& model, const inference::ModelConfig& config, ModelOptions& options,
                              std::vector<std::string>& remarks);

// As the wire has it; nothing for a number that is none of its own.
DType ToDType(inference::DataType type);

}  // namespace hearth
