// Where a model's tensors live.
#pragma once

#include <string>

#include "server/base/status.h"
#include "server/torch_backend/torch_headers.h"

namespace hearth {

// "cpu", "cuda:1". INVALID_ARGUMENT for what is no device, FAILED_PRECONDITION for one that this LibTorch
// or machine does not have.
absl::StatusOr<at::Device> ParseDevice(const std::string& name);

}  // namespace hearth
