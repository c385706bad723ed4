// `hearthd inspect FILE`: what is in a file of models or weights, without loading it.
#pragma once

#include <filesystem>
#include <string>

#include "server/base/status.h"

namespace hearth {

// JSON:
//   {"file", "bytes", "cached_bytes", "format": "torchscript" | "weights",
//    "weight_bytes", "mappable_bytes", "classes": [...], "code": [{"name", "bytes"}],
//    "tensors": [{"name", "type", "shape", "strides", "offset", "bytes", "mappable"}]}
// and of an AOTInductor package, archive or directory:
//   {"file", "bytes", "format": "aoti", "machine", "device", "cpu_features": [...], "missing_features": [...],
//    "inputs": [{"name", "datatype", "shape"}], "outputs": [...], "files": [{"name", "bytes"}]}
// A TorchScript archive's tensors are called after the records they lie in ("data/12"). The same
// refusals as a load's, with nothing run and no weights read.
absl::StatusOr<std::string> Inspect(const std::filesystem::path& path);

}  // namespace hearth
