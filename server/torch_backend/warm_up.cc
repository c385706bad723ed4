#include "server/torch_backend/warm_up.h"

#include <cstring>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "server/base/log.h"
#include "server/torch_backend/tensor_bridge.h"
#include "server/torch_backend/torch_status.h"

namespace hearth {
namespace {

at::Tensor Values(const WarmUpSample::Input& input, at::ScalarType type) {
  const auto options = at::TensorOptions().dtype(type);
  if (input.value) return at::full(input.shape, *input.value, at::kDouble).to(type);
  if (input.fill == WarmUpSample::Fill::kZeros) return at::zeros(input.shape, options);
  // Small whole numbers are valid as indices, labels and values alike.
  return c10::isFloatingType(type) ? at::rand(input.shape).to(type)
                                   : at::randint(0, 2, input.shape).to(type);
}

absl::StatusOr<Tensor> MakeInput(const WarmUpSample::Input& input) {
  if (input.dtype == DType::kBytes) {
    const auto count = ElementCount(input.shape);
    if (!count) return absl::InvalidArgumentError(StrCat("bad warm-up shape ", ToString(input.shape)));
    const std::vector<std::string_view> elements(static_cast<std::size_t>(*count));
    return PackBytes(elements, input.shape);
  }
  const auto type = ToScalarType(input.dtype);
  if (!type) {
    return absl::InvalidArgumentError(
        StrCat("the warm-up input '", input.name, "' needs a datatype: model.yaml gives none"));
  }
  auto made = CatchTorch("make a warm-up input", absl::StatusCode::kInvalidArgument,
                         [&] { return Values(input, *type); });
  HEARTH_ASSIGN_OR_RETURN(at::Tensor values, std::move(made));
  return UnwrapTensor(std::move(values), input.name);
}

// Zeros for every required input; nothing when some type or rank is not known.
std::vector<WarmUpSample> MadeUpSamples(const Signature& signature) {
  WarmUpSample sample;
  for (const TensorInfo& input : signature.inputs) {
    if (input.optional) continue;
    if (input.dtype == DType::kUnknown || !input.shape) return {};
    Shape shape = *input.shape;
    for (auto& dim : shape) {
      if (dim < 0) dim = 1;
    }
    sample.inputs.push_back({input.name, input.dtype, std::move(shape), WarmUpSample::Fill::kZeros, {}});
  }
  return {std::move(sample)};
}

absl::Status RunSample(const Model& model, const WarmUpSample& sample, const std::stop_token& stop,
                       const std::function<void(const TensorList&)>& learn) {
  TensorList inputs;
  const std::vector<TensorInfo>& known = model.signature().inputs;
  for (const WarmUpSample::Input& input : sample.inputs) {
    if (FindInfo(known, input.name) == nullptr) {
      return absl::InvalidArgumentError(
          StrCat("the sample has an input '", input.name, "', and the model has none of that name"));
    }
    HEARTH_ASSIGN_OR_RETURN(Tensor tensor, MakeInput(input));
    inputs.push_back({input.name, std::move(tensor)});
  }
  for (const TensorInfo& wanted : known) {
    if (!wanted.optional && Find(inputs, wanted.name) == nullptr) {
      return absl::InvalidArgumentError(StrCat("the sample lacks the input '", wanted.name, "'"));
    }
  }
  for (int i = 0; i < sample.count; ++i) {
    if (stop.stop_requested()) return absl::CancelledError("the load was cancelled");
    HEARTH_ASSIGN_OR_RETURN(const TensorList outputs, model.Run(inputs, nullptr));
    learn(outputs);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status WarmUp(const Model& model, const ModelSpec& spec, const std::stop_token& stop,
                    const std::function<void(const TensorList&)>& learn) {
  const bool declared = !spec.options.warm_up.empty();
  const auto samples = declared ? spec.options.warm_up : MadeUpSamples(model.signature());
  for (const WarmUpSample& sample : samples) {
    const absl::Status status = RunSample(model, sample, stop, learn);
    if (status.ok()) continue;
    if (declared || absl::IsCancelled(status) || absl::IsDataLoss(status)) {
      return Annotate(status, "warm-up");
    }
    log::Info("made-up warm-up sample refused; describe one in model.yaml",
              {{"model", spec.id.name}, {"reason", FromAbsl(status.message())}});
  }
  return absl::OkStatus();
}

}  // namespace hearth
