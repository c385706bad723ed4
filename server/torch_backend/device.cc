#include "server/torch_backend/device.h"

#include "server/torch_backend/torch_status.h"

namespace hearth {

absl::StatusOr<at::Device> ParseDevice(const std::string& name) {
  auto parsed = CatchTorch(StrCat("device '", name, "'"), absl::StatusCode::kInvalidArgument,
                           [&] { return at::Device(name); });
  HEARTH_ASSIGN_OR_RETURN(const at::Device device, std::move(parsed));
  if (device.is_cpu()) return at::Device(at::kCPU);
  // An allocation tells whether this LibTorch really has the device, whatever its kind.
  auto probe = CatchTorch(StrCat("device '", name, "' cannot be used by this LibTorch; set `device: cpu` "
                                 "in model.yaml or run a build for it"),
                          absl::StatusCode::kFailedPrecondition,
                          [&] { return at::empty({1}, at::TensorOptions().device(device)); });
  if (!probe.ok()) return probe.status();
  return device;
}

}  // namespace hearth
