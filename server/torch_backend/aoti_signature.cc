#include "server/torch_backend/aoti_signature.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "server/torch_backend/declared_order.h"

namespace hearth {
namespace {

constexpr char kBatch[] = "batch";  // the name of all open first dimensions, where there are no others

std::string Count(std::size_t number, std::string_view what) {
  return StrCat(number, " ", what, number == 1 ? "" : "s");
}

// The tensors that the metadata describes; those of Triton's convention without any.
std::vector<AotiTensor> Described(const AotiMetadata& metadata, const std::vector<AotiTensor>& tensors,
                                  std::string_view prefix, std::size_t count) {
  if (metadata.has_signature) return tensors;
  std::vector<AotiTensor> made(count);
  for (std::size_t i = 0; i < count; ++i) made[i].info.name = StrCat(prefix, i);
  return made;
}

bool Fits(const Shape& declared, const Shape& known) {
  if (declared.size() != known.size()) return false;
  for (std::size_t i = 0; i < known.size(); ++i) {
    if (known[i] >= 0 && declared[i] != known[i]) return false;
  }
  return true;
}

// model.yaml's word about one tensor over the package's.
absl::Status Overlay(const TensorInfo& declared, const std::string& source, AotiTensor& tensor) {
  TensorInfo& info = tensor.info;
  info.name = declared.name;
  if (declared.dtype != DType::kUnknown) {
    if (info.dtype != DType::kUnknown && info.dtype != declared.dtype) {
      return absl::InvalidArgumentError(StrCat(source, " says '", declared.name, "' is ", ToString(declared.dtype),
                                               ", but the package was compiled for ", ToString(info.dtype)));
    }
    info.dtype = declared.dtype;
  }
  if (!declared.shape) return absl::OkStatus();
  if (info.shape && !Fits(*declared.shape, *info.shape)) {
    return absl::InvalidArgumentError(StrCat(source, " says '", declared.name, "' has shape ",
                                             ToString(*declared.shape), ", but the package was compiled for ",
                                             ToString(*info.shape)));
  }
  info.shape = declared.shape;
  return absl::OkStatus();
}

absl::Status OverlayAll(const std::vector<TensorInfo>& declared, const std::string& source, std::string_view what,
                        std::vector<AotiTensor>& tensors) {
  std::vector<std::string> names;
  for (const AotiTensor& tensor : tensors) names.push_back(tensor.info.name);
  HEARTH_ASSIGN_OR_RETURN(const std::vector<std::size_t> places, PlacesOf(declared, names, source, what));
  for (std::size_t i = 0; i < declared.size(); ++i) {
    if (declared[i].reshape) {
      return absl::InvalidArgumentError(
          StrCat(source, " reshapes '", declared[i].name, "': compiled code takes and gives tensors as they are"));
    }
    HEARTH_RETURN_IF_ERROR(Overlay(declared[i], source, tensors[places[i]]));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<AotiSignature> AotiSignature::Make(const AotiMetadata& metadata, const ModelOptions& options,
                                                  std::size_t inputs, std::size_t outputs) {
  if (options.method != "forward") {
    return absl::InvalidArgumentError(
        StrCat("an AOTInductor package has one method, 'forward'; ", options.source, " asks for '", options.method, "'"));
  }
  if (metadata.has_signature && (metadata.inputs.size() != inputs || metadata.outputs.size() != outputs)) {
    return absl::InvalidArgumentError(StrCat("the package's metadata describes ",
                                             Count(metadata.inputs.size(), "input"), " and ",
                                             Count(metadata.outputs.size(), "output"), ", but its library has ",
                                             inputs, " and ", outputs));
  }
  AotiSignature made;
  made.signature_.platform = "torch_aoti";
  made.signature_.max_batch_size = options.max_batch_size;
  made.ranges_ = metadata.dimensions;
  HEARTH_RETURN_IF_ERROR(made.SetInputs(metadata, options, inputs));
  HEARTH_RETURN_IF_ERROR(made.SetOutputs(metadata, options, outputs));
  return made;
}

absl::Status AotiSignature::SetInputs(const AotiMetadata& metadata, const ModelOptions& options, std::size_t count) {
  std::vector<AotiTensor> inputs = Described(metadata, metadata.inputs, "INPUT__", count);
  HEARTH_RETURN_IF_ERROR(OverlayAll(options.inputs, options.source, "input", inputs));
  for (AotiTensor& input : inputs) {
    if (input.info.dtype == DType::kUnknown || input.info.dtype == DType::kBytes || !input.info.shape) {
      return absl::InvalidArgumentError(
          StrCat("the package does not say what its ", Count(count, "input"), " are, and compiled code must not be "
                 "given others; declare each in model.yaml with datatype and shape (-1 for a dimension that was "
                 "compiled to be dynamic), or make the package with `hearth pack --format aoti`"));
    }
    if (input.info.optional) return absl::InvalidArgumentError("an input of a package cannot be optional");
    input.dimensions.resize(input.info.shape->size());
    if (!metadata.has_signature && !input.dimensions.empty() && input.info.shape->front() < 0) {
      input.dimensions.front() = kBatch;
    }
    dimensions_.push_back(std::move(input.dimensions));
    signature_.inputs.push_back(std::move(input.info));
  }
  return absl::OkStatus();
}

absl::Status AotiSignature::SetOutputs(const AotiMetadata& metadata, const ModelOptions& options, std::size_t count) {
  std::vector<AotiTensor> outputs = Described(metadata, metadata.outputs, "OUTPUT__", count);
  HEARTH_RETURN_IF_ERROR(OverlayAll(options.outputs, options.source, "output", outputs));
  signature_.declared_outputs = options.outputs;
  for (AotiTensor& output : outputs) {
    output_names_.push_back(output.info.name);
    signature_.outputs.push_back(std::move(output.info));
  }
  return absl::OkStatus();
}

void AotiSignature::LearnOutputs(const TensorList& outputs) {
  for (std::size_t i = 0; i < outputs.size() && i < signature_.outputs.size(); ++i) {
    TensorInfo& info = signature_.outputs[i];
    if (info.dtype == DType::kUnknown) info.dtype = outputs[i].tensor.dtype;
    if (!info.shape) info.shape = Shape(outputs[i].tensor.shape.size(), -1);
  }
}

absl::StatusOr<std::vector<const Tensor*>> AotiSignature::CheckInputs(const TensorList& inputs) const {
  std::vector<const Tensor*> ordered;
  std::vector<std::pair<std::string_view, std::int64_t>> sizes;  // of named dimensions; a handful
  for (std::size_t i = 0; i < signature_.inputs.size(); ++i) {
    const TensorInfo& info = signature_.inputs[i];
    const Tensor* tensor = Find(inputs, info.name);
    const auto refuse = [&](const auto&... why) {
      return absl::InvalidArgumentError(StrCat("inference input '", info.name, "' ", why...));
    };
    if (tensor == nullptr) return refuse("is missing");
    if (tensor->dtype != info.dtype) {
      return refuse("is ", ToString(tensor->dtype), ", but the program was compiled for ", ToString(info.dtype));
    }
    const Shape& shape = tensor->shape;
    bool fits = shape.size() == info.shape->size();
    for (std::size_t d = 0; fits && d < shape.size(); ++d) fits = (*info.shape)[d] < 0 || shape[d] == (*info.shape)[d];
    if (!fits) {
      return refuse("has shape ", ToString(shape), ", but the program was compiled for ", ToString(*info.shape));
    }
    for (std::size_t d = 0; d < shape.size(); ++d) {
      const std::string& name = dimensions_[i][d];
      if (name.empty()) continue;
      if (const auto range = ranges_.find(name);
          range != ranges_.end() && (shape[d] < range->second.min || shape[d] > range->second.max)) {
        return refuse("has shape ", ToString(shape), ", but the program was compiled for ", range->second.min, " to ",
                      range->second.max, " in dimension ", d);
      }
      const auto same = std::find_if(sizes.begin(), sizes.end(), [&](const auto& s) { return s.first == name; });
      if (same == sizes.end()) {
        sizes.emplace_back(name, shape[d]);
      } else if (same->second != shape[d]) {
        return refuse("has ", shape[d], " in dimension ", d, ", where the program was compiled for what other "
                      "dimensions have: ", same->second);
      }
    }
    ordered.push_back(tensor);
  }
  return ordered;
}

std::vector<Shape> AotiSignature::ProbeShapes() const {
  std::vector<Shape> shapes;
  for (std::size_t i = 0; i < signature_.inputs.size(); ++i) {
    Shape& shape = shapes.emplace_back(*signature_.inputs[i].shape);
    for (std::size_t d = 0; d < shape.size(); ++d) {
      if (shape[d] >= 0) continue;
      const auto range = ranges_.find(dimensions_[i][d]);
      shape[d] = range == ranges_.end() ? 2 : std::min(std::max<std::int64_t>(range->second.min, 2), range->second.max);
    }
  }
  return shapes;
}

}  // namespace hearth
