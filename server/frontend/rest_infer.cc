#include "server/frontend/rest_infer.h"

#include <cstdint>
#include <cstring>
#include <limits>
#include <new>
#include <set>
#include <span>
#include <utility>

#include "server/frontend/json_reader.h"
#include "server/frontend/json_writer.h"
#include "server/frontend/request_memory.h"
#include "server/frontend/rest_json.h"
#include "server/frontend/rest_tensor.h"

namespace hearth {
namespace {

using WireInput = inference::ModelInferRequest::InferInputTensor;
using WireOutput = inference::ModelInferRequest::InferRequestedOutputTensor;

// A tensor of two bytes of JSON must not become hundreds in memory for as many as fit into a body. How many a request
// may really have is a matter of configuration.
constexpr int kMostTensors = 1 << 16;

// Where an input's data is.
struct Place {
  std::optional<std::size_t> json;         // its array begins there
  std::optional<std::uint64_t> binary;     // so many bytes of what follows the JSON
  bool elsewhere = false;                  // in shared memory; such an input has no place in InferMessage::raw
};

// What of a body has been read.
class Request {
 public:
  Request(std::string_view json, std::span<const std::byte> binary, BufferPool& pool)
      : text_(json), json_(json), binary_(binary), pool_(pool) {}

  absl::StatusOr<RestInferRequest> Read() {
    KeysOnce keys(json_);
    const absl::Status read = json_.Object([&](const std::string& key) {
      HEARTH_RETURN_IF_ERROR(keys.Add(key));
      return Member(key);
    });
    HEARTH_RETURN_IF_ERROR(read);
    HEARTH_RETURN_IF_ERROR(json_.End());
    for (int i = 0; i < head().inputs_size(); ++i) HEARTH_RETURN_IF_ERROR(Data(i));
    if (!binary_.empty()) {
      return absl::InvalidArgumentError(StrCat("the body has ", binary_.size(),
                                               " bytes of binary data more than the inputs' binary_data_size say"));
    }
    return std::move(request_);
  }

 private:
  inference::ModelInferRequest& head() { return request_.message.head; }

  absl::Status Member(const std::string& key) {
    if (key == "id") {
      HEARTH_ASSIGN_OR_RETURN(*head().mutable_id(), json_.String());
      return absl::OkStatus();
    }
    if (key == "parameters") {
      return ReadParameters(json_, *head().mutable_parameters(), [this](const std::string& name) -> absl::StatusOr<bool> {
        if (name != "binary_data_output") return false;
        HEARTH_ASSIGN_OR_RETURN(request_.binary.all, json_.Bool());
        return true;
      });
    }
    if (key == "inputs") return json_.Array([this] { return Input(); });
    if (key == "outputs") return json_.Array([this] { return Output(); });
    return json_.Skip();
  }

  absl::Status Input() {
    if (head().inputs_size() == kMostTensors) return json_.Error(StrCat("more than ", kMostTensors, " inputs"));
    WireInput& input = *head().add_inputs();
    Place& place = places_.emplace_back();
    KeysOnce keys(json_);
    return json_.Object([&](const std::string& key) {
      HEARTH_RETURN_IF_ERROR(keys.Add(key));
      return InputMember(key, input, place);
    });
  }

  absl::Status InputMember(const std::string& key, WireInput& input, Place& place) {
    if (key == "name") {
      HEARTH_ASSIGN_OR_RETURN(*input.mutable_name(), json_.String());
      return absl::OkStatus();
    }
    if (key == "datatype") {
      HEARTH_ASSIGN_OR_RETURN(*input.mutable_datatype(), json_.String());
      return absl::OkStatus();
    }
    if (key == "shape") {
      return json_.Array([&]() -> absl::Status {
        HEARTH_ASSIGN_OR_RETURN(const std::int64_t dimension, json_.Int64());
        input.add_shape(dimension);
        return absl::OkStatus();
      });
    }
    if (key == "data") {  // its type may come after it
      place.json = json_.position();
      return json_.Skip();
    }
    if (key != "parameters") return json_.Skip();
    return ReadParameters(json_, *input.mutable_parameters(), [&](const std::string& name) -> absl::StatusOr<bool> {
      place.elsewhere = place.elsewhere || name == "shared_memory_region";
      if (name != "binary_data_size") return false;
      HEARTH_ASSIGN_OR_RETURN(place.binary, json_.UInt64());
      return true;
    });
  }

