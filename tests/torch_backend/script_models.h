// Small TorchScript programs, written to disk by LibTorch itself.
#pragma once

#include <filesystem>
#include <string>

#include "server/torch_backend/device.h"
#include "server/torch_backend/torch_headers.h"

#include <torch/script.h>

namespace hearth::testing_models {

// A scratch folder of the test's own, removed with it.
class TempDir {
 public:
  TempDir();
  ~TempDir();
  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

// A module whose code is `source` (methods of `self`), with nothing registered yet.
torch::jit::Module Define(const std::string& name);

// y = x @ weight.T + bias, with `in` x `out` seeded random weights.
torch::jit::Module Linear(std::int64_t in, std::int64_t out, std::uint64_t seed);

// The device that most models are on.
Device& Host();

}  // namespace hearth::testing_models
