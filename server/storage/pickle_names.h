// What the tensors of a TorchScript pickle are called. Behind pickle_walker.h; nobody else needs it.
#pragma once

#include "server/storage/pickle_values.h"

namespace hearth::pickle_internal {

// Gives each tensor that is an attribute of `top` or of its parts the path of names that leads to it, the first
// one where there are several. REQUIRES: heap.entries has the items of all dictionaries.
void NameTensors(Heap& heap, const Value& top);

}  // namespace hearth::pickle_internal
