// What a model takes and gives, and which model is meant.
#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "server/tensor/tensor.h"

namespace hearth {

// A concrete model version. The catalog resolves "latest" to one of these before anything below sees it.
struct ModelId {
  std::string name;
  std::int64_t version = 1;

  friend auto operator<=>(const ModelId&, const ModelId&) = default;

  // Absl's hash, for absl::flat_hash_map.
  template <typename H>
  friend H AbslHashValue(H h, const ModelId& id) {
    return H::combine(std::move(h), id.name, id.version);
  }
};

inline std::string ToString(const ModelId& id) { return id.name + ":" + std::to_string(id.version); }

struct TensorInfo {
  std::string name;
  DType dtype = DType::kUnknown;     // kUnknown: any
  std::optional<Shape> shape;        // none: any rank; -1: any size in that dimension
  bool optional = false;             // may be left out of a request (the program has a default)
  // The shape that the program has it in, where that is not the one above (tensor/reshape.h).
  std::optional<Shape> reshape = std::nullopt;
  bool is_tensor = false;  // a tensor of the program's: any type but kBytes
};

// The one of that name; null: there is none. Points into `infos`.
inline const TensorInfo* FindInfo(const std::vector<TensorInfo>& infos, std::string_view name) {
  for (const TensorInfo& info : infos) {
    if (info.name == name) return &info;
  }
  return nullptr;
}

// In the order of the program's arguments and results.
struct Signature {
  std::string platform;  // "pytorch_libtorch", as Triton calls it
  std::vector<TensorInfo> inputs;
  std::vector<TensorInfo> outputs;
  // False: how many outputs there are, and their names, is known only after a run (the program
  // returns a list or a dictionary). `outputs` is then empty.
  bool outputs_known = true;
  // Those of model.yaml, as it has them: a promise, which every answer is held to.
  std::vector<TensorInfo> declared_outputs;
  // Largest first dimension of every input; 0: the first dimension has no special meaning.
  std::int64_t max_batch_size = 0;
};

}  // namespace hearth
