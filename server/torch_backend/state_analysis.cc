#include "server/torch_backend/state_analysis.h"

#include <optional>

#include "server/base/check.h"

namespace hearth {
namespace {

namespace jit = torch::jit;

// Where an object-valued expression of the graph comes from.
struct Origin {
  enum class Kind { kAttribute, kLocal, kUnknown } kind = Kind::kUnknown;
  const ScriptObject* object = nullptr;
};

// Follows chains of GetAttr back to the method's `self`.
Origin OriginOf(const jit::Value* value, const jit::Value* self, const ScriptObject* root) {
  if (value == self) return {Origin::Kind::kAttribute, root};
  const jit::Node* node = value->node();
  if (node->kind() == c10::prim::CreateObject) return {Origin::Kind::kLocal, nullptr};
  if (node->kind() != c10::prim::GetAttr) return {};
  const Origin parent = OriginOf(node->input(0), self, root);
  if (parent.kind != Origin::Kind::kAttribute) return parent;
  const std::string& name = node->s(c10::attr::name);
  const auto slot = parent.object->type()->findAttributeSlot(name);
  if (!slot) return {};
  const at::IValue& child = parent.object->getSlot(*slot);
  if (!child.isObject()) return {};
  return {Origin::Kind::kAttribute, &child.toObjectRef()};
}

bool AnyModuleTrains(const jit::Module& module) {
  for (const jit::Module& m : module.modules()) {
    if (m.hasattr("training") && m.attr("training").isBool() && m.attr("training").toBool()) return true;
  }
  return false;
}

// Batch and instance normalisation update their running statistics in training mode, and their
// schemas do not say so. The arguments at these positions are written then.
bool UpdatesRunningStatistics(const jit::Node* node) {
  static const std::unordered_set<std::string> kinds = {
      "aten::batch_norm", "aten::instance_norm", "aten::native_batch_norm", "aten::cudnn_batch_norm",
      "aten::_batch_norm_impl_index"};
  return kinds.count(node->kind().toQualString()) > 0;
}

class Analysis {
 public:
  Analysis(const jit::Module& module, const jit::Method& method)
      : graph_(method.graph()->copy()), root_(module._ivalue().get()), trains_(AnyModuleTrains(module)) {
    jit::Inline(*graph_);
    self_ = graph_->inputs().at(0);
    // "Frozen" makes each GetAttr a memory location of its own instead of one that may alias every
    // other attribute: without it a single in-place write would make all weights state. Attributes
    // that do share memory are joined afterwards by AddAliases().
    aliases_.emplace(graph_, /*isFrozen=*/true);
  }

  WrittenState Run() {
    CollectWrites(graph_->block());
    Visit(graph_->block());
    return std::move(written_);
  }

 private:
  void CollectWrites(jit::Block* block) {
    for (jit::Node* node : block->nodes()) {
      if (const auto* schema = node->maybeSchema()) {
        const auto& arguments = schema->arguments();
        for (std::size_t i = 0; i < arguments.size() && i < node->inputs().size(); ++i) {
          if (arguments[i].alias_info() != nullptr && arguments[i].alias_info()->isWrite()) {
            writes_.push_back(node->input(i));
          }
        }
      }
      if (trains_ && UpdatesRunningStatistics(node)) {
        for (const std::size_t i : {std::size_t{3}, std::size_t{4}}) {
          if (i < node->inputs().size()) writes_.push_back(node->input(i));
        }
      }
      for (jit::Block* inner : node->blocks()) CollectWrites(inner);
    }
  }

  void Visit(jit::Block* block) {
    for (jit::Node* node : block->nodes()) {
      VisitNode(node);
      for (jit::Block* inner : node->blocks()) Visit(inner);
    }
  }

  void VisitNode(jit::Node* node) {
    if (node->kind() == c10::prim::SetAttr) {
      Mark(node->input(0), node->s(c10::attr::name), WrittenState::How::kReplaced);
    } else if (node->kind() == c10::prim::GetAttr) {
      if (HoldsMemory(*node->output()->type()) && IsWritten(node->output())) {
        Mark(node->input(0), node->s(c10::attr::name), WrittenState::How::kInPlace);
      }
    } else if (node->kind() == c10::prim::CallMethod || node->kind() == c10::prim::CallFunction) {
      VisitOpaqueCall(node);
    } else if (node->hasAttribute(c10::attr::Subgraph)) {
      // fork and friends: a subgraph's inputs are not those of this graph, so only a subgraph that
      // writes nothing at all is known to be harmless.
      if (Writes(node->g(c10::attr::Subgraph)->block())) written_.everything = true;
    }
  }

  // After inlining only calls through interfaces and into C++ classes are left.
  void VisitOpaqueCall(jit::Node* node) {
    const jit::Value* receiver = node->inputs().empty() ? nullptr : node->input(0);
    const jit::Node* producer = receiver != nullptr ? receiver->node() : nullptr;
    if (producer != nullptr && producer->kind() == c10::prim::GetAttr &&
        receiver->type()->kind() == c10::TypeKind::ClassType &&
        !receiver->type()->expectRef<c10::ClassType>().is_module()) {
      Mark(producer->input(0), producer->s(c10::attr::name), WrittenState::How::kInPlace);
    } else {
      written_.everything = true;
    }
  }

