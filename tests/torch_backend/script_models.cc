#include "tests/torch_backend/script_models.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include "server/torch_backend/devices.h"

namespace hearth::testing_models {

TempDir::TempDir() {
  std::string name = testing::TempDir() + "/hearth-XXXXXX";
  EXPECT_NE(mkdtemp(name.data()), nullptr);
  path_ = name;
}

TempDir::~TempDir() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

torch::jit::Module Define(const std::string& name) { return torch::jit::Module("__torch__." + name); }

torch::jit::Module Linear(std::int64_t in, std::int64_t out, std::uint64_t seed) {
  auto generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  torch::jit::Module module = Define("Linear");
  module.register_parameter("weight", at::randn({out, in}, generator), false);
  module.register_parameter("bias", at::randn({out}, generator), false);
  module.define("def forward(self, x: Tensor) -> Tensor:\n    return torch.linear(x, self.weight, self.bias)\n");
  return module;
}

Device& Host() {
  static Devices devices;
  return **devices.Find("cpu");
}

}  // namespace hearth::testing_models
