#include "server/torch_backend/torchscript_model.h"

#include <algorithm>
#include <utility>

#include "server/base/check.h"
#include "server/base/log.h"
#include "server/torch_backend/runtime.h"
#include "server/torch_backend/tensor_bridge.h"
#include "server/torch_backend/torch_status.h"

namespace hearth {
namespace {

constexpr int kRounds = 8;
constexpr char kHopeless[] = "the program writes to its weights in ways that cannot be kept apart";

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
  std::unique_ptr<TorchScriptModel> model(new TorchScriptModel(parts));
  HEARTH_ASSIGN_OR_RETURN(auto binding, MakeBinding(std::move(parts.source), std::move(parts.use),
                                                    std::move(parts.bound), model->method_, {}));
  {
    MutexLock lock(model->mu_);
    model->binding_ = std::move(binding);
  }
  return model;
}

TorchScriptModel::TorchScriptModel(Parts& parts)
    : files_(std::move(parts.files)),
      device_(std::move(parts.device)),
      method_(std::move(parts.method)),
      threads_(parts.threads),
      program_(std::move(parts.program)) {}

absl::StatusOr<std::shared_ptr<const TorchScriptModel::Binding>> TorchScriptModel::MakeBinding(
    ScriptSource source, SourceUse use, BoundModule bound, const std::string& method,
    const std::vector<std::size_t>& also_written) {
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
  return std::make_shared<const Binding>(Binding{std::move(source), std::move(use), std::move(bound), &function,
                                                 std::move(attributes), std::move(versions), std::move(plan)});
}

std::shared_ptr<const TorchScriptModel::Binding> TorchScriptModel::CurrentBinding() const {
  MutexLock lock(mu_);
  return binding_;
}

std::uint64_t TorchScriptModel::session_bytes() const { return CurrentBinding()->plan.copied_bytes(); }

bool TorchScriptModel::stateful() const { return !CurrentBinding()->plan.stateless(); }

absl::StatusOr<std::unique_ptr<Session>> TorchScriptModel::NewSession() const {
  UseTorchThreads(threads_);
  for (int round = 0; round < kRounds; ++round) {
    auto binding = CurrentBinding();
    auto session = CatchTorch("copy the state of the model", absl::StatusCode::kInternal,
                              [&]() -> std::unique_ptr<Session> {
                                const c10::InferenceMode guard;
                                return std::make_unique<ScriptSession>(binding, binding->plan.Copy());
                              });
    const Disturbance disturbance = Disturbed(*binding);
    if (!disturbance.any()) return session;
    HEARTH_RETURN_IF_ERROR(Rebind(binding, disturbance, false));  // the copies may be of what was written
  }
  return absl::InternalError(kHopeless);
}

absl::StatusOr<TensorList> TorchScriptModel::Run(const TensorList& inputs, Session* session) const {
  UseTorchThreads(threads_);
  // Each round that is not the last ends with one more attribute known to be written, or on a mapping that
  // nobody has written to.
  for (int round = 0; round < kRounds; ++round) {
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
    if (check_ != nullptr) HEARTH_RETURN_IF_ERROR(check_->status());  // it knows more than Intact()
    HEARTH_RETURN_IF_ERROR(Intact(*binding));
    const Disturbance disturbance = Disturbed(*binding);
    if (!disturbance.any()) return outputs;
    HEARTH_RETURN_IF_ERROR(Rebind(binding, disturbance, /*own_mapping=*/round > 0 && disturbance.changed.empty()));
    if (session != nullptr) {
      // What it has written itself is its state; only what it shares was replaced for those to come.
      if (!disturbance.changed.empty()) return outputs;
      return absl::AbortedError("weights that this session shares were written to; begin a new one");
    }
  }
  return absl::InternalError(kHopeless);
}

absl::StatusOr<TensorList> TorchScriptModel::RunOn(const Binding& binding, torch::jit::Module module,
                                                   const TensorList& inputs) const {
  HEARTH_ASSIGN_OR_RETURN(std::vector<at::IValue> stack,
                          BuildStack(program_, module._ivalue(), inputs, device_->torch()));
  std::optional<torch::jit::GraphOptimizerEnabledGuard> unoptimised;  // on this thread
  if (binding.bound.program->TakeHurry()) unoptimised.emplace(false);
  binding.function->run(stack);
  unoptimised.reset();
  HEARTH_CHECK(stack.size() == 1);
  at::IValue result = std::move(stack.front());
  stack.clear();
  HEARTH_ASSIGN_OR_RETURN(TensorList outputs, UnwrapResult(std::move(result), program_.output_names));
  HEARTH_RETURN_IF_ERROR(ReshapeOutputs(program_.signature, outputs));
  return outputs;
}

absl::Status TorchScriptModel::Intact(const Binding& binding) const {
  return device_->is_host() ? binding.source.Intact() : absl::OkStatus();
}

TorchScriptModel::Disturbance TorchScriptModel::Disturbed(const Binding& binding) const {
  // Allocates nothing while all is well.
  Disturbance found{.changed = {}, .written = device_->is_host() && binding.source.written()};
  std::size_t i = 0;
  for (const AttributeTensor& attribute : binding.attributes) {
    if (VersionOf(attribute.tensor) != binding.versions[i]) found.changed.push_back(i);
    ++i;
  }
  for (const at::IValue& constant : binding.bound.constants) {
    if (constant.isTensor() && VersionOf(constant.toTensor()) != binding.versions[i]) found.changed.push_back(i);
    ++i;
  }
  return found;
}

absl::Status TorchScriptModel::Rebind(const std::shared_ptr<const Binding>& spoilt, const Disturbance& disturbance,
                                      bool own_mapping) const {
  const std::vector<std::size_t>& changed = disturbance.changed;
  if (!changed.empty()) {
    if (changed.back() >= spoilt->attributes.size()) spoilt->bound.program->Spoil();
    if (changed.front() >= spoilt->attributes.size()) {
      return absl::FailedPreconditionError(
          "the program writes in place to a constant of its graph, which requests would share; clone the "
          "constant in forward() before changing it");
    }
  }
  MutexLock lock(mu_);  // held while binding: everybody else needs the new binding anyway
  if (binding_ != spoilt) return absl::OkStatus();
  for (const std::size_t i : changed) {
    if (i >= spoilt->attributes.size()) break;  // constants come last
    if (std::find(also_written_.begin(), also_written_.end(), i) == also_written_.end()) {
      also_written_.push_back(i);
    }
  }
  own_mapping_ = own_mapping_ || own_mapping;
  log::Warning(changed.empty() ? "weights written by a model that shares them, or past PyTorch; bound anew"
                               : "weights written during a run; bound anew, requests get copies of them",
               {{"file", spoilt->source.program.file->path().string()},
                {"attributes", also_written_.size()},
                {"own_mapping", own_mapping_}});
  HEARTH_ASSIGN_OR_RETURN(ScriptSource fresh, MapAgain(spoilt->source, own_mapping_ ? nullptr : files_.get()));
  SourceUse use(fresh.files);
  if (spoilt->use.locked()) use.Lock();
  // Constants that are no copies lie in the old mapping: only a program of its own reads them anew.
  std::shared_ptr<ScriptProgram> program = spoilt->bound.program;
  if (!program->keeps()) program = std::make_shared<ScriptProgram>(fresh.program.contents.version, false);
  LoadReport report;
  HEARTH_ASSIGN_OR_RETURN(BoundModule bound, BindSource(*program, fresh, *device_, report));
  HEARTH_ASSIGN_OR_RETURN(
      binding_, MakeBinding(std::move(fresh), std::move(use), std::move(bound), method_, also_written_));
  return absl::OkStatus();
}

void TorchScriptModel::LearnOutputs(const TensorList& outputs) {
  Signature& signature = program_.signature;
  if (!signature.outputs_known) {
    // How many there are may depend on the request: names and types are left open.
    return;
  }
  for (TensorInfo& info : signature.outputs) {
    const Tensor* given = Find(outputs, info.name);
    if (given == nullptr) continue;  // it may be None
    if (info.dtype == DType::kUnknown) info.dtype = given->dtype;
    if (!info.shape) info.shape = Shape(given->shape.size(), -1);
  }
}

}  // namespace hearth