  absl::Status Output() {
    if (head().outputs_size() == kMostTensors) return json_.Error(StrCat("more than ", kMostTensors, " outputs"));
    WireOutput& output = *head().add_outputs();
    std::optional<bool>& binary = request_.binary.asked.emplace_back();
    KeysOnce keys(json_);
    return json_.Object([&](const std::string& key) -> absl::Status {
      HEARTH_RETURN_IF_ERROR(keys.Add(key));
      if (key == "name") {
        HEARTH_ASSIGN_OR_RETURN(*output.mutable_name(), json_.String());
        return absl::OkStatus();
      }
      if (key != "parameters") return json_.Skip();
      return ReadParameters(json_, *output.mutable_parameters(), [&](const std::string& name) -> absl::StatusOr<bool> {
        if (name != "binary_data") return false;
        HEARTH_ASSIGN_OR_RETURN(binary, json_.Bool());
        return true;
      });
    });
  }

  // Of input `i`, in the order of the inputs: binary data has no other.
  absl::Status Data(int i) {
    const WireInput& input = head().inputs(i);
    const Place& place = places_[static_cast<std::size_t>(i)];
    if (place.json && place.binary) {
      return absl::InvalidArgumentError(
          StrCat("input '", input.name(), "' has both 'data' and 'binary_data_size': leave one out"));
    }
    if (place.binary) return Binary(input, *place.binary);
    const auto dtype = ParseDType(input.datatype());
    if (place.json && dtype) {
      JsonReader at(text_, *place.json);
      HEARTH_ASSIGN_OR_RETURN(BufferPool::Buffer raw, ReadElements(at, *dtype, input.name(), pool_));
      request_.message.raw.push_back(std::move(raw));
      return absl::OkStatus();
    }
    if (place.elsewhere) return absl::OkStatus();
    // An empty tensor needs no data; what has no known type is refused for that.
    const bool empty = ElementCount(Shape(input.shape().begin(), input.shape().end())) == 0;
    if (dtype && !empty) {
      return absl::InvalidArgumentError(StrCat("unable to find data for input tensor '", input.name(),
                                               "': give it 'data', or the parameter 'binary_data_size'"));
    }
    request_.message.raw.push_back(pool_.Allocate(0));
    return absl::OkStatus();
  }

  absl::Status Binary(const WireInput& input, std::uint64_t size) {
    if (size > binary_.size()) {
      return absl::InvalidArgumentError(StrCat("input '", input.name(), "' has a binary_data_size of ", size, ", and ",
                                               binary_.size(), " bytes of the body are left for it"));
    }
    const std::size_t bytes = static_cast<std::size_t>(size);
    BufferPool::Buffer raw = pool_.Allocate(bytes);
    if (bytes > 0) std::memcpy(raw.bytes.data(), binary_.data(), bytes);
    binary_ = binary_.subspan(bytes);
    request_.message.raw.push_back(std::move(raw));
    return absl::OkStatus();
  }

