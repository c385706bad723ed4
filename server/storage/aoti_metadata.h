// What an AOTInductor package says about itself.
//
// PyTorch writes a JSON object of texts beside each library: the machine and the vector extensions it
// was compiled for. `hearth pack` adds a text "hearth" to it (torch's option aot_inductor.metadata), an
// object of its own:
//
//   {"cpu_features": ["avx2", "fma"],
//    "inputs": [{"name": "x", "datatype": "FP32", "shape": ["batch", 32]}],
//    "outputs": [{"name": "y", "datatype": "FP32", "shape": ["batch", 8]}],
//    "dimensions": {"batch": [1, 1024]},
//    "constants": {"layer.weight": [8, 32]},
//    "strides": {"layer.weight": [1, 8]}}
//
// Of a dimension's size: a number; -1, any; or a name, which stands for one size wherever it stands,
// within the range that "dimensions" has for it.
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "server/base/cpu_features.h"
#include "server/base/status.h"
#include "server/model/signature.h"

namespace hearth {

struct AotiTensor {
  TensorInfo info;                      // with dtype and shape; a named dimension is -1 there
  std::vector<std::string> dimensions;  // as many as the shape has; empty where there is no name
};

struct AotiRange {
  std::int64_t min = 0;
  std::int64_t max = std::numeric_limits<std::int64_t>::max();
};

struct AotiMetadata {
  std::string machine;                    // "x86_64"; empty: not said
  std::string device;                     // "cpu", "cuda"; empty: not said
  std::vector<std::string> cpu_features;  // by the kernel's names
  bool has_signature = false;
  std::vector<AotiTensor> inputs, outputs;  // in the order of the program
  std::map<std::string, AotiRange, std::less<>> dimensions;
  // Shapes of weights, as far as they are known, and strides of those that are not contiguous.
  std::map<std::string, Shape, std::less<>> constants, strides;
};

// INVALID_ARGUMENT; the text continues a sentence that begins with the file's name.
absl::StatusOr<AotiMetadata> ParseAotiMetadata(std::string_view json);

// OK when a machine can run what the package was compiled for; FAILED_PRECONDITION names what it lacks.
// An instruction that the CPU does not have would end the process.
absl::Status CheckMachine(const AotiMetadata& metadata, std::string_view machine, const CpuFeatures& features);

}  // namespace hearth
