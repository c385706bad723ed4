#include "server/torch_backend/weights_binder.h"

#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "server/base/log.h"
#include "server/model/phase_timer.h"
#include "server/torch_backend/state_analysis.h"
#include "server/torch_backend/torch_status.h"
#include "server/torch_backend/weight_tensors.h"

namespace hearth {
namespace {

// What makes two attributes one tensor.
using Identity = std::tuple<const c10::StorageImpl*, std::int64_t, std::vector<std::int64_t>,
                            std::vector<std::int64_t>>;
Identity IdentityOf(const at::Tensor& t) {
  return {t.storage().unsafeGetStorageImpl(), t.storage_offset(), t.sizes().vec(), t.strides().vec()};
}

// Saved without its values: of the right shape, but with hardly any memory behind it.
bool IsHollow(const at::Tensor& tensor) {
  return tensor.storage().nbytes() < static_cast<std::size_t>(tensor.numel()) * tensor.element_size();
}

// Where a value is.
using Place = std::pair<const ScriptObject*, std::size_t>;

// Where a name leads, through whichever of a module's names it goes.
std::optional<Place> Follow(const ScriptObject* object, std::string_view name) {
  for (;;) {
    const std::size_t dot = name.find('.');
    const auto slot = object->type()->findAttributeSlot(std::string(name.substr(0, dot)));
    if (!slot) return std::nullopt;
    if (dot == name.npos) return Place{object, *slot};
    const at::IValue& value = object->getSlot(*slot);
    if (!value.isObject()) return std::nullopt;
    object = &value.toObjectRef();
    name.remove_prefix(dot + 1);
  }
}

struct Attribute {
  std::string name;  // the first, if the module that it belongs to has several
  ScriptObject* object;
  std::size_t slot;
  bool is_parameter;
};

void CollectAttributes(ScriptObject* object, const std::string& prefix,
                       std::unordered_set<const ScriptObject*>& seen, std::vector<Attribute>& out) {
  if (!seen.insert(object).second) return;
  const auto type = object->type();
  for (std::size_t slot = 0; slot < object->slots().size(); ++slot) {
    const at::IValue& value = object->getSlot(slot);
    const std::string name = StrCat(prefix, type->getAttributeName(slot));
    if (value.isObject()) {
      CollectAttributes(value.toObject().get(), StrCat(name, "."), seen, out);
    } else if (value.isTensor() && value.toTensor().defined() && value.toTensor().has_storage()) {
      // An object of a class that is no module has tensors, and none of them is a parameter.
      out.push_back({name, object, slot, type->is_module() && type->is_parameter(slot)});
    }
  }
}

class WeightsBinder {
 public:
  WeightsBinder(torch::jit::Module& module, const Weights& weights, Device& device, const std::stop_token& stop,
                LoadReport& report, PhaseTimer& binding)
      : root_(module._ivalue().get()),
        weights_(weights),
        device_(device),
        stop_(stop),
        report_(report),
        binding_(binding) {
    std::unordered_set<const ScriptObject*> seen;
    CollectAttributes(root_, "", seen, attributes_);
  }

  absl::Status Bind() {
    HEARTH_ASSIGN_OR_RETURN(std::vector<at::Tensor> made, MakeTensors(weights_, device_, stop_, report_, binding_));
    for (std::size_t i = 0; i < made.size(); ++i) {
      given_.emplace(weights_.tensors[i].name, Given{std::move(made[i])});
    }
    std::vector<const Attribute*> unnamed, missing;
    std::vector<std::pair<const Attribute*, Given*>> present;
    for (const Attribute& attribute : attributes_) {
      const auto given = given_.find(attribute.name);
      if (given == given_.end()) {
        unnamed.push_back(&attribute);
      } else {
        given->second.used = true;
        present.emplace_back(&attribute, &given->second);
      }
    }
    const std::map<Place, Given*> others = GivenByOtherNames();
    for (const Attribute* attribute : unnamed) {
      const auto other = others.find({attribute->object, attribute->slot});
      if (other == others.end()) {
        missing.push_back(attribute);
      } else {
        present.emplace_back(attribute, other->second);
      }
    }
    // Only what is missing asks which tensors were tied to which.
    for (const auto& [attribute, given] : present) Replace(*attribute, given->tensor, !missing.empty());
    for (const Attribute* attribute : missing) KeepOrComplain(*attribute);
    LogUnused();
    return complaints_.status();
  }

 private:
  struct Given {
    at::Tensor tensor;
    bool used = false;
  };

  // Of modules that have several names, attributes have one; what is given may have another.
  std::map<Place, Given*> GivenByOtherNames() {
    std::map<Place, Given*> found;
    for (const WeightTensor& tensor : weights_.tensors) {
      Given& given = given_.at(tensor.name);
      const auto place = given.used ? std::nullopt : Follow(root_, tensor.name);
      if (!place) continue;
      given.used = true;
      found.emplace(*place, &given);
    }
    return found;
  }

  void Replace(const Attribute& attribute, at::Tensor tensor, bool remember_identity) {
    const at::Tensor own = attribute.object->getSlot(attribute.slot).toTensor();
    if (own.sizes() != tensor.sizes()) {
      return complaints_.Misfit(StrCat("'", attribute.name, "' has shape ", ToString(Shape(tensor.sizes().vec())),
                                       ", the program wants ", ToString(Shape(own.sizes().vec()))));
    }
    if (own.scalar_type() != tensor.scalar_type()) {
      tensor = tensor.to(own.scalar_type());
      report_.copied_bytes += tensor.nbytes();
    }
    if (remember_identity) by_identity_.emplace(IdentityOf(own), tensor);
    attribute.object->setSlot(attribute.slot, std::move(tensor));
  }

  // A name that the files do not have.
  void KeepOrComplain(const Attribute& attribute) {
    const at::Tensor own = attribute.object->getSlot(attribute.slot).toTensor();
    if (const auto tied = by_identity_.find(IdentityOf(own)); tied != by_identity_.end()) {
      attribute.object->setSlot(attribute.slot, tied->second);
    } else if (attribute.is_parameter || IsHollow(own)) {
      complaints_.Missing(attribute.name);
    }
  }

  void LogUnused() const {
    std::vector<std::string_view> unused;
    for (const WeightTensor& tensor : weights_.tensors) {
      if (!given_.at(tensor.name).used && unused.size() < kNamesInMessage) unused.push_back(tensor.name);
    }
    if (unused.empty()) return;
    log::Warning("weights that the program does not use", {{"tensors", QuotedList(unused)}});
  }

  ScriptObject* const root_;
  const Weights& weights_;
  Device& device_;
  const std::stop_token& stop_;
  LoadReport& report_;
  PhaseTimer& binding_;
  std::vector<Attribute> attributes_;
  std::unordered_map<std::string, Given> given_;
  std::map<Identity, at::Tensor> by_identity_;
  WeightComplaints complaints_;
};

}  // namespace

absl::Status BindWeights(torch::jit::Module& module, const Weights& weights, Device& device,
                         const std::stop_token& stop, LoadReport& report) {
  PhaseTimer timer(report, LoadPhase::kBind);
  auto bound = CatchTorch("the weights cannot be bound", absl::StatusCode::kInvalidArgument,
                          [&] { return WeightsBinder(module, weights, device, stop, report, timer).Bind(); });
  return bound.ok() ? *bound : bound.status();
}

}  // namespace hearth
