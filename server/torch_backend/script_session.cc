#include "server/torch_backend/script_session.h"

#include <utility>

namespace hearth {
namespace {

using StorageCopies = std::unordered_map<const c10::StorageImpl*, c10::Storage>;

// A copy of a tensor that shares memory with the copies of those its original shared memory with.
at::Tensor CopyTensor(const at::Tensor& tensor, StorageCopies& storages) {
  if (!tensor.defined()) return tensor;
  if (!tensor.has_storage() || tensor.layout() != at::kStrided || tensor.is_quantized()) {
    return tensor.clone();
  }
  const c10::StorageImpl* original = tensor.storage().unsafeGetStorageImpl();
  auto found = storages.find(original);
  if (found == storages.end()) {
    const auto bytes = static_cast<std::int64_t>(tensor.storage().nbytes());
    at::Tensor raw = at::empty({bytes}, tensor.options().dtype(at::kByte));
    at::Tensor whole = at::empty({0}, tensor.options().dtype(at::kByte)).set_(tensor.storage(), 0, {bytes}, {1});
    raw.copy_(whole);
    found = storages.emplace(original, raw.storage()).first;
  }
  at::Tensor copy = at::empty({0}, tensor.options())
                        .set_(found->second, tensor.storage_offset(), tensor.sizes(), tensor.strides());
  if (tensor.is_conj()) copy._set_conj(true);
  if (tensor.is_neg()) copy._set_neg(true);
  return copy;
}

at::IValue CopyValue(const at::IValue& value, StorageCopies& storages) {
  if (value.isTensor()) return CopyTensor(value.toTensor(), storages);
  return value.deepcopy();
}

std::uint64_t BytesOf(const at::Tensor& tensor) {
  return tensor.defined() && tensor.has_storage() ? tensor.nbytes() : 0;
}

std::uint64_t TensorBytes(const at::IValue& value) {
  if (value.isTensor()) return BytesOf(value.toTensor());
  if (value.isList()) {
    std::uint64_t sum = 0;
    for (const at::IValue& element : value.toListRef()) sum += TensorBytes(element);
    return sum;
  }
  return 0;
}

}  // namespace

SessionPlan::SessionPlan(torch::jit::Module module, const WrittenState& written)
    : module_(std::move(module)), everything_(written.everything) {
  if (everything_) {
    for (const AttributeTensor& attribute : AttributeTensors(module_)) {
      copied_bytes_ += BytesOf(attribute.tensor);
    }
  } else if (!written.slots.empty()) {
    PlanObject(module_._ivalue().get(), written);
  }
}

std::size_t SessionPlan::PlanObject(const ScriptObject* object, const WrittenState& written) {
  if (const auto known = planned_.find(object); known != planned_.end()) return known->second;
  planned_.emplace(object, npos);  // a cycle is cut here: module graphs are trees or share children
  ObjectPlan plan{object, {}};
  const auto own = written.slots.find(object);
  for (std::size_t slot = 0; slot < object->slots().size(); ++slot) {
    const at::IValue& value = object->getSlot(slot);
    if (value.isObject()) {
      const std::size_t child = PlanObject(&value.toObjectRef(), written);
      if (child != npos) plan.actions.push_back({SlotAction::Kind::kChild, slot, child});
    } else if (own != written.slots.end()) {
      const auto how = own->second.find(slot);
      if (how != own->second.end() && how->second == WrittenState::How::kInPlace) {
        plan.actions.push_back({SlotAction::Kind::kCopy, slot, npos});
        copied_bytes_ += TensorBytes(value);
      }
    }
  }
  if (plan.actions.empty() && own == written.slots.end()) return npos;
  objects_.push_back(std::move(plan));
  return planned_[object] = objects_.size() - 1;
}

torch::jit::Module SessionPlan::Copy() const {
  if (everything_) return module_.deepcopy();
  if (objects_.empty()) return module_;
  std::vector<c10::intrusive_ptr<ScriptObject>> copies;
  copies.reserve(objects_.size());
  StorageCopies storages;
  for (const ObjectPlan& plan : objects_) {
    c10::intrusive_ptr<ScriptObject> copy = plan.original->copy();
    for (const SlotAction& action : plan.actions) {
      if (action.kind == SlotAction::Kind::kChild) {
        copy->setSlot(action.slot, copies[action.child]);
      } else {
        copy->setSlot(action.slot, CopyValue(plan.original->getSlot(action.slot), storages));
      }
    }
    copies.push_back(std::move(copy));
  }
  return torch::jit::Module(copies.back());
}

}  // namespace hearth
