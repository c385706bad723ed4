#include "server/torch_backend/written_state_memo.h"

#include <unordered_map>
#include <utility>

#include "server/base/strings.h"

namespace hearth {
namespace {

// A module's objects in the order of a walk, and a text that two modules share when they are built alike.
struct Walk {
  std::vector<const ScriptObject*> objects;
  std::unordered_map<const ScriptObject*, std::size_t> index;
  std::string shape;

  void Visit(const ScriptObject* object) {
    const auto [at, is_new] = index.try_emplace(object, objects.size());
    if (!is_new) {
      absl::StrAppend(&shape, "#", at->second, ";");
      return;
    }
    objects.push_back(object);
    const auto type = object->type();
    shape += type->name() ? type->name()->qualifiedName() : "?";
    for (std::size_t slot = 0; slot < object->slots().size(); ++slot) {
      const at::IValue& value = object->getSlot(slot);
      if (value.isObject()) {
        absl::StrAppend(&shape, "(", slot, ":");
        Visit(&value.toObjectRef());
        shape += ')';
      } else if (value.isBool() && type->getAttributeName(slot) == "training") {
        shape += value.toBool() ? "T" : "E";
      }
    }
  }
};

}  // namespace

WrittenState WrittenStateMemo::Find(const torch::jit::Module& module, const torch::jit::Method& method) {
  Walk walk;
  walk.Visit(module._ivalue().get());
  const std::string key = StrCat(method.name(), "|", walk.shape);
  {
    MutexLock lock(mu_);
    if (const auto at = known_.find(key); at != known_.end()) {
      WrittenState written;
      written.everything = at->second.everything;
      for (const Slot& slot : at->second.slots) written.Add(walk.objects[slot.object], slot.slot, slot.how);
      AddAliases(module, written);
      return written;
    }
  }
  WrittenState written = FindWrittenState(module, method);
  Known known{.slots = {}, .everything = written.everything};
  for (const auto& [object, slots] : written.slots) {
    const auto at = walk.index.find(object);
    if (at == walk.index.end()) return written;  // hidden in a list: cannot be told by its place
    for (const auto& [slot, how] : slots) known.slots.push_back({at->second, slot, how});
  }
  MutexLock lock(mu_);
  known_.emplace(key, std::move(known));
  return written;
}

}  // namespace hearth
