#include "server/serving/validate.h"

#include <cstdint>
#include <cstring>
#include <optional>

namespace hearth {
namespace {

template <typename... Args>
std::string WithId(std::string_view request_id, const Args&... text) {
  return StrCat("[request id: ", request_id.empty() ? "<id_unknown>" : request_id, "] ", text...);
}

// The only way a refusal is made, so that every text has its prefix.
template <typename... Args>
absl::Status Refuse(std::string_view request_id, const Args&... text) {
  return absl::InvalidArgumentError(WithId(request_id, text...));
}

bool Matches(const Shape& expected, const Shape& got) {
  if (expected.size() != got.size()) return false;
  for (std::size_t i = 0; i < got.size(); ++i) {
    if (expected[i] >= 0 && expected[i] != got[i]) return false;
  }
  return true;
}

absl::Status CheckLimits(const RequestView& request, const RequestLimits& limits) {
  if (request.inputs.size() > limits.max_tensors || request.outputs.size() > limits.max_tensors) {
    return Refuse(request.id, "request for model '", request.model, "' names ",
                  request.inputs.size(), " inputs and ", request.outputs.size(),
                  " outputs; at most ", limits.max_tensors, " of each are allowed");
  }
  for (const NamedTensor& input : request.inputs) {
    if (input.tensor.shape.size() > limits.max_dims) {
      return Refuse(request.id, "input '", input.name, "' for model '", request.model, "' has ",
                    input.tensor.shape.size(), " dimensions; at most ", limits.max_dims,
                    " are allowed");
    }
  }
  return absl::OkStatus();
}

// Quadratic, on purpose: lists are short (RequestLimits), and this allocates nothing.
absl::Status CheckDuplicates(const RequestView& request) {
  for (std::size_t i = 1; i < request.inputs.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      if (request.inputs[i].name == request.inputs[j].name) {
        return Refuse(request.id, "input '", request.inputs[i].name, "' already exists in request");
      }
    }
  }
  for (std::size_t i = 1; i < request.outputs.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      if (request.outputs[i] == request.outputs[j]) {
        return Refuse(request.id, "output '", request.outputs[i], "' already exists in request");
      }
    }
  }
  return absl::OkStatus();
}

absl::Status MissingInputs(const RequestView& request, const Signature& signature,
                           std::size_t required) {
  std::vector<std::string_view> got;
  for (const NamedTensor& input : request.inputs) got.push_back(input.name);
  std::vector<std::string_view> missing;
  for (const TensorInfo& info : signature.inputs) {
    if (!info.optional && Find(request.inputs, info.name) == nullptr) missing.push_back(info.name);
  }
  const std::size_t all = signature.inputs.size();
  const std::string expected =
      required == all ? StrCat("expected ", all, " inputs")
                      : StrCat("expected number of inputs between ", required, " and ", all);
  return Refuse(request.id, expected, " but got ", got.size(), " inputs for model '", request.model,
                "'. Got input(s) [", QuotedList(got), "], but missing required input(s) [",
                QuotedList(missing), "]. Please provide all required input(s).");
}

// Names only. With no duplicates, as many required names as the signature has means all of them.
absl::Status CheckInputNames(const RequestView& request, const Signature& signature) {
  std::size_t required = 0;
  for (const TensorInfo& info : signature.inputs) required += info.optional ? 0 : 1;
  if (request.inputs.size() < required) return MissingInputs(request, signature, required);
  std::size_t required_found = 0;
  for (const NamedTensor& input : request.inputs) {
    const TensorInfo* info = FindInfo(signature.inputs, input.name);
    if (info == nullptr) {
      return Refuse(request.id, "unexpected inference input '", input.name, "' for model '",
                    request.model, "'");
    }
    required_found += info->optional ? 0 : 1;
  }
  if (required_found < required) return MissingInputs(request, signature, required);
  return absl::OkStatus();
}

absl::Status CheckOutputNames(const RequestView& request, const Signature& signature) {
  if (!signature.outputs_known) return absl::OkStatus();
  for (const std::string& output : request.outputs) {
    if (FindInfo(signature.outputs, output) == nullptr) {
      return UnexpectedOutput(request.id, output, request.model);
    }
  }
  return absl::OkStatus();
}

absl::Status CheckBatch(const RequestView& request, const Signature& signature) {
  if (signature.max_batch_size <= 0) return absl::OkStatus();
  std::optional<std::int64_t> batch;
  for (const NamedTensor& input : request.inputs) {
    const Shape& shape = input.tensor.shape;
    if (shape.empty() || (batch && shape[0] != *batch)) {
      return Refuse(request.id, "input '", input.name,
                    "' batch size does not match other inputs for '", request.model, "'",
                    shape.empty() ? ": it has no batch dimension" : "");
    }
    batch = shape[0];
  }
  if (batch && *batch > signature.max_batch_size) {
    return Refuse(request.id, "inference request batch-size must be <= ", signature.max_batch_size,
                  " for '", request.model, "'");
  }
  return absl::OkStatus();
}

