#include "server/torch_backend/runtime.h"

#include <dlfcn.h>

#include <algorithm>
#include <limits>

#include "server/base/log.h"
#include "server/torch_backend/torch_headers.h"

#include <torch/csrc/jit/frontend/function_schema_parser.h>
#include <torch/csrc/jit/runtime/symbolic_script.h>
#include <torch/version.h>

namespace hearth {
namespace {

struct ThreadsOfThread {
  int usual = 0;  // 0: nobody has asked yet
  int most = std::numeric_limits<int>::max();
  int now = 0;
};

thread_local ThreadsOfThread threads_here;

}  // namespace

std::string TorchVersion() { return TORCH_VERSION; }

void ConfigureTorchThread(int usual, int most) {
  // A thread that has not asked yet is set to what was set last on any other when it does.
  (void)at::get_num_threads();
  at::set_num_threads(usual);
  threads_here = {.usual = usual, .most = most, .now = usual};
}

void UseTorchThreads(int wanted) {
  ThreadsOfThread& here = threads_here;
  if (here.usual == 0) here.usual = here.now = at::get_num_threads();
  const int threads = std::min(wanted > 0 ? wanted : here.usual, here.most);
  if (threads == here.now) return;
  at::set_num_threads(threads);
  here.now = threads;
}

void InitialiseTorch() {
  static const bool once = [] {
    at::set_num_interop_threads(1);
    (void)at::get_num_threads();  // of this thread, before the next one sets its own
    // The thread that torch.jit.fork runs on comes with its first use and has the priority of who uses it: not that of
    // a thread that loads ahead of need.
    at::launch([] { ConfigureTorchThread(1, 1); });
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
