// Puts weights from files of their own into a program: one program, any number of weight sets.
#pragma once

#include <stop_token>

#include "server/base/status.h"
#include "server/model/load_report.h"
#include "server/storage/weights.h"
#include "server/torch_backend/device.h"
#include "server/torch_backend/torch_headers.h"

namespace hearth {

// Replaces the module's tensors by those of the same name ("encoder.layer.0.weight"), with the meaning
// of PyTorch's load_state_dict: every parameter needs one, of the same shape; another element type is
// converted (a copy). Tensors lie in the mapped files where alignment allows it. A tied name may be
// missing when the one it is tied to is there, and a buffer when the program has its value.
//
// INVALID_ARGUMENT names every tensor that is missing or does not fit. Names that the program does not
// have are logged. CANCELLED soon after `stop`.
absl::Status BindWeights(torch::jit::Module& module, const Weights& weights, Device& device,
                         const std::stop_token& stop, LoadReport& report);

}  // namespace hearth
