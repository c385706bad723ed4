#include "server/torch_backend/aoti_model.h"

#include <string>

#include "server/base/log.h"
#include "server/torch_backend/runtime.h"
#include "server/torch_backend/tensor_bridge.h"
#include "server/torch_backend/torch_status.h"

namespace hearth {

absl::StatusOr<TensorList> AotiModel::Run(const TensorList& inputs, Session*) const {
  HEARTH_ASSIGN_OR_RETURN(const std::vector<const Tensor*> ordered, signature_.CheckInputs(inputs));
  UseTorchThreads(threads_);
  auto caught = CatchTorch("the model refused the request", absl::StatusCode::kInvalidArgument,
                           [&] { return RunChecked(ordered); });
  if (check_ != nullptr) HEARTH_RETURN_IF_ERROR(check_->status());  // it knows more than Intact()
  HEARTH_RETURN_IF_ERROR(Intact(files_));
  // Whoever did: compiled code cannot be bound anew while others run it, so the model is loaded again.
  if (Written(files_)) return absl::DataLossError("a program has written to weights that this model uses as well");
  return caught.ok() ? *std::move(caught) : std::move(caught).status();
}

absl::StatusOr<TensorList> AotiModel::RunChecked(const std::vector<const Tensor*>& inputs) const {
  const c10::InferenceMode guard;
  std::vector<at::Tensor> wrapped;
  wrapped.reserve(inputs.size());
  for (const Tensor* input : inputs) {
    at::Tensor tensor = WrapTensor(*input);
    wrapped.push_back(device_->torch().is_cpu() ? std::move(tensor) : tensor.to(device_->torch()));
  }
  std::vector<at::Tensor> results = container_->Run(std::move(wrapped));
  TensorList outputs;
  outputs.reserve(results.size());
  for (std::size_t i = 0; i < results.size(); ++i) {
    const std::string& name = signature_.output_names()[i];
    HEARTH_ASSIGN_OR_RETURN(Tensor tensor, UnwrapTensor(std::move(results[i]), name));
    outputs.push_back({name, std::move(tensor)});
  }
  return outputs;
}

absl::Status AotiModel::Probe() const {
  const std::size_t before = container_->Fingerprint();
  const std::vector<Shape> shapes = signature_.ProbeShapes();
  auto made = CatchTorch("make inputs", absl::StatusCode::kInternal, [&]() -> absl::StatusOr<TensorList> {
    TensorList inputs;
    for (std::size_t i = 0; i < shapes.size(); ++i) {
      const TensorInfo& info = signature().inputs[i];
      const at::ScalarType type = *ToScalarType(info.dtype);
      // Small whole numbers are valid as indices, labels and values alike; ones change what zeros leave.
      at::Tensor values = c10::isFloatingType(type) ? at::rand(shapes[i]).to(type) : at::ones(shapes[i]).to(type);
      HEARTH_ASSIGN_OR_RETURN(Tensor tensor, UnwrapTensor(std::move(values), info.name));
      inputs.push_back({info.name, std::move(tensor)});
    }
    return inputs;
  });
  HEARTH_RETURN_IF_ERROR(made.status());
  HEARTH_ASSIGN_OR_RETURN(const TensorList inputs, *std::move(made));
  const absl::StatusOr<TensorList> outputs = Run(inputs, nullptr);
  if (container_->Fingerprint() != before || Written(files_)) {
    return absl::FailedPreconditionError(
        "the program writes to its buffers when it runs, and one request would see what another one left there; "
        "serve this model as TorchScript, which `hearth pack --format torchscript` makes");
  }
  if (absl::IsDataLoss(outputs.status())) return outputs.status();
  if (!outputs.ok()) log::Info("made-up inputs refused", {{"reason", FromAbsl(outputs.status().message())}});
  return absl::OkStatus();
}

}  // namespace hearth