  const std::string_view text_;
  JsonReader json_;
  std::span<const std::byte> binary_;  // not yet taken
  BufferPool& pool_;
  RestInferRequest request_;
  std::vector<Place> places_;
};

// The signature's shape with its open dimension as large as `bytes` say; nothing: they say nothing whole.
std::optional<Shape> ShapeOf(const TensorInfo& input, std::size_t bytes) {
  const bool words = input.dtype == DType::kBytes;
  const std::size_t elements = words ? 1 : bytes / SizeOf(input.dtype);
  if (!words && elements * SizeOf(input.dtype) != bytes) return std::nullopt;
  Shape shape = input.shape.value_or(Shape{-1});
  std::int64_t* open = nullptr;
  for (std::int64_t& dimension : shape) {
    if (dimension >= 0) continue;
    if (open != nullptr && !words) return std::nullopt;
    open = &dimension;
    dimension = 1;
  }
  if (open == nullptr || words) return shape;
  const std::int64_t rest = ElementCount(shape).value_or(0);
  const auto count = static_cast<std::int64_t>(elements);
  if (rest == 0 || count % rest != 0) return std::nullopt;
  *open = count / rest;
  return shape;
}

absl::StatusOr<RestInferRequest> ReadRaw(std::string_view body, const Signature& signature, BufferPool& pool) {
  if (signature.inputs.size() != 1) {
    return absl::InvalidArgumentError(StrCat("a body without JSON is for models of one input, and this one has ",
                                             signature.inputs.size(), ": name them in JSON"));
  }
  const TensorInfo& input = signature.inputs[0];
  if (input.dtype == DType::kUnknown) {
    return absl::InvalidArgumentError(StrCat("the model does not say the datatype of its input '", input.name,
                                             "': say it in JSON, or in its model.yaml"));
  }
  const std::optional<Shape> shape = ShapeOf(input, body.size());
  if (!shape) {
    return absl::InvalidArgumentError(StrCat("a body of ", body.size(), " bytes does not say the shape of input '",
                                             input.name, "', ", ToString(input.dtype), " ", ToString(input.shape.value_or(Shape{-1})),
                                             ": say it in JSON"));
  }
  RestInferRequest request;
  request.binary.all = true;
  WireInput& wire = *request.message.head.add_inputs();
  wire.set_name(input.name);
  wire.set_datatype(std::string(ToString(input.dtype)));
  wire.mutable_shape()->Add(shape->begin(), shape->end());
  const std::uint32_t length = static_cast<std::uint32_t>(body.size());
  const std::size_t prefix = input.dtype == DType::kBytes ? sizeof length : 0;
  if (prefix > 0 && length != body.size()) return absl::InvalidArgumentError("an element of 4 GiB and more");
  BufferPool::Buffer raw = pool.Allocate(prefix + body.size());
  std::memcpy(raw.bytes.data(), &length, prefix);
  if (!body.empty()) std::memcpy(raw.bytes.data() + prefix, body.data(), body.size());
  request.message.raw.push_back(std::move(raw));
  return request;
}

void AppendShape(const Shape& shape, std::string& out) {
  out += '[';
  for (std::size_t i = 0; i < shape.size(); ++i) {
    if (i > 0) out += ',';
    AppendJsonInt(shape[i], out);
  }
  out += ']';
}

void AppendPlace(const OutputTarget& target, std::string& out) {
  out += ",\"parameters\":{\"shared_memory_region\":";
  AppendJsonString(target.region->place().name, out);
  out += StrCat(",\"shared_memory_offset\":", target.offset, ",\"shared_memory_byte_size\":", target.byte_size, "}}");
}

bool IsBinary(const BinaryOutputs& binary, std::size_t output) {
  return output < binary.asked.size() ? binary.asked[output].value_or(binary.all) : binary.all;
}

// Of an element, with what separates it from the next one.
std::uint64_t MostTextBytes(DType dtype) {
  switch (dtype) {
    case DType::kBool:
      return sizeof "false";
    case DType::kInt8:
    case DType::kUInt8:
      return sizeof "-128";
    case DType::kInt16:
    case DType::kUInt16:
      return sizeof "-32768";
    case DType::kInt32:
    case DType::kUInt32:
      return sizeof "-2147483648";
    case DType::kFp16:
    case DType::kBf16:
    case DType::kFp32:
      return sizeof "-1.17549435e-38";
    default:
      return sizeof "-2.2250738585072014e-308";
  }
}

constexpr std::uint64_t kMostEscaped = 6;  // bytes for one: \u001f

absl::StatusOr<HttpResponse> Write(const InferResponse& response, const std::string& id, const BinaryOutputs& binary,
                                   const OutputTargets& targets) {
  HttpResponse http;
  std::string& out = http.body;
  out += '{';
  if (!id.empty()) {
    out += "\"id\":";
    AppendJsonString(id, out);
    out += ',';
  }
  out += "\"model_name\":";
  AppendJsonString(response.model.name, out);
  out += StrCat(",\"model_version\":\"", response.model.version, "\",\"parameters\":{\"hearth_cache\":\"",
                ToString(response.cache), "\"");
  if (response.cache != CacheResult::kHit) {
    out += ",\"hearth_load_ms\":";
    AppendJsonNumber(ToMilliseconds(response.waited_for_load), out);
  }
  if (response.kept) out += ",\"hearth_response_cache\":\"hit\"";
  out += "},\"outputs\":[";
  for (std::size_t i = 0; i < response.outputs.size(); ++i) {
    const auto& [name, tensor] = response.outputs[i];
    out += i == 0 ? "{\"name\":" : ",{\"name\":";
    AppendJsonString(name, out);
    out += StrCat(",\"datatype\":\"", ToString(tensor.dtype), "\",\"shape\":");
    AppendShape(tensor.shape, out);
    if (i < targets.size() && targets[i].region != nullptr) {
      AppendPlace(targets[i], out);
    } else if (IsBinary(binary, i)) {
      out += StrCat(",\"parameters\":{\"binary_data_size\":", tensor.data.size(), "}}");
      http.parts.push_back({tensor.data, tensor.owner});
    } else {
      out += ",\"data\":";
      HEARTH_RETURN_IF_ERROR(AppendElements(tensor, name, out));
      out += '}';
    }
  }
  out += "]}";
  if (!http.parts.empty()) {
    http.content_type = "application/octet-stream";
    http.headers.emplace_back("Inference-Header-Content-Length", StrCat(out.size()));
  }
  return http;
}

}  // namespace

absl::StatusOr<RestInferRequest> ReadInferRequest(std::string_view body, std::optional<std::size_t> json_bytes,
                                                  BufferPool& pool) {
  const std::size_t size = json_bytes.value_or(body.size());
  if (size > body.size()) {
    return absl::InvalidArgumentError(
        StrCat("Inference-Header-Content-Length is ", size, ", and the body has ", body.size(), " bytes"));
  }
  try {
    return Request(body.substr(0, size), std::as_bytes(std::span(body.substr(size))), pool).Read();
  } catch (const std::bad_alloc& why) {
    return NoMemoryFor("the inputs of this request", why);
  }
}

absl::StatusOr<RestInferRequest> ReadRawRequest(std::string_view body, const Signature& signature, BufferPool& pool) {
  try {
    return ReadRaw(body, signature, pool);
  } catch (const std::bad_alloc& why) {
    return NoMemoryFor("the inputs of this request", why);
  }
}

std::uint64_t MostJsonBytes(const InferResponse& response, const std::string& id, const BinaryOutputs& binary,
                            const OutputTargets& targets) {
  constexpr std::uint64_t kAround = 512;  // the model and its parameters, an output and its place
  std::uint64_t bytes = kAround + kMostEscaped * (response.model.name.size() + id.size());
  for (std::size_t i = 0; i < response.outputs.size(); ++i) {
    const auto& [name, tensor] = response.outputs[i];
    bytes += kAround + kMostEscaped * name.size() + tensor.shape.size() * MostTextBytes(DType::kInt64);
    if (i < targets.size() && targets[i].region != nullptr) {
      bytes += kMostEscaped * targets[i].region->place().name.size();
      continue;
    }
    if (IsBinary(binary, i)) continue;
    // Each string has its length before it, which is as long as quotes and a comma.
    bytes += tensor.dtype == DType::kBytes ? kMostEscaped * tensor.data.size()
                                           : tensor.data.size() / SizeOf(tensor.dtype) * MostTextBytes(tensor.dtype);
  }
  return bytes;
}

absl::StatusOr<HttpResponse> WriteInferResponse(const InferResponse& response, const std::string& id,
                                                const BinaryOutputs& binary, const OutputTargets& targets) {
  try {
    return Write(response, id, binary, targets);
  } catch (const std::bad_alloc& why) {
    return NoMemoryFor("the outputs of this request", why);
  }
}

}  // namespace hearth
