// Which attributes of a module a run of a method may write.
//
// Three ways a TorchScript program changes its module: `self.x = y` (a SetAttr node), in-place
// operators on an attribute's tensor (no SetAttr: seen by alias analysis on the inlined graph), and
// changes of mutable lists and dictionaries. What analysis cannot follow is caught at run time by the
// tensors' version counters (torch_model.cc).
#pragma once

#include <cstddef>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "server/torch_backend/torch_headers.h"

namespace hearth {

using ScriptObject = c10::ivalue::Object;

// Objects are those of the module that was analysed.
struct WrittenState {
  enum class How : std::uint8_t {
    kReplaced,  // SetAttr only: a session needs a slot of its own, the first value can be shared
    kInPlace,   // the value itself changes: a session needs a copy of it
  };
  std::unordered_map<const ScriptObject*, std::unordered_map<std::size_t, How>> slots;
  // Something is written that could not be traced back to attributes: sessions copy everything.
  bool everything = false;

  bool empty() const { return slots.empty() && !everything; }
  void Add(const ScriptObject* object, std::size_t slot, How how);
};

WrittenState FindWrittenState(const torch::jit::Module& module, const torch::jit::Method& method);

// Adds every attribute that shares memory with one written in place (tied weights, views).
void AddAliases(const torch::jit::Module& module, WrittenState& written);

// One attribute that holds a tensor, possibly inside a list, tuple or dictionary.
struct AttributeTensor {
  const ScriptObject* object = nullptr;
  std::size_t slot = 0;
  at::Tensor tensor;
};
// All of a module's, in a fixed order that depends on its types alone. Each object is visited once.
std::vector<AttributeTensor> AttributeTensors(const torch::jit::Module& module);

}  // namespace hearth
