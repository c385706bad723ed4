#include "server/torch_backend/weights_binder.h"

#include <map>
#include <string>
#include <thread>
#include <tuple>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "server/base/log.h"
#include "server/base/parallel.h"
#include "server/model/phase_timer.h"
#include "server/torch_backend/mapped_storage.h"
#include "server/torch_backend/state_analysis.h"
#include "server/torch_backend/torch_status.h"

namespace hearth {
namespace {

constexpr std::size_t kNamesInMessage = 8;

at::ScalarType ScalarTypeOf(const ElementType& type) {
  static const auto by_name = [] {
    std::unordered_map<std::string_view, at::ScalarType> types;
    for (int i = 0; i < static_cast<int>(at::ScalarType::NumOptions); ++i) {
      const auto scalar = static_cast<at::ScalarType>(i);
      types.emplace(c10::toString(scalar), scalar);
    }
    return types;
  }();
  const auto found = by_name.find(type.name);
  if (found != by_name.end()) return found->second;
  throw std::runtime_error(StrCat("this LibTorch has no element type ", type.name));
}

absl::StatusOr<std::vector<at::Storage>> MakeStorages(const Weights& weights, LoadReport& report,
                                                      PhaseTimer& binding) {
  std::vector<at::Storage> storages(weights.storages.size());
  std::vector<std::size_t> packed;
  for (std::size_t i = 0; i < storages.size(); ++i) {
    const WeightStorage& from = weights.storages[i];
    report.weight_bytes += from.size;
    at::DataPtr data;
    if (from.mappable() && from.size > 0) {
      data = MappedData(from.file, from.offset);
    } else {
      data = c10::GetAllocator(c10::DeviceType::CPU)->allocate(from.size);
      report.copied_bytes += from.size;
      if (from.size > 0) packed.push_back(i);
    }
    storages[i] = at::Storage(at::Storage::use_byte_size_t(), from.size, std::move(data));
  }
  const auto fill = [&](std::size_t index) -> absl::Status {
    const WeightStorage& from = weights.storages[packed[index]];
    const std::span out(static_cast<std::byte*>(storages[packed[index]].mutable_data()), from.size);
    if (from.unpack) return from.unpack(out);
    const auto bytes = from.file->bytes().subspan(from.offset, from.size);
    std::copy(bytes.begin(), bytes.end(), out.begin());
    return absl::OkStatus();
  };
  if (packed.empty()) return storages;
  PhaseTimer timer(report, LoadPhase::kRead, &binding);
  timer.AddBytes(weights.copied_bytes());
  HEARTH_RETURN_IF_ERROR(ParallelFor(packed.size(), std::thread::hardware_concurrency(), fill));
  return storages;
}

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

struct Attribute {
  std::string name;
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
      out.push_back({name, object, slot, type->is_parameter(slot)});
    }
  }
}

// Lists of names that go into the refusal, a few of each.
class Complaints {
 public:
  void Missing(const std::string& name) { Add(missing_, StrCat("'", name, "'")); }
  void Misfit(std::string what) { Add(misfits_, std::move(what)); }

  absl::Status status() const {
    if (missing_.count + misfits_.count == 0) return absl::OkStatus();
    std::string text = "the weights do not go with the program";
    if (missing_.count > 0) absl::StrAppend(&text, "; missing: ", missing_.text);
    if (misfits_.count > 0) absl::StrAppend(&text, "; not fitting: ", misfits_.text);
    return absl::InvalidArgumentError(text);
  }

 private:
  struct List {
    std::size_t count = 0;
    std::string text;
  };
  static void Add(List& list, std::string what) {
    if (list.count++ == kNamesInMessage) list.text += " and more";
    if (list.count > kNamesInMessage) return;
    if (list.count > 1) list.text += ", ";
    list.text += what;
  }
  List missing_, misfits_;
};

class WeightsBinder {
 public:
  WeightsBinder(torch::jit::Module& module, const Weights& weights, LoadReport& report, PhaseTimer& binding)
      : weights_(weights), report_(report), binding_(binding) {
    std::unordered_set<const ScriptObject*> seen;
    CollectAttributes(module._ivalue().get(), "", seen, attributes_);
  }

  absl::Status Bind() {
    HEARTH_ASSIGN_OR_RETURN(const std::vector<at::Storage> storages, MakeStorages(weights_, report_, binding_));
    for (const WeightTensor& tensor : weights_.tensors) {
      at::Tensor made = at::empty({0}, at::TensorOptions().dtype(ScalarTypeOf(*tensor.type)));
      made.set_(storages[tensor.storage], tensor.offset, tensor.sizes, tensor.strides);
      given_.emplace(tensor.name, Given{std::move(made)});
    }
    std::vector<const Attribute*> missing;
    std::vector<std::pair<const Attribute*, Given*>> present;
    for (const Attribute& attribute : attributes_) {
      const auto given = given_.find(attribute.name);
      if (given == given_.end()) {
        missing.push_back(&attribute);
      } else {
        given->second.used = true;
        present.emplace_back(&attribute, &given->second);
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

  const Weights& weights_;
  LoadReport& report_;
  PhaseTimer& binding_;
  std::vector<Attribute> attributes_;
  std::unordered_map<std::string, Given> given_;
  std::map<Identity, at::Tensor> by_identity_;
  Complaints complaints_;
};

}  // namespace

absl::Status BindWeights(torch::jit::Module& module, const Weights& weights, LoadReport& report) {
  PhaseTimer timer(report, LoadPhase::kBind);
  auto bound = CatchTorch("the weights cannot be bound", absl::StatusCode::kInvalidArgument,
                          [&] { return WeightsBinder(module, weights, report, timer).Bind(); });
  return bound.ok() ? *bound : bound.status();
}

}  // namespace hearth
