// The optional <model>/model.yaml.
//
//   method: forward             # exported method to serve
//   program: net.pt             # name of the program's file; default: model.pt, model.jit, model.pt2 or program.pt
//   device: cpu
//   weights: [model.safetensors]  # beside program.pt; default: an index of shards, else all there are
//   max_batch_size: 8           # 0: the first dimension has no special meaning
//   instances: 0                # runs at the same time; 0: as many as there are compute threads
//   intra_op_threads: 2         # of one run; 0: the server's compute.intra_op_threads
//   inputs:                     # in the order of the program's arguments
//     - {name: x, datatype: FP32, shape: [-1, 16], optional: false}
//   outputs:
//     - {name: y, datatype: FP32, shape: [-1, 4], class_names: classes.txt}
//   warm_up:
//     - count: 2
//       inputs:
//         x: {datatype: FP32, shape: [1, 16], data: random}   # zeros, random, or a number
//   idle_unload: 10m            # evicted when nobody asked for it so long; 0s: never
//   min_residency: 1m           # younger than that it is among the last to make room
//   versions: {latest: 2}       # which ones are served: all, {latest: N} or {specific: [1, 3]}
//   labels: {stable: 1}         # names for versions
//   resource_preserving: false  # a higher version is loaded only when the one that answered has left
#pragma once

#include <filesystem>
#include <string_view>

#include "server/base/status.h"
#include "server/model/model_spec.h"

namespace hearth {

// A batch waits no longer for others, for so long a request waits with it, and whoever wants the model to leave.
inline constexpr Duration kLongestBatchDelay = std::chrono::seconds(10);

// Keys that it has take the place of what `under` says. INVALID_ARGUMENT lists everything that is wrong, one a line, with
// `file` and line.
absl::StatusOr<ModelOptions> ParseModelYaml(std::string_view text, const std::string& file, ModelOptions under = {});

// A letter, then letters, digits, '.', '_' and '-', 128 characters at most: nothing that could be a version's number.
bool IsLabel(std::string_view text);

// The same from a file. NOT_FOUND when there is none; PERMISSION_DENIED.
absl::StatusOr<ModelOptions> ReadModelYaml(const std::filesystem::path& path, const ModelOptions& under = {});

}  // namespace hearth
