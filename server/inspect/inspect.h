// `hearthd inspect FILE`: what is in a file of models or weights, or in all files of a version, without loading it.
#pragma once

#include <filesystem>
#include <string>

#include "server/base/status.h"

namespace hearth {

// JSON:
//   {"file", "bytes", "cached_bytes", "format": "torchscript" | "weights",
//    "weight_bytes", "mappable_bytes", "classes": [...], "code": [{"name", "bytes"}],
//    "tensors": [{"name", "type", "shape", "strides", "offset", "bytes", "mappable"}]}
// of an AOTInductor package, archive or directory:
//   {"file", "bytes", "format": "aoti", "machine", "device", "cpu_features": [...], "missing_features": [...],
//    "inputs": [{"name", "datatype", "shape"}], "outputs": [...], "files": [{"name", "bytes"}]}
// of an *.index.json, and of a version's or a model's folder (its highest version), each file as above:
//   {"format": "index", "file", "files": [...]}
//   {"format": "model", "model", "version", "files": [...]}
// "offset" is null where the elements do not lie in the file as they are: packed ones, and where there are none.
// Tensors of a TorchScript archive have the names of attributes, as in state_dict(); constants and those in lists the
// names of the records that they lie in ("constants/12").
// The same refusals as a load's, with nothing run and no weights read.
absl::StatusOr<std::string> Inspect(const std::filesystem::path& path);

}  // namespace hearth
