// What a data.pkl or constants.pkl of PyTorch says, without running anything.
//
// LibTorch's own reader of these files believes them: it asks for a record by name and takes as
// many bytes from it as the pickle claims, reads the stack below its marks, and recurses as deep as
// values are nested. So every pickle is walked here first, and only one that passes reaches
// LibTorch:
//   - nothing but the opcodes and globals that such files are made of
//   - every storage fits into its record, every tensor into its storage
//   - values nested at most `max_depth` deep, no value inside itself, no memory spent on mere
//   claims
// What passes may still be refused by LibTorch (a class that is not in the archive, say), but
// cannot make it read what is not there.
//
// The result also says how large the weights are, which types they have and who shares them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "server/base/status.h"
#include "server/storage/element_type.h"
#include "server/tensor/tensor.h"

namespace hearth {

struct PickledStorage {
  std::string key;                    // the record is <archive folder>/<key>
  const ElementType* type = nullptr;  // never null
  std::uint64_t numel = 0;
  std::string device;  // as saved: "cpu", "cuda:0"
  std::uint64_t bytes() const { return numel * type->size; }
};

struct PickledTensor {
  std::size_t storage = 0;            // index into PickleSummary::storages
  const ElementType* type = nullptr;  // never null; of the elements, usually the storage's
  std::int64_t offset = 0;  // in elements, like strides
  Shape sizes;
  std::vector<std::int64_t> strides;
  std::string name;  // "encoder.weight", of the first attribute that has it; only where it was asked for
  bool quantized = false;
  bool requires_grad = false;
  // kTorchSave: its values are the conjugates, or the negatives, of what lies in its storage. Of TorchScript's
  // files LibTorch sees to that.
  bool conjugated = false;
  bool negated = false;
};

// Who wrote the pickle. torch.save writes Python's dictionaries where TorchScript has classes; of its
// files only those are read that hold tensors by name, a state_dict: nothing in them is ever called.
enum class PickleDialect { kTorchScript, kTorchSave };

struct StateDictItem {
  std::string name;
  std::size_t tensor = 0;  // index into PickleSummary::tensors
};

struct PickleSummary {
  std::vector<PickledStorage> storages;  // one per key
  std::vector<PickledTensor> tensors;    // tied tensors that are one object appear once
  std::vector<std::string> classes;      // "__torch__.Net"; sorted
  std::vector<StateDictItem> state_dict;   // kTorchSave: in the order of the file, each name once

  std::uint64_t storage_bytes() const {
    std::uint64_t sum = 0;
    for (const PickledStorage& storage : storages) sum += storage.bytes();
    return sum;
  }
};

struct PickleLimits {
  std::uint64_t max_bytes = 256ULL << 20;   // of the pickle
  std::uint32_t max_values = 16U << 20;     // on the stack, in the memo, and of tuples' items
  std::uint32_t max_containers = 4U << 20;  // lists, dictionaries, tuples
  std::uint32_t max_depth = 1000;
};

// Whether the tensors of a TorchScript pickle get the names of the attributes that hold them, as in state_dict().
// What lies in lists and dictionaries has none.
enum class TensorNames : std::uint8_t { kNo, kYes };

// The size of the record that holds a storage's bytes; nothing when there is no such record.
using RecordSize = std::function<std::optional<std::uint64_t>(std::string_view key)>;

// INVALID_ARGUMENT, saying at which byte and why.
absl::StatusOr<PickleSummary> WalkPickle(std::span<const std::byte> pickle,
                                         const RecordSize& record_size,
                                         const PickleLimits& limits = {},
                                         PickleDialect dialect = PickleDialect::kTorchScript,
                                         TensorNames names = TensorNames::kNo);

}  // namespace hearth
