// One load of one file in a fresh process: what tests/bench/loading.py times. Prints one JSON line.
//
//   load_bench hearth|jit FILE DIMS     e.g. load_bench hearth big.pt 1,4096
//
// `bound_ms`: until the module exists with its weights; `first_answer_ms`: until a run on DIMS ones has
// returned; `anon_kb`: growth of private memory until bound; `hash`: of the answer's bytes.
#include <torch/script.h>

#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <string>

#include "server/torch_backend/runtime.h"
#include "server/torch_backend/script_program.h"

namespace {

using SteadyTime = std::chrono::steady_clock;

double MillisecondsSince(SteadyTime::time_point start) {
  return std::chrono::duration<double, std::milli>(SteadyTime::now() - start).count();
}

long AnonKb() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind("RssAnon:", 0) == 0) return std::stol(line.substr(8));
  }
  return -1;
}

std::uint64_t Hash(const at::Tensor& tensor) {
  const at::Tensor dense = tensor.contiguous();
  std::uint64_t hash = 1469598103934665603ULL;  // FNV-1a
  const auto* bytes = static_cast<const unsigned char*>(dense.const_data_ptr());
  for (std::size_t i = 0; i < dense.nbytes(); ++i) hash = (hash ^ bytes[i]) * 1099511628211ULL;
  return hash;
}

std::vector<std::int64_t> ParseDims(const std::string& text) {
  std::vector<std::int64_t> dims;
  for (std::size_t at = 0; at < text.size();) {
    std::size_t used = 0;
    dims.push_back(std::stoll(text.substr(at), &used));
    at += used + 1;
  }
  return dims;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: load_bench hearth|jit FILE DIMS\n");
    return 2;
  }
  const std::string how = argv[1];
  hearth::InitialiseTorch();
  hearth::ConfigureTorchThread(1);
  // LibTorch's own one-time start-up is nobody's load.
  at::Tensor ready = at::ones({8, 8}).matmul(at::ones({8, 8}));
  const at::Tensor input = at::ones(ParseDims(argv[3]));

  const long anon_before = AnonKb();
  const auto start = SteadyTime::now();
  torch::jit::Module module;
  if (how == "hearth") {
    hearth::LoadReport report;
    auto archive = hearth::OpenScriptArchive(argv[2]);
    auto bound = archive.ok() ? std::make_shared<hearth::ScriptProgram>(archive->contents.version, false)
                                    ->Bind(*archive, report)
                              : archive.status();
    if (!bound.ok()) {
      std::fprintf(stderr, "%s\n", bound.status().ToString().c_str());
      return 1;
    }
    module = bound->module;
  } else {
    module = torch::jit::load(argv[2]);
  }
  const double bound_ms = MillisecondsSince(start);
  const long anon_bound = AnonKb();
  const c10::InferenceMode guard;
  const at::Tensor answer = module.forward({input}).toTensor();
  const double first_ms = MillisecondsSince(start);
  std::printf("{\"bound_ms\": %.3f, \"first_answer_ms\": %.3f, \"anon_kb\": %ld, \"hash\": \"%016llx\"}\n",
              bound_ms, first_ms, anon_bound - anon_before, static_cast<unsigned long long>(Hash(answer)));
  return 0;
}
