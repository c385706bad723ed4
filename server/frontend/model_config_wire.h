// A model as Triton's model configuration has it.
#pragma once

#include "model_config.pb.h"
#include "server/serving/repository_service.h"

namespace hearth {

// What hearth knows of a resident model, in Triton's terms. What Triton can be told and hearth has no word for is left
// at its default.
void FillConfig(const ModelMetadata& model, inference::ModelConfig& wire);

}  // namespace hearth
