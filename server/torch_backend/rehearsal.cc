#include "server/torch_backend/rehearsal.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <sstream>
#include <string>

#include "server/base/log.h"
#include "server/base/unique_fd.h"
#include "server/torch_backend/tensor_bridge.h"
#include "server/torch_backend/torch_headers.h"
#include "server/torch_backend/torch_status.h"
#include "server/torch_backend/torchscript_loader.h"

namespace hearth {
namespace {

constexpr int kUntilPlanned = 3;  // runs: profiled, optimised, settled

absl::StatusOr<std::string> SmallArchive() {
  return CatchTorch("write a small model", absl::StatusCode::kInternal, [] {
    torch::jit::Module module("hearth_rehearsal");
    module.register_parameter("w", at::ones({4, 4}), false);
    module.define("def forward(self, x: Tensor) -> Tensor:\n    return torch.relu(torch.linear(x, self.w)) + x\n");
    std::ostringstream archive;
    module.save(archive);
    return archive.str();
  });
}

absl::StatusOr<UniqueFd> InMemory(const std::string& content) {
  UniqueFd file(::memfd_create("hearth-rehearsal", MFD_CLOEXEC));
  if (!file) return ErrnoStatus(errno, "memory for a small model cannot be had");
  const ::ssize_t written = ::write(file.get(), content.data(), content.size());
  if (written != static_cast<::ssize_t>(content.size())) return ErrnoStatus(errno, "a small model cannot be written");
  return file;
}

absl::Status Rehearse() {
  HEARTH_ASSIGN_OR_RETURN(const std::string archive, SmallArchive());
  HEARTH_ASSIGN_OR_RETURN(const UniqueFd file, InMemory(archive));
  const ModelSpec spec{.id = {"rehearsal", 1},
                       .format = "torchscript",
                       .file = StrCat("/proc/self/fd/", file.get()),
                       .options = {}};
  HEARTH_ASSIGN_OR_RETURN(const std::unique_ptr<Model> model, MakeTorchScriptLoader({})->Load(spec, {}));
  HEARTH_ASSIGN_OR_RETURN(const Tensor x, UnwrapTensor(at::ones({1, 4}), "x"));
  for (int run = 0; run < kUntilPlanned; ++run) HEARTH_RETURN_IF_ERROR(model->Run({{"x", x}}, nullptr).status());
  return absl::OkStatus();
}

}  // namespace

void RehearseLoad() {
  const absl::Status status = Rehearse();
  if (!status.ok()) log::Warning("the rehearsal of a load failed", {{"error", status.ToString()}});
}

}  // namespace hearth
