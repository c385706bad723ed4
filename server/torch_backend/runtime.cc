#include "server/torch_backend/runtime.h"

#include <dlfcn.h>

#include "server/base/log.h"
#include "server/torch_backend/torch_headers.h"

#include <torch/csrc/jit/frontend/function_schema_parser.h>
#include <torch/csrc/jit/runtime/symbolic_script.h>
#include <torch/version.h>

namespace hearth {

std::string TorchVersion() { return TORCH_VERSION; }

void ConfigureTorchThread(int intra_op_threads) { at::set_num_threads(intra_op_threads); }

void InitialiseTorch() {
  static const bool once = [] {
    at::set_num_interop_threads(1);
    // The thread that torch.jit.fork runs on comes with its first use and has the priority of who uses it: not that of
    // a thread that loads ahead of need.
    at::launch([] {});
    torch::jit::populate_upgraders_graph_map();
    // The first program that is run has the JIT compile its library of derivatives, 25 ms for nothing:
    // weights here need no gradients, but the executor asks what could be differentiated.
    torch::jit::hasGradientInfoForSchema(torch::jit::parseSchema("aten::relu(Tensor self) -> Tensor"));
    return true;
  }();
  (void)once;
}

absl::Status LoadOperatorLibraries(const std::vector<std::filesystem::path>& libraries) {
  for (const auto& library : libraries) {
    if (dlopen(library.c_str(), RTLD_NOW | RTLD_GLOBAL) == nullptr) {
      const char* reason = dlerror();
      return absl::InvalidArgumentError(
          StrCat("cannot load the operator library '", library.string(), "': ",
                 reason != nullptr ? reason : "unknown reason",
                 "; check torch_libraries and that it was built for LibTorch ",
                 TorchVersion()));
    }
    log::Info("operator library loaded", {{"library", library.string()}});
  }
  return absl::OkStatus();
}

}  // namespace hearth
