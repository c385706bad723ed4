// A program with one set of weights: LibTorch's side of an AOTInductor model.
#pragma once

#include <cstdint>
#include <memory>
#include <stop_token>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "server/base/status.h"
#include "server/model/load_report.h"
#include "server/storage/weights.h"
#include "server/torch_backend/aoti_programs.h"
#include "server/torch_backend/device.h"
#include "server/torch_backend/torch_headers.h"

#include <torch/csrc/inductor/aoti_runtime/interface.h>

namespace torch::inductor {
class AOTIModelPackageLoader;
}

namespace hearth {

// One of the tensors that the program reads besides its inputs.
struct AotiConstant {
  std::string name;    // of the tensor in the module: "encoder.weight"
  std::string symbol;  // in the code: "encoder_weight"
  at::ScalarType type{};
  std::uint64_t bytes = 0;  // rounded up as the library lays them out
  bool may_be_written = false;  // a buffer, not a parameter
};

// Run() is thread-safe, once everything is bound.
class AotiContainer {
 public:
  // runs: how many at the same time; another one waits for one of them.
  static absl::StatusOr<std::unique_ptr<AotiContainer>> Make(std::shared_ptr<const AotiProgram> program,
                                                             const at::Device& device, int runs);
  ~AotiContainer();

  std::size_t inputs() const { return inputs_; }
  std::size_t outputs() const { return outputs_; }
  // Of the weights that came inside of the library, and were copied into private memory.
  std::uint64_t own_bytes() const { return own_bytes_; }

  // Puts `weights` where the program reads them: the tensors themselves, not copies, where type and
  // device and layout allow it. `metadata`: what is known of shapes and strides; a library tells only sizes. INVALID_ARGUMENT names every tensor that is missing or does not fit, and those that
  // are given for nothing although they may have been compiled into the code.
  absl::Status Bind(const Weights& weights, const AotiMetadata& metadata, Device& device, const std::stop_token& stop,
                    LoadReport& report);

  // A number that differs when the bytes of something that may be written differ.
  std::size_t Fingerprint() const;

  // Throws what LibTorch throws. Takes the inputs: none is referred to afterwards, but by outputs.
  std::vector<at::Tensor> Run(std::vector<at::Tensor> inputs) const;

 private:
  AotiContainer(std::shared_ptr<const AotiProgram> program, const at::Device& device);
  absl::Status Open(int runs);
  absl::Status ReadConstants();
  absl::Status HandOver();
  // Adds what the library reads, by the tensors' names in the file.
  absl::Status ReadByCode(std::unordered_map<std::string, AtenTensorHandle>& tensors) const;
  // Tensors of the library's own over bound ones.
  std::vector<std::pair<const at::Tensor*, AtenTensorHandle>> CopiesOfBound() const;
  absl::Status RefuseUnused(const Weights& weights) const;

  const std::shared_ptr<const AotiProgram> program_;
  const at::Device device_;
  std::size_t inputs_ = 0, outputs_ = 0;
  bool has_own_ = false;  // weights came inside of the library
  std::uint64_t own_bytes_ = 0;
  std::vector<AotiConstant> constants_;
  // The program keeps pointers to these very objects, by symbol; so they are destroyed after it.
  std::unordered_map<std::string, at::Tensor> bound_;
  std::unique_ptr<torch::inductor::AOTIModelPackageLoader> loader_;
};

}  // namespace hearth
