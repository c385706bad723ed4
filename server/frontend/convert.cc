#include "server/frontend/convert.h"

#include <grpcpp/support/slice.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <optional>
#include <utility>

#include "server/base/bytes.h"
#include "server/frontend/infer_parameters.h"
#include "server/frontend/request_memory.h"

namespace hearth {
namespace {

using inference::InferTensorContents;
using inference::ModelInferResponse;
using WireInput = inference::ModelInferRequest::InferInputTensor;

// Protobuf's limit of 2 GiB, less room for names and shapes.
constexpr std::size_t kMaxMessageBytes = std::size_t{1} << 31;
constexpr std::size_t kMaxOutputBytes = kMaxMessageBytes - (std::size_t{1} << 20);

// One input on its way in, with what its error messages need.
struct Input {
  const WireInput& wire;
  const std::string& model;
  DType dtype;
  Shape shape;
  BufferPool& pool;
};

absl::Status NoData(const Input& input) {
  return absl::InvalidArgumentError(StrCat("unable to find data for input tensor '",
                                           input.wire.name(), "' for model '", input.model,
                                           "' in request."));
}

Tensor Own(const Input& input, BufferPool::Buffer buffer) {
  return {input.dtype, input.shape, buffer.bytes, std::move(buffer.owner)};
}

absl::StatusOr<Tensor> FromRaw(const Input& input, const BufferPool::Buffer& raw) {
  if (input.wire.has_contents()) {
    return absl::InvalidArgumentError(
        StrCat("contents field must not be specified when using raw_input_contents for '",
               input.wire.name(), "' for model '", input.model, "'"));
  }
  return Own(input, raw);
}

// A typed field whose elements are the tensor's.
template <typename Field>
absl::StatusOr<Tensor> FromField(const Input& input, const Field& field) {
  const std::size_t bytes =
      static_cast<std::size_t>(field.size()) * sizeof(typename Field::value_type);
  const BufferPool::Buffer buffer = input.pool.Allocate(bytes);
  if (bytes > 0) std::memcpy(buffer.bytes.data(), field.data(), bytes);
  return Own(input, buffer);
}

// A typed field that is wider than the tensor's elements. A value that does not fit is refused:
// cut, it would be another number.
template <typename To, typename Field>
absl::StatusOr<Tensor> FromWiderField(const Input& input, const Field& field) {
  const BufferPool::Buffer buffer =
      input.pool.Allocate(static_cast<std::size_t>(field.size()) * sizeof(To));
  std::byte* at = buffer.bytes.data();
  for (const auto value : field) {
    const To narrow = static_cast<To>(value);
    if (narrow != value) {
      return absl::InvalidArgumentError(StrCat("value ", value, " of input '", input.wire.name(),
                                               "' for model '", input.model, "' does not fit ",
                                               ToString(input.dtype)));
    }
    std::memcpy(at, &narrow, sizeof narrow);
    at += sizeof narrow;
  }
  return Own(input, buffer);
}

Tensor FromBytesField(const Input& input) {
  const auto& field = input.wire.contents().bytes_contents();
  std::size_t total = 0;
  for (const std::string& element : field) total += sizeof(std::uint32_t) + element.size();
  const BufferPool::Buffer buffer = input.pool.Allocate(total);
  std::byte* at = buffer.bytes.data();
  for (const std::string& element : field) {
    const auto length = static_cast<std::uint32_t>(element.size());  // protobuf stops at 2 GiB
    std::memcpy(at, &length, sizeof length);
    at += sizeof length;
    std::memcpy(at, element.data(), element.size());
    at += element.size();
  }
  return Own(input, buffer);
}

// The typed field that is filled, by the name of its elements' type; empty: none. (Small integers
// share a field with INT32 and UINT32.)
std::string_view FilledField(const InferTensorContents& contents, std::string_view except) {
  const std::pair<std::string_view, int> fields[] = {
      {"BOOL", contents.bool_contents_size()},     {"INT32", contents.int_contents_size()},
      {"INT64", contents.int64_contents_size()},   {"UINT32", contents.uint_contents_size()},
      {"UINT64", contents.uint64_contents_size()}, {"FP32", contents.fp32_contents_size()},
      {"FP64", contents.fp64_contents_size()},     {"BYTES", contents.bytes_contents_size()}};
  for (const auto& [name, size] : fields) {
    if (size > 0 && name != except) return name;
  }
  return {};
}

// Which field a type's elements belong to; empty: the type has none.
std::string_view FieldOf(DType dtype) {
  switch (dtype) {
    case DType::kInt8:
    case DType::kInt16:
      return "INT32";
    case DType::kUInt8:
    case DType::kUInt16:
      return "UINT32";
    case DType::kFp16:
    case DType::kBf16:
    case DType::kUnknown:
      return {};
    default:
      return ToString(dtype);
  }
}

absl::StatusOr<Tensor> FromContents(const Input& input) {
  const InferTensorContents& contents = input.wire.contents();
  const std::string_view filled = FilledField(contents, FieldOf(input.dtype));
  if (!filled.empty()) {
    return absl::InvalidArgumentError(StrCat(
        "unexpected explicit tensor data for input tensor '", input.wire.name(), "' for model '",
        input.model, "' of type '", filled, "', expected datatype '", input.wire.datatype(), "'"));
  }
  // An empty tensor needs no data; anything else without any has been forgotten.
  if (ElementCount(input.shape) != 0 && FilledField(contents, {}).empty()) return NoData(input);
  switch (input.dtype) {
    case DType::kBool:
      return FromField(input, contents.bool_contents());
    case DType::kInt8:
      return FromWiderField<std::int8_t>(input, contents.int_contents());
    case DType::kInt16:
      return FromWiderField<std::int16_t>(input, contents.int_contents());
    case DType::kInt32:
      return FromField(input, contents.int_contents());
    case DType::kInt64:
      return FromField(input, contents.int64_contents());
    case DType::kUInt8:
      return FromWiderField<std::uint8_t>(input, contents.uint_contents());
    case DType::kUInt16:
      return FromWiderField<std::uint16_t>(input, contents.uint_contents());
    case DType::kUInt32:
      return FromField(input, contents.uint_contents());
    case DType::kUInt64:
      return FromField(input, contents.uint64_contents());
    case DType::kFp32:
      return FromField(input, contents.fp32_contents());
    case DType::kFp64:
      return FromField(input, contents.fp64_contents());
    case DType::kBytes:
      return FromBytesField(input);
    case DType::kFp16:
    case DType::kBf16:
    case DType::kUnknown:
      break;
  }
  return Own(input, input.pool.Allocate(0));  // FP16 and BF16 without elements
}

absl::StatusOr<Input> Describe(const WireInput& wire, const std::string& model, BufferPool& pool) {
  const auto dtype = ParseDType(wire.datatype());
  if (!dtype) {
    return absl::InvalidArgumentError(
        StrCat("unknown data-type '", wire.datatype(), "' for input '", wire.name(),
               "' for model '", model,
               "', expected BOOL, UINT8, UINT16, UINT32, UINT64, INT8, INT16, INT32, INT64, "
               "FP16, BF16, FP32, FP64 or BYTES"));
  }
  return Input{wire, model, *dtype, Shape(wire.shape().begin(), wire.shape().end()), pool};
}

using Places = std::vector<std::optional<SharedPlace>>;  // one for each input

// All of them together are not more than a message could have brought: an object may claim to be larger than any memory.
absl::StatusOr<Places> PlacesOf(const inference::ModelInferRequest& wire) {
  Places places;
  std::uint64_t left = kMaxMessageBytes;
  for (const auto& input : wire.inputs()) {
    HEARTH_ASSIGN_OR_RETURN(const std::optional<SharedPlace> place,
                            ReadSharedPlace("input", input.name(), input.parameters()));
    if (place && place->byte_size > left) {
      return absl::InvalidArgumentError(StrCat("the inputs in shared memory of one request for model '",
                                               wire.model_name(), "' are more than 2 GiB"));
    }
    if (place) left -= place->byte_size;
    places.push_back(place);
  }
  return places;
}

absl::StatusOr<Tensor> FromShared(const Input& input, const SharedPlace& place, const SharedMemory& memory) {
  if (input.wire.has_contents()) {
    return absl::InvalidArgumentError(StrCat("unexpected 'content' provided when using shared memory for input tensor '",
                                             input.wire.name(), "' for model '", input.model, "'"));
  }
  HEARTH_ASSIGN_OR_RETURN(const std::shared_ptr<const SharedRegion> region, memory.Find(place.region));
  HEARTH_RETURN_IF_ERROR(region->Check(place.offset, place.byte_size));  // before there is memory for it
  const BufferPool::Buffer buffer = input.pool.Allocate(place.byte_size);
  HEARTH_RETURN_IF_ERROR(region->Read(place.offset, buffer.bytes));
  return Own(input, buffer);
}

// Those in shared memory have no entry among the raw ones.
absl::StatusOr<TensorList> Inputs(const InferMessage& message, BufferPool& pool, const SharedMemory& memory) {
  const inference::ModelInferRequest& wire = message.head;
  const std::vector<BufferPool::Buffer>& raw = message.raw;
  HEARTH_ASSIGN_OR_RETURN(const Places places, PlacesOf(wire));
  const auto in_message = static_cast<std::size_t>(std::count(places.begin(), places.end(), std::nullopt));
  if (raw.size() > in_message) {
    return absl::InvalidArgumentError(StrCat("expected at most ", in_message,
                                             " raw_input_contents, one per input, for model '",
                                             wire.model_name(), "', got ", raw.size()));
  }
  TensorList inputs;
  inputs.reserve(places.size());
  std::size_t next_raw = 0;
  for (std::size_t i = 0; i < places.size(); ++i) {
    HEARTH_ASSIGN_OR_RETURN(const Input input,
                            Describe(wire.inputs(static_cast<int>(i)), wire.model_name(), pool));
    const bool from_raw = !places[i] && !raw.empty();
    if (from_raw && next_raw == raw.size()) return NoData(input);
    HEARTH_ASSIGN_OR_RETURN(Tensor tensor, places[i]  ? FromShared(input, *places[i], memory)
                                           : from_raw ? FromRaw(input, raw[next_raw++])
                                                      : FromContents(input));
    inputs.push_back({input.wire.name(), std::move(tensor)});
  }
  return inputs;
}

// Of which a client could have very many, or very long ones.
std::uint64_t BytesOfNames(const InferRequest& request) {
  std::uint64_t bytes = request.model.size() + request.version.size() + request.id.size();
  for (const NamedTensor& input : request.inputs) {
    bytes += sizeof input + input.name.size() + input.tensor.shape.size() * sizeof(std::int64_t);
  }
  for (const std::string& output : request.outputs) bytes += sizeof output + output.size();
  return bytes;
}

absl::StatusOr<InferRequest> Convert(const InferMessage& message, BufferPool& pool, const SharedMemory& memory,
                                     Deadline deadline, TimePoint now, OutputTargets& targets) {
  const inference::ModelInferRequest& wire = message.head;
  if (wire.id().size() > kMaxRequestId) {
    return absl::InvalidArgumentError(
        StrCat("the request's id has ", wire.id().size(), " bytes, and ", kMaxRequestId, " at most are taken"));
  }
  HEARTH_RETURN_IF_ERROR(message.raw_status);
  InferRequest request;
  HEARTH_ASSIGN_OR_RETURN(RequestParameters parameters, ReadParameters(wire, now, deadline));
  request.outputs.reserve(static_cast<std::size_t>(wire.outputs_size()));
  for (const auto& output : wire.outputs()) {
    HEARTH_ASSIGN_OR_RETURN(const std::size_t top, ReadTopClasses(output));
    if (top > 0) {
      request.top_classes.resize(static_cast<std::size_t>(wire.outputs_size()));
      request.top_classes[request.outputs.size()] = top;
    }
    request.outputs.push_back(output.name());
  }
  HEARTH_ASSIGN_OR_RETURN(targets, ReadOutputTargets(wire, memory));
  HEARTH_ASSIGN_OR_RETURN(request.inputs, Inputs(message, pool, memory));
  request.model = wire.model_name();
  request.version = wire.model_version();
  request.id = wire.id();
  request.deadline = parameters.deadline;
  request.keep_alive = parameters.keep_alive;
  request.priority = parameters.priority;
  request.sequence = std::move(parameters.sequence);
  request.received = now;
  HEARTH_ASSIGN_OR_RETURN(request.charge, ChargeNames(pool.allowance(), BytesOfNames(request)));
  return request;
}

void FillPlace(const OutputTarget& target, ModelInferResponse::InferOutputTensor& wire) {
  auto& parameters = *wire.mutable_parameters();
  parameters["shared_memory_region"].set_string_param(target.region->place().name);
  parameters["shared_memory_byte_size"].set_int64_param(static_cast<std::int64_t>(target.byte_size));
  parameters["shared_memory_offset"].set_int64_param(static_cast<std::int64_t>(target.offset));
}

ModelInferResponse Head(const InferResponse& response, const std::string& id, const OutputTargets& targets) {
  ModelInferResponse wire;
  wire.set_model_name(response.model.name);
  wire.set_model_version(std::to_string(response.model.version));
  wire.set_id(id);
  (*wire.mutable_parameters())["hearth_cache"].set_string_param(std::string(ToString(response.cache)));
  if (response.cache != CacheResult::kHit) {
    (*wire.mutable_parameters())["hearth_load_ms"].set_double_param(ToMilliseconds(response.waited_for_load));
  }
  if (response.kept) (*wire.mutable_parameters())["hearth_response_cache"].set_string_param("hit");
  wire.mutable_outputs()->Reserve(static_cast<int>(response.outputs.size()));
  for (const NamedTensor& output : response.outputs) {
    auto* tensor = wire.add_outputs();
    tensor->set_name(output.name);
    tensor->set_datatype(std::string(ToString(output.tensor.dtype)));
    tensor->mutable_shape()->Add(output.tensor.shape.begin(), output.tensor.shape.end());
  }
  for (std::size_t i = 0; i < targets.size(); ++i) {
    if (targets[i].region != nullptr) FillPlace(targets[i], *wire.mutable_outputs(static_cast<int>(i)));
  }
  return wire;
}

}  // namespace

absl::StatusOr<InferRequest> ToInferRequest(const InferMessage& wire, BufferPool& pool, const SharedMemory& memory,
                                            Deadline deadline, TimePoint now, OutputTargets& targets) {
  absl::StatusOr<InferRequest> request;
  try {
    request = Convert(wire, pool, memory, deadline, now, targets);
  } catch (const std::bad_alloc& why) {
    request = NoMemoryFor("the inputs of this request", why);
  }
  if (request.ok()) return request;
  const std::string id = wire.head.id().empty() ? "<id_unknown>" : IdOf(wire.head);
  const absl::Status& error = request.status();
  absl::Status named(error.code(), StrCat("[request id: ", id, "] ", FromAbsl(error.message())));
  error.ForEachPayload([&](absl::string_view type, const absl::Cord& payload) { named.SetPayload(type, payload); });
  return named;
}

std::string IdOf(const inference::ModelInferRequest& head) { return head.id().substr(0, kMaxRequestId); }

absl::StatusOr<InferRequest> ToInferRequest(const InferMessage& wire, BufferPool& pool, Deadline deadline,
                                            TimePoint now) {
  const SharedMemory none(/*allowed=*/false);
  OutputTargets in_the_message;
  return ToInferRequest(wire, pool, none, deadline, now, in_the_message);
}

absl::StatusOr<grpc::ByteBuffer> ToWire(const InferResponse& response, const std::string& id, InferRpc rpc,
                                        const OutputTargets& targets) {
  std::size_t total = 0;
  for (const NamedTensor& output : response.outputs) total += output.tensor.data.size();
  if (total > kMaxOutputBytes) {
    return absl::ResourceExhaustedError(
        StrCat("the outputs of model '", response.model.name, "' are ", FormatBytes(total),
               ", more than the 2 GiB of one message: ask for fewer outputs or a smaller batch"));
  }
  try {
    ModelInferResponse head = Head(response, id, targets);
    if (rpc == InferRpc::kUnary) return MakeInferResponse(head, response.outputs);
    (*head.mutable_parameters())["triton_final_response"].set_bool_param(true);
    return WrapForStream(MakeInferResponse(head, response.outputs));
  } catch (const std::bad_alloc& why) {
    return NoMemoryFor("the outputs of this request", why);
  }
}

grpc::ByteBuffer ToStreamError(const absl::Status& status, const std::string& id) {
  inference::ModelStreamInferResponse wire;
  wire.set_error_message(std::string(FromAbsl(status.message())));
  wire.mutable_infer_response()->set_id(id);
  const grpc::Slice slice(wire.SerializeAsString());
  return {&slice, 1};
}

}  // namespace hearth
