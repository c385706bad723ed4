#include "server/torch_backend/torchscript_model.h"

#include <algorithm>
#include <utility>

#include "server/base/check.h"
#include "server/base/log.h"
#include "server/torch_backend/tensor_bridge.h"
#include "server/torch_backend/torch_status.h"

namespace hearth {
namespace {

std::uint32_t VersionOf(const at::Tensor& tensor) {
  // Tensors made in InferenceMode count no versions; weights never are.
  return tensor.is_inference() ? 0 : tensor.unsafeGetTensorImpl()->version_counter().current_version();
}

}  // namespace

// A module of its own; run by one thread at a time.
class TorchScriptModel::ScriptSession final : public Session {
 public:
  ScriptSession(std::shared_ptr<const Binding> binding, torch::jit::Module module)
      : binding_(std::move(binding)), module_(std::move(module)) {}
  const std::shared_ptr<const Binding> binding_;
  torch::jit::Module module_;
};

absl::StatusOr<std::unique_ptr<TorchScriptModel>> TorchScriptModel::Create(Parts parts) {
  BoundModule bound = std::move(parts.bound);
  const std::string method = parts.method;
  std::unique_ptr<TorchScriptModel> model(new TorchScriptModel(std::move(parts)));
  HEARTH_ASSIGN_OR_RETURN(auto binding, MakeBinding(std::move(bound), method, {}));
  {
    MutexLock lock(model->mu_);
    model->binding_ = std::move(binding);
  }
  return model;
}

TorchScriptModel::TorchScriptModel(Parts parts)
    : source_(std::move(parts.source)),
      device_(parts.device),
      method_(std::move(parts.method)),
      program_(std::move(parts.program)) {}

absl::StatusOr<std::shared_ptr<const TorchScriptModel::Binding>> TorchScriptModel::MakeBinding(
    BoundModule bound, const std::string& method, const std::vector<std::size_t>& also_written) {
  const auto found = bound.module.find_method(method);
  if (!found) {
    std::vector<std::string> names;
    for (const auto& m : bound.module.get_methods()) names.push_back(m.name());
    return absl::InvalidArgumentError(
        StrCat("the program has no method '", method, "'; it has ", QuotedList(names)));
  }
  WrittenState written = bound.program->Written(bound.module, *found);
  std::vector<AttributeTensor> attributes = AttributeTensors(bound.module);
  for (const std::size_t i : also_written) {
    written.Add(attributes[i].object, attributes[i].slot, WrittenState::How::kInPlace);
  }
  if (!also_written.empty()) AddAliases(bound.module, written);
  std::vector<std::uint32_t> versions;
  for (const AttributeTensor& attribute : attributes) versions.push_back(VersionOf(attribute.tensor));
  for (const at::IValue& constant : bound.constants) {
    versions.push_back(constant.isTensor() ? VersionOf(constant.toTensor()) : 0);
  }
  SessionPlan plan(bound.module, written);
  torch::jit::Function& function = found->function();
  return std::make_shared<const Binding>(Binding{std::move(bound), &function, std::move(attributes),
                                                 std::move(versions), std::move(plan)});
}

std::shared_ptr<const TorchScriptModel::Binding> TorchScriptModel::CurrentBinding() const {
  MutexLock lock(mu_);
  return binding_;
}

std::uint64_t TorchScriptModel::session_bytes() const { return CurrentBinding()->plan.copied_bytes(); }

absl::StatusOr<std::unique_ptr<Session>> TorchScriptModel::NewSession() const {
  return CatchTorch("copy the state of the model", absl::StatusCode::kInternal,
                    [&]() -> std::unique_ptr<Session> {
                      const c10::InferenceMode guard;
                      auto binding = CurrentBinding();
                      torch::jit::Module module = binding->plan.Copy();
                      return std::make_unique<ScriptSession>(std::move(binding), std::move(module));
                    });
}

absl::StatusOr<TensorList> TorchScriptModel::Run(const TensorList& inputs, Session* session) const {
  // A few rounds: each ends with one more attribute known to be written.
  for (int round = 0; round < 8; ++round) {
    std::shared_ptr<const Binding> binding;
    auto caught = CatchTorch(
        "the model refused the request", absl::StatusCode::kInvalidArgument,
        [&]() -> absl::StatusOr<TensorList> {
          const c10::InferenceMode guard;
          if (session != nullptr) {
            auto& own = static_cast<ScriptSession&>(*session);
            binding = own.binding_;
            return RunOn(*binding, own.module_, inputs);
          }
          binding = CurrentBinding();
          return RunOn(*binding, binding->plan.Copy(), inputs);
        });
    absl::StatusOr<TensorList> outputs = caught.ok() ? *std::move(caught) : std::move(caught).status();
    HEARTH_RETURN_IF_ERROR(source_.Intact());
    const std::vector<std::size_t> changed = Changed(*binding);
    if (changed.empty()) return outputs;
    HEARTH_RETURN_IF_ERROR(Rebind(binding, changed));
    // A session's own copies are right; only what it shares was replaced for those to come.
    if (session != nullptr) return outputs;
  }
  return absl::InternalError("the program writes to its weights in ways that cannot be kept apart");
}

absl::StatusOr<TensorList> TorchScriptModel::RunOn(const Binding& binding, torch::jit::Module module,
                                                   const TensorList& inputs) const {
  HEARTH_ASSIGN_OR_RETURN(std::vector<at::IValue> stack,
                          BuildStack(program_, module._ivalue(), inputs, device_));
  binding.function->run(stack);
  HEARTH_CHECK(stack.size() == 1);
  at::IValue result = std::move(stack.front());
  stack.clear();
  return UnwrapResult(std::move(result), program_.output_names);
}

std::vector<std::size_t> TorchScriptModel::Changed(const Binding& binding) {
  std::vector<std::size_t> changed;  // allocates nothing while it stays empty
  std::size_t i = 0;
  for (const AttributeTensor& attribute : binding.attributes) {
    if (VersionOf(attribute.tensor) != binding.versions[i]) changed.push_back(i);
    ++i;
  }
  for (const at::IValue& constant : binding.bound.constants) {
    if (constant.isTensor() && VersionOf(constant.toTensor()) != binding.versions[i]) changed.push_back(i);
    ++i;
  }
  return changed;
}

absl::Status TorchScriptModel::Rebind(const std::shared_ptr<const Binding>& spoilt,
                                      const std::vector<std::size_t>& changed) const {
  if (changed.back() >= spoilt->attributes.size()) spoilt->bound.program->Spoil();
  if (changed.front() >= spoilt->attributes.size()) {
    return absl::FailedPreconditionError(
        "the program writes in place to a constant of its graph, which requests would share; clone the "
        "constant in forward() before changing it");
  }
  MutexLock lock(mu_);  // held while binding: everybody else needs the new binding anyway
  if (binding_ != spoilt) return absl::OkStatus();
  for (const std::size_t i : changed) {
    if (i >= spoilt->attributes.size()) break;  // constants come last
    if (std::find(also_written_.begin(), also_written_.end(), i) == also_written_.end()) {
      also_written_.push_back(i);
    }
  }
  log::Warning("weights written during a run; bound anew, requests get copies of them",
               {{"file", source_.program.file->path().string()}, {"attributes", also_written_.size()}});
  HEARTH_ASSIGN_OR_RETURN(const ScriptSource fresh, MapAgain(source_));
  LoadReport report;
  HEARTH_ASSIGN_OR_RETURN(BoundModule bound, BindSource(*spoilt->bound.program, fresh, report));
  if (!device_.is_cpu()) bound.module.to(device_);
  HEARTH_ASSIGN_OR_RETURN(binding_, MakeBinding(std::move(bound), method_, also_written_));
  return absl::OkStatus();
}

void TorchScriptModel::LearnOutputs(const TensorList& outputs) {
  Signature& signature = program_.signature;
  if (!signature.outputs_known) {
    // How many there are may depend on the request: names and types are left open.
    return;
  }
  for (std::size_t i = 0; i < outputs.size() && i < signature.outputs.size(); ++i) {
    TensorInfo& info = signature.outputs[i];
    if (info.dtype == DType::kUnknown) info.dtype = outputs[i].tensor.dtype;
    if (!info.shape) info.shape = Shape(outputs[i].tensor.shape.size(), -1);
  }
}

}  // namespace hearth
