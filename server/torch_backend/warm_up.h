// First runs, on the load thread instead of a client's time.
#pragma once

#include <functional>
#include <stop_token>

#include "server/base/status.h"
#include "server/model/model.h"
#include "server/model/model_spec.h"

namespace hearth {

// Runs model.yaml's samples; without any, a sample of zeros if every required input has a known type
// and shape (-1 becomes 1). `learn` gets what every run answered: it tells the outputs' types.
// A sample from model.yaml that fails is an error; a made-up one that the program refuses is only
// logged, since zeros need not make sense to it. CANCELLED when `stop` is requested.
absl::Status WarmUp(const Model& model, const ModelSpec& spec, const std::stop_token& stop,
                    const std::function<void(const TensorList&)>& learn);

}  // namespace hearth
