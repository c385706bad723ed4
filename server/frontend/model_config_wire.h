// A model as Triton's model configuration has it.
#pragma once

#include "model_config.pb.h"
#include "server/serving/repository_service.h"

namespace hearth {

// What hearth knows of a resident model, in Triton's terms, over what its config.pbtxt, or the config that it was loaded
// with, says beside that.
void FillConfig(const ModelMetadata& model, inference::ModelConfig& wire);

}  // namespace hearth
