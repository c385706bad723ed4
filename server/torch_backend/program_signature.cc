#include "server/torch_backend/program_signature.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "server/base/check.h"
#include "server/tensor/reshape.h"
#include "server/torch_backend/declared_order.h"
#include "server/torch_backend/tensor_bridge.h"

namespace hearth {
namespace {

using Kind = Argument::Kind;

std::optional<Kind> ScalarKind(const c10::Type& type) {
  switch (type.kind()) {
    case c10::TypeKind::TensorType: return Kind::kTensor;
    case c10::TypeKind::IntType: return Kind::kInt;
    case c10::TypeKind::FloatType: return Kind::kFloat;
    case c10::TypeKind::BoolType: return Kind::kBool;
    case c10::TypeKind::StringType: return Kind::kString;
    case c10::TypeKind::NumberType: return Kind::kFloat;
    default: return std::nullopt;
  }
}

std::optional<Kind> KindOf(const c10::Type& type) {
  if (type.kind() != c10::TypeKind::ListType) return ScalarKind(type);
  switch (ScalarKind(*type.containedType(0)).value_or(Kind::kTensor)) {
    case Kind::kInt: return Kind::kIntList;
    case Kind::kFloat: return Kind::kFloatList;
    case Kind::kBool: return Kind::kBoolList;
    case Kind::kString: return Kind::kStringList;
    default: return std::nullopt;
  }
}

DType DTypeOf(Kind kind) {
  switch (kind) {
    case Kind::kTensor: return DType::kUnknown;
    case Kind::kInt:
    case Kind::kIntList: return DType::kInt64;
    case Kind::kFloat:
    case Kind::kFloatList: return DType::kFp64;
    case Kind::kBool:
    case Kind::kBoolList: return DType::kBool;
    case Kind::kString:
    case Kind::kStringList: return DType::kBytes;
  }
  return DType::kUnknown;
}

std::optional<Shape> ShapeOf(Kind kind) {
  switch (kind) {
    case Kind::kTensor: return std::nullopt;
    case Kind::kIntList:
    case Kind::kFloatList:
    case Kind::kBoolList:
    case Kind::kStringList: return Shape{-1};
    default: return Shape{1};
  }
}

absl::Status ReadArguments(const c10::FunctionSchema& schema, ProgramSignature& program) {
  for (std::size_t i = 1; i < schema.arguments().size(); ++i) {
    const c10::Argument& from = schema.arguments()[i];
    const bool nullable = from.type()->kind() == c10::TypeKind::OptionalType;
    const c10::Type& type = nullable ? *from.type()->containedType(0) : *from.type();
    const bool optional = nullable || from.default_value().has_value();
    const auto kind = KindOf(type);
    if (!kind && !optional) {
      return absl::InvalidArgumentError(
          StrCat("argument '", from.name(), "' of ", schema.name(), " is a ", from.type()->repr_str(),
                 ", which the protocol has no form for; wrap the module in one that takes tensors, "
                 "numbers or strings"));
    }
    Argument argument{from.name(), kind.value_or(Kind::kTensor), optional,
                      from.default_value().value_or(at::IValue())};
    program.arguments.push_back(std::move(argument));
    if (!kind) continue;  // stays at its default; clients cannot name it
    program.signature.inputs.push_back({from.name(), DTypeOf(*kind), ShapeOf(*kind), optional});
  }
  return absl::OkStatus();
}

// False: the program decides at run time how many results there are.
bool ReadResults(const c10::Type& type, const std::string& own_name, std::vector<TensorInfo>& outputs) {
  const auto next = [&] { return own_name.empty() ? StrCat("OUTPUT__", outputs.size()) : own_name; };
  switch (type.kind()) {
    case c10::TypeKind::TensorType:
      outputs.push_back({next(), DType::kUnknown, std::nullopt, false});
      return true;
    case c10::TypeKind::IntType:
      outputs.push_back({next(), DType::kInt64, Shape{}, false});
      return true;
    case c10::TypeKind::FloatType:
      outputs.push_back({next(), DType::kFp64, Shape{}, false});
      return true;
    case c10::TypeKind::BoolType:
      outputs.push_back({next(), DType::kBool, Shape{}, false});
      return true;
    case c10::TypeKind::StringType:
      outputs.push_back({next(), DType::kBytes, Shape{}, false});
      return true;
    case c10::TypeKind::NoneType:
      return true;
    case c10::TypeKind::ListType: {
      const auto kind = KindOf(type);
      if (!kind) return false;
      outputs.push_back({next(), DTypeOf(*kind), Shape{-1}, false});
      return true;
    }
    case c10::TypeKind::TupleType: {
      const auto& tuple = type.expectRef<c10::TupleType>();
      for (std::size_t i = 0; i < tuple.elements().size(); ++i) {
        const std::string name = tuple.schema() != nullptr ? tuple.schema()->arguments()[i].name() : "";
        if (!ReadResults(*tuple.elements()[i], name, outputs)) return false;
      }
      return true;
    }
    default:
      return false;
  }
}

// Lays one declared tensor over what the schema says.
absl::Status Overlay(const TensorInfo& declared, const std::string& source, TensorInfo& info) {
  if (info.dtype != DType::kUnknown && declared.dtype != DType::kUnknown && info.dtype != declared.dtype) {
    return absl::InvalidArgumentError(StrCat(source, " says '", declared.name, "' is ",
                                             ToString(declared.dtype), ", but the program takes ",
                                             ToString(info.dtype)));
  }
  info.name = declared.name;
  if (declared.dtype != DType::kUnknown) info.dtype = declared.dtype;
  if (declared.shape) info.shape = declared.shape;
  info.reshape = declared.reshape;
  if (declared.optional && !info.optional) {
    return absl::InvalidArgumentError(StrCat(source, " says '", declared.name,
                                             "' is optional, but the program has no default for it"));
  }
  return absl::OkStatus();
}

absl::Status OverlayInputs(const ModelOptions& options, ProgramSignature& program) {
  auto& inputs = program.signature.inputs;
  std::vector<std::string> names;
  std::vector<Argument*> arguments;  // of each input; others stay at their defaults
  for (const TensorInfo& input : inputs) {
    names.push_back(input.name);
    for (Argument& argument : program.arguments) {
      if (argument.name == input.name) arguments.push_back(&argument);
    }
  }
  const std::vector<TensorInfo>& declared = options.inputs;
  const auto places = PlacesOf(declared, names, options.source, "input");
  if (!places.ok()) {
    return absl::InvalidArgumentError(StrCat(FromAbsl(places.status().message()), ": ", QuotedList(names)));
  }
  for (std::size_t i = 0; i < declared.size(); ++i) {
    const std::size_t place = (*places)[i];
    HEARTH_RETURN_IF_ERROR(Overlay(declared[i], options.source, inputs[place]));
    Argument& argument = *arguments[place];
    argument.name = declared[i].name;
    if (!declared[i].reshape) continue;
    if (argument.kind != Kind::kTensor) {
      return absl::InvalidArgumentError(
          StrCat(options.source, " reshapes '", declared[i].name, "', which is no tensor of the program"));
    }
    argument.shape = declared[i].shape;
    argument.reshape = declared[i].reshape;
  }
  return absl::OkStatus();
}

absl::Status OverlayOutputs(const ModelOptions& options, ProgramSignature& program) {
  Signature& signature = program.signature;
  const std::vector<TensorInfo>& declared = options.outputs;
  signature.declared_outputs = declared;
  if (!signature.outputs_known) {
    signature.outputs.resize(declared.size());
    signature.outputs_known = true;
  }
  HEARTH_ASSIGN_OR_RETURN(const std::vector<std::size_t> places,
                          PlacesByNumberOrOrder(declared, signature.outputs.size(), options.source, "output"));
  for (std::size_t i = 0; i < declared.size(); ++i) {
    TensorInfo& output = signature.outputs[places[i]];
    HEARTH_RETURN_IF_ERROR(Overlay(declared[i], options.source, output));
  }
  for (const TensorInfo& output : signature.outputs) program.output_names.push_back(output.name);
  return absl::OkStatus();
}

template <typename T>
std::vector<T> Elements(const Tensor& tensor) {
  std::vector<T> values(tensor.data.size() / sizeof(T));
  std::memcpy(values.data(), tensor.data.data(), values.size() * sizeof(T));
  return values;
}

template <typename T>
absl::StatusOr<T> OneElement(const Argument& argument, const Tensor& tensor) {
  if (tensor.data.size() != sizeof(T)) {
    return absl::InvalidArgumentError(StrCat("inference input '", argument.name,
                                             "' must have exactly one element, got shape ",
                                             ToString(tensor.shape)));
  }
  T value;
  std::memcpy(&value, tensor.data.data(), sizeof(T));
  return value;
}

// In the shape that the program has it in.
absl::StatusOr<Tensor> AsArgument(const Argument& argument, const Tensor& tensor) {
  if (!argument.reshape) return tensor;
  std::optional<Shape> shape = Reshape(*argument.shape, *argument.reshape, tensor.shape);
  if (!shape) {
    return absl::InvalidArgumentError(StrCat("inference input '", argument.name, "' has shape ", ToString(tensor.shape),
                                             ", which is none of ", ToString(*argument.shape)));
  }
  return Tensor{tensor.dtype, *std::move(shape), tensor.data, tensor.owner};
}

absl::StatusOr<at::IValue> ToIValue(const Argument& argument, const Tensor& tensor,
                                    const at::Device& device) {
  switch (argument.kind) {
    case Kind::kTensor: {
      if (!ToScalarType(tensor.dtype)) {
        return absl::InvalidArgumentError(StrCat("inference input '", argument.name,
                                                 "' is a tensor of the program, which cannot hold ",
                                                 ToString(tensor.dtype)));
      }
      HEARTH_ASSIGN_OR_RETURN(const Tensor shaped, AsArgument(argument, tensor));
      at::Tensor wrapped = WrapTensor(shaped);
      return at::IValue(device.is_cpu() ? wrapped : wrapped.to(device));
    }
    case Kind::kInt: {
      HEARTH_ASSIGN_OR_RETURN(const auto value, OneElement<std::int64_t>(argument, tensor));
      return at::IValue(value);
    }
    case Kind::kFloat: {
      HEARTH_ASSIGN_OR_RETURN(const auto value, OneElement<double>(argument, tensor));
      return at::IValue(value);
    }
    case Kind::kBool: {
      HEARTH_ASSIGN_OR_RETURN(const auto value, OneElement<std::uint8_t>(argument, tensor));
      return at::IValue(value != 0);
    }
    case Kind::kIntList: return at::IValue(c10::List<std::int64_t>(Elements<std::int64_t>(tensor)));
    case Kind::kFloatList: return at::IValue(c10::List<double>(Elements<double>(tensor)));
    case Kind::kBoolList: {
      c10::List<bool> list;
      for (const std::uint8_t value : Elements<std::uint8_t>(tensor)) list.push_back(value != 0);
      return at::IValue(std::move(list));
    }
    case Kind::kString:
    case Kind::kStringList: break;
  }
  HEARTH_ASSIGN_OR_RETURN(const auto elements, UnpackBytes(tensor));
  if (argument.kind == Kind::kString) {
    if (elements.size() != 1) {
      return absl::InvalidArgumentError(
          StrCat("inference input '", argument.name, "' must have exactly one element"));
    }
    return at::IValue(std::string(elements[0]));
  }
  c10::List<std::string> list;
  for (const std::string_view element : elements) list.push_back(std::string(element));
  return at::IValue(std::move(list));
}

}  // namespace

absl::StatusOr<ProgramSignature> ReadSignature(const c10::FunctionSchema& schema,
                                               const ModelOptions& options) {
  ProgramSignature program;
  program.signature.platform = "pytorch_libtorch";
  program.signature.max_batch_size = options.max_batch_size;
  HEARTH_RETURN_IF_ERROR(ReadArguments(schema, program));
  program.signature.outputs_known =
      schema.returns().size() == 1 && ReadResults(*schema.returns()[0].type(), "", program.signature.outputs);
  if (!program.signature.outputs_known) program.signature.outputs.clear();
  if (!options.inputs.empty()) HEARTH_RETURN_IF_ERROR(OverlayInputs(options, program));
  if (!options.outputs.empty()) HEARTH_RETURN_IF_ERROR(OverlayOutputs(options, program));
  return program;
}

absl::Status ReshapeOutputs(const Signature& signature, TensorList& outputs) {
  for (const TensorInfo& info : signature.declared_outputs) {
    if (!info.reshape) continue;
    for (NamedTensor& output : outputs) {
      if (output.name != info.name) continue;
      std::optional<Shape> shape = Reshape(*info.reshape, *info.shape, output.tensor.shape);
      if (!shape) {
        return absl::InternalError(StrCat("the program returned output '", info.name, "' as ",
                                          ToString(output.tensor.shape), ", but its config.pbtxt reshapes it from ",
                                          ToString(*info.reshape)));
      }
      output.tensor.shape = *std::move(shape);
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<at::IValue>> BuildStack(const ProgramSignature& program, at::IValue self,
                                                   const TensorList& inputs, const at::Device& device) {
  std::vector<at::IValue> stack;
  stack.reserve(program.arguments.size() + 1);
  stack.push_back(std::move(self));
  for (const Argument& argument : program.arguments) {
    const Tensor* input = Find(inputs, argument.name);
    if (input == nullptr) {
      HEARTH_CHECK(argument.optional);  // validation has refused requests that lack a required input
      stack.push_back(argument.default_value);
      continue;
    }
    HEARTH_ASSIGN_OR_RETURN(at::IValue value, ToIValue(argument, *input, device));
    stack.push_back(std::move(value));
  }
  return stack;
}

}  // namespace hearth
