// A module with state of its own and weights shared.
#pragma once

#include <unordered_map>
#include <vector>

#include "server/torch_backend/state_analysis.h"
#include "server/torch_backend/torch_headers.h"

namespace hearth {

// How to copy a module so that a run on the copy changes nothing of the original: only objects on the
// way to a written attribute are made anew, only what is written in place is copied, all else is
// shared. Worked out once per load; then a copy costs a few allocations.
//
// Immutable after construction, so thread-safe. Refers to the module it was made for.
class SessionPlan {
 public:
  SessionPlan(torch::jit::Module module, const WrittenState& written);

  // True: nothing is written, the module itself can be run by everybody at once.
  bool stateless() const { return !everything_ && objects_.empty(); }

  torch::jit::Module Copy() const;

  // Bytes of one copy's own tensors, for the ledger.
  std::uint64_t copied_bytes() const { return copied_bytes_; }

 private:
  struct SlotAction {
    enum class Kind : std::uint8_t { kChild, kCopy } kind;
    std::size_t slot;
    std::size_t child;  // index into objects_, for kChild
  };
  struct ObjectPlan {
    const ScriptObject* original;
    std::vector<SlotAction> actions;
  };
  // Returns the index in objects_, or npos when nothing below `object` is written.
  std::size_t PlanObject(const ScriptObject* object, const WrittenState& written);

  static constexpr std::size_t npos = static_cast<std::size_t>(-1);

  torch::jit::Module module_;
  bool everything_ = false;
  std::vector<ObjectPlan> objects_;  // children before parents; the root is the last
  std::unordered_map<const ScriptObject*, std::size_t> planned_;
  std::uint64_t copied_bytes_ = 0;
};

}  // namespace hearth