  static bool Writes(const jit::Block* block) {
    for (const jit::Node* node : block->nodes()) {
      if (node->kind() == c10::prim::SetAttr || node->kind() == c10::prim::CallMethod) return true;
      if (const auto* schema = node->maybeSchema(); schema != nullptr && schema->is_mutable()) return true;
      for (const jit::Block* inner : node->blocks()) {
        if (Writes(inner)) return true;
      }
    }
    return false;
  }

  static bool HoldsMemory(const c10::Type& type) {
    switch (type.kind()) {
      case c10::TypeKind::IntType:
      case c10::TypeKind::FloatType:
      case c10::TypeKind::ComplexType:
      case c10::TypeKind::BoolType:
      case c10::TypeKind::StringType:
      case c10::TypeKind::NoneType:
      case c10::TypeKind::DeviceObjType:
      case c10::TypeKind::EnumType:
      case c10::TypeKind::ClassType:
        return false;
      default:
        return true;
    }
  }

  bool IsWritten(jit::Value* value) {
    if (writes_.empty()) return false;
    if (aliases_->hasWriters(value)) return true;
    if (value->type()->kind() == c10::TypeKind::TensorType) {
      for (jit::Value* write : writes_) {
        if (aliases_->mayAlias(value, write)) return true;
      }
      return false;
    }
    for (jit::Value* write : writes_) {
      if (aliases_->mayContainAlias(value, write)) return true;
    }
    return false;
  }

  void Mark(const jit::Value* object, const std::string& attribute, WrittenState::How how) {
    const Origin origin = OriginOf(object, self_, root_);
    if (origin.kind == Origin::Kind::kLocal) return;
    const auto slot = origin.kind == Origin::Kind::kAttribute
                          ? origin.object->type()->findAttributeSlot(attribute)
                          : std::nullopt;
    if (slot) {
      written_.Add(origin.object, *slot, how);
    } else {
      written_.everything = true;
    }
  }

  std::shared_ptr<jit::Graph> graph_;
  const ScriptObject* root_;
  const bool trains_;
  const jit::Value* self_ = nullptr;
  std::optional<jit::AliasDb> aliases_;
  std::vector<jit::Value*> writes_;
  WrittenState written_;
};

void CollectTensors(const at::IValue& value, std::vector<at::Tensor>& out) {
  if (value.isTensor()) {
    if (value.toTensor().defined()) out.push_back(value.toTensor());
  } else if (value.isList()) {
    for (const at::IValue& element : value.toListRef()) CollectTensors(element, out);
  } else if (value.isTuple()) {
    for (const at::IValue& element : value.toTupleRef().elements()) CollectTensors(element, out);
  } else if (value.isGenericDict()) {
    for (const auto& item : value.toGenericDict()) CollectTensors(item.value(), out);
  }
}

void VisitObjects(const ScriptObject* object, std::unordered_set<const ScriptObject*>& seen,
                  std::vector<AttributeTensor>& out) {
  if (!seen.insert(object).second) return;
  for (std::size_t slot = 0; slot < object->slots().size(); ++slot) {
    const at::IValue& value = object->getSlot(slot);
    if (value.isObject()) {
      VisitObjects(&value.toObjectRef(), seen, out);
      continue;
    }
    std::vector<at::Tensor> tensors;
    CollectTensors(value, tensors);
    for (at::Tensor& tensor : tensors) out.push_back({object, slot, std::move(tensor)});
  }
}

const c10::StorageImpl* StorageOf(const at::Tensor& tensor) {
  return tensor.has_storage() ? tensor.storage().unsafeGetStorageImpl() : nullptr;
}

}  // namespace

void WrittenState::Add(const ScriptObject* object, std::size_t slot, How how) {
  auto [it, added] = slots[object].emplace(slot, how);
  if (!added && how == How::kInPlace) it->second = how;
}

WrittenState FindWrittenState(const torch::jit::Module& module, const torch::jit::Method& method) {
  WrittenState written = Analysis(module, method).Run();
  AddAliases(module, written);
  return written;
}

void AddAliases(const torch::jit::Module& module, WrittenState& written) {
  const std::vector<AttributeTensor> all = AttributeTensors(module);
  std::unordered_set<const c10::StorageImpl*> storages;
  for (const AttributeTensor& attribute : all) {
    const auto object = written.slots.find(attribute.object);
    if (object == written.slots.end()) continue;
    const auto slot = object->second.find(attribute.slot);
    if (slot == object->second.end() || slot->second != WrittenState::How::kInPlace) continue;
    if (const auto* storage = StorageOf(attribute.tensor)) storages.insert(storage);
  }
  for (const AttributeTensor& attribute : all) {
    const auto* storage = StorageOf(attribute.tensor);
    if (storage != nullptr && storages.count(storage) > 0) {
      written.Add(attribute.object, attribute.slot, WrittenState::How::kInPlace);
    }
  }
}

std::vector<AttributeTensor> AttributeTensors(const torch::jit::Module& module) {
  std::vector<AttributeTensor> out;
  std::unordered_set<const ScriptObject*> seen;
  VisitObjects(module._ivalue().get(), seen, out);
  return out;
}

}  // namespace hearth
