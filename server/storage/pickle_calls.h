// What the globals of PyTorch's pickles stand for, and what calling them makes. Behind
// pickle_walker.h; nobody else needs it.
#pragma once

#include <string_view>

#include "server/base/status.h"
#include "server/storage/pickle_values.h"

namespace hearth::pickle_internal {

// GLOBAL: a function, a class of the program, or one of torch's enumerators.
absl::StatusOr<Value> ResolveGlobal(Heap& heap, std::string_view module, std::string_view name);

// REDUCE: `callee` is a kFunction.
absl::StatusOr<Value> Call(Heap& heap, const Value& callee, const Value& argument);

// Whether REDUCE makes an empty OrderedDict.
bool IsNewDict(const Heap& heap, const Value& callee, const Value& arguments);

// The tensors by name in what a torch.save pickle ended with: a state_dict, or a checkpoint that has
// one under 'state_dict', 'model_state_dict' or 'model'. INVALID_ARGUMENT when there are none.
absl::StatusOr<std::vector<StateDictItem>> StateDict(const Heap& heap, const Value& top);

// BINPERSID: ('storage', type, key, device, numel).
absl::StatusOr<Value> LoadStorage(Heap& heap, const Value& id, const RecordSize& record_size);

}  // namespace hearth::pickle_internal
