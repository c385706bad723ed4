// Weights by path, in whatever format: told by content, not by name.
//
//   safetensors                   one file
//   *.index.json                  its shards: safetensors or torch.save files beside it
//   a state_dict by torch.save    zip format
//   HDF5                          see hdf5.h
//
// Refused with what to do about it: whole-module pickles, the tar and pickle formats of torch.save
// before 1.6, TorchScript archives.
#pragma once

#include <filesystem>
#include <functional>
#include <vector>

#include "server/base/status.h"
#include "server/storage/mapped_files.h"
#include "server/storage/weights.h"

namespace hearth {

// The files that hold the weights which `path` names: itself, or the shards of an index, which are
// names beside it, never paths. Sorted, each once.
absl::StatusOr<std::vector<std::filesystem::path>> WeightFiles(const std::filesystem::path& path);

// One file, no index. NOT_FOUND, PERMISSION_DENIED, INVALID_ARGUMENT; the text names the file. Reads
// headers only.
absl::StatusOr<Weights> ReadWeights(const std::filesystem::path& file);
absl::StatusOr<Weights> ReadWeights(const std::shared_ptr<const MappedFile>& file);

// The shards as one. INVALID_ARGUMENT when two of them have a tensor of the same name.
absl::StatusOr<Weights> JoinWeights(std::vector<Weights> shards);

// Everything that several paths name, indexes among them, as one. `open` opens the files, several at a time.
using OpenWeights = std::function<absl::StatusOr<std::shared_ptr<const MappedFile>>(const std::filesystem::path&)>;
absl::StatusOr<Weights> ReadAllWeights(const std::vector<std::filesystem::path>& paths, const OpenWeights& open);

namespace weights_internal {
// The file names in an index: {"weight_map": {"tensor": "file", ...}}. For tests and fuzzing.
absl::StatusOr<std::vector<std::string>> ParseIndex(std::string_view text);
}  // namespace weights_internal

}  // namespace hearth