// Walks the elements' lengths: each must lie within the bytes, and there must be `expected` of
// them.
absl::Status CheckBytesElements(const RequestView& request, const NamedTensor& input,
                                std::int64_t expected) {
  const auto data = input.tensor.data;
  std::int64_t elements = 0;
  std::size_t at = 0;
  while (at < data.size()) {
    const std::size_t left = data.size() - at;
    std::uint32_t length = 0;
    if (elements == expected) {
      return Refuse(request.id, "unexpected number of string elements ", elements + 1,
                    " for inference input '", input.name, "' for model '", request.model,
                    "', expecting ", expected);
    }
    if (left < sizeof length) {
      return Refuse(request.id, "incomplete string length indicator for inference input '",
                    input.name, "' for model '", request.model, "', expecting ", sizeof length,
                    " bytes but only ", left, " bytes available");
    }
    std::memcpy(&length, data.data() + at, sizeof length);
    if (length > left - sizeof length) {
      return Refuse(request.id, "incomplete string data for inference input '", input.name,
                    "' for model '", request.model, "', expecting string of length ", length,
                    " but only ", left - sizeof length, " bytes available");
    }
    at += sizeof length + length;
    ++elements;
  }
  if (elements != expected) {
    return Refuse(request.id, "expected ", expected, " string elements for inference input '",
                  input.name, "' for model '", request.model, "', got ", elements);
  }
  return absl::OkStatus();
}

absl::Status CheckData(const RequestView& request, const NamedTensor& input) {
  const Tensor& tensor = input.tensor;
  const auto count = ElementCount(tensor.shape);
  const auto bytes = ByteSize(tensor.dtype, tensor.shape);
  if (!count || (!bytes && tensor.dtype != DType::kBytes)) {
    return Refuse(
        request.id, "input '", input.name, "' for model '", request.model, "' has shape ",
        ToString(tensor.shape),
        ", which no tensor can have: a dimension is negative, or there are too many elements");
  }
  if (*count > 0 && tensor.data.data() == nullptr) {
    return Refuse(request.id, "unable to find data for input tensor '", input.name, "' for model '",
                  request.model, "' in request.");
  }
  if (tensor.dtype == DType::kBytes) return CheckBytesElements(request, input, *count);
  if (tensor.data.size() != *bytes) {
    return Refuse(request.id, "input byte size mismatch for input '", input.name, "' for model '",
                  request.model, "'. Expected ", *bytes, ", got ", tensor.data.size());
  }
  return absl::OkStatus();
}

bool Takes(const TensorInfo& info, DType dtype) {
  if (info.dtype == DType::kUnknown) return dtype != DType::kUnknown && !(info.is_tensor && dtype == DType::kBytes);
  return info.dtype == dtype;
}

absl::Status CheckInput(const RequestView& request, const NamedTensor& input,
                        const TensorInfo& info) {
  const Tensor& tensor = input.tensor;
  if (!Takes(info, tensor.dtype)) {
    return Refuse(request.id, "inference input '", input.name, "' data-type is '",
                  ToString(tensor.dtype), "', but model '", request.model, "' expects '",
                  info.dtype != DType::kUnknown ? ToString(info.dtype)
                  : info.is_tensor                ? "any but BYTES"
                                                  : "any",
                  "'");
  }
  if (info.shape && !Matches(*info.shape, tensor.shape)) {
    return Refuse(request.id, "unexpected shape for input '", input.name, "' for model '",
                  request.model, "'. Expected ", ToString(*info.shape), ", got ",
                  ToString(tensor.shape), ".");
  }
  return CheckData(request, input);
}

}  // namespace

absl::Status ValidateRequest(const RequestView& request, const Signature& signature,
                             const RequestLimits& limits) {
  HEARTH_RETURN_IF_ERROR(CheckLimits(request, limits));
  HEARTH_RETURN_IF_ERROR(CheckDuplicates(request));
  HEARTH_RETURN_IF_ERROR(CheckInputNames(request, signature));
  HEARTH_RETURN_IF_ERROR(CheckOutputNames(request, signature));
  HEARTH_RETURN_IF_ERROR(CheckBatch(request, signature));
  for (const NamedTensor& input : request.inputs) {
    HEARTH_RETURN_IF_ERROR(CheckInput(request, input, *FindInfo(signature.inputs, input.name)));
  }
  return absl::OkStatus();
}

absl::Status CheckDeclaredOutputs(const RequestView& request, const Signature& signature,
                                  const TensorList& outputs) {
  for (const TensorInfo& declared : signature.declared_outputs) {
    const Tensor* given = Find(outputs, declared.name);
    if (given == nullptr) continue;
    const bool right_type = declared.dtype == DType::kUnknown || declared.dtype == given->dtype;
    if (right_type && (!declared.shape || Matches(*declared.shape, given->shape))) continue;
    return absl::InternalError(WithId(
        request.id, "model '", request.model, "' returned output '", declared.name, "' as ",
        ToString(given->dtype), " ", ToString(given->shape), ", but its configuration declares ",
        declared.dtype == DType::kUnknown ? "any data type" : ToString(declared.dtype), " ",
        declared.shape ? ToString(*declared.shape) : "of any shape", "; mend one of them"));
  }
  return absl::OkStatus();
}

absl::Status UnexpectedOutput(std::string_view request_id, std::string_view output,
                              std::string_view model) {
  return Refuse(request_id, "unexpected inference output '", output, "' for model '", model, "'");
}

std::int64_t BatchSize(const TensorList& inputs, const Signature& signature) {
  if (signature.max_batch_size <= 0 || inputs.empty()) return 1;
  return inputs.front().tensor.shape.front();
}

}  // namespace hearth
