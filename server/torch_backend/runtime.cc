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

namespace {

// What the first program in a process finds cold, its tables of operators, passes and types, is not for the
// first model to wait for.
void RunSmallProgram() {
  const c10::InferenceMode no_gradients;
  torch::jit::Module module("hearth_start");
  module.register_buffer("w", at::ones({2, 2}));
  module.define("def forward(self, x):\n    return torch.relu(torch.linear(x, self.w)) + x\n");
  for (int run = 0; run < 3; ++run) module.forward({at::ones({1, 2})});  // profiled, optimised, settled
}

}  // namespace

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
    RunSmallProgram();
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
