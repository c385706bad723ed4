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
    case Kind::kTuple:
    case Kind::kList:
    case Kind::kDict: break;  // their parts have one
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

constexpr std::string_view kOfPart = "__";

// What follows "NAME__" in those of `declared` that begin so, up to the next "__"; each once, in their order.
std::vector<std::string> DeclaredParts(const std::vector<TensorInfo>& declared, std::string_view name) {
  std::vector<std::string> parts;
  const std::string prefix = StrCat(name, kOfPart);
  for (const TensorInfo& input : declared) {
    if (!input.name.starts_with(prefix)) continue;
    std::string part = input.name.substr(prefix.size());
    part.resize(std::min(part.size(), part.find(kOfPart)));
    if (std::ranges::find(parts, part) == parts.end()) parts.push_back(std::move(part));
  }
  return parts;
}

bool IsDeclaredOptional(const std::vector<TensorInfo>& declared, std::string_view name) {
  return std::ranges::any_of(declared, [&](const TensorInfo& input) { return input.name == name && input.optional; });
}

// Makes arguments of a schema's, and inputs of what of them a client can give.
class ArgumentReader {
 public:
  ArgumentReader(const c10::FunctionSchema& schema, const std::vector<TensorInfo>& declared, std::vector<TensorInfo>& inputs)
      : schema_(schema), declared_(declared), inputs_(inputs) {}

  absl::StatusOr<Argument> Read(const c10::Argument& from) {
    return Read(from.type(), from.name(), from.default_value().has_value(), from.default_value().value_or(at::IValue()));
  }

 private:
  // `type`, or what it is if it is not None.
  absl::StatusOr<Argument> Read(const c10::TypePtr& type, const std::string& name, bool optional, at::IValue default_value) {
    const bool nullable = type->kind() == c10::TypeKind::OptionalType;
    const c10::TypePtr inner = nullable ? type->containedType(0) : type;
    Argument argument{name, Kind::kTensor, optional || nullable, std::move(default_value)};
    if (const auto kind = KindOf(*inner)) {
      argument.kind = *kind;
      inputs_.push_back({name, DTypeOf(*kind), ShapeOf(*kind), argument.optional});
      inputs_.back().is_tensor = *kind == Kind::kTensor;
      return argument;
    }
    argument.type = inner;
    const std::size_t before = inputs_.size();
    const absl::Status read = ReadParts(*inner, argument);
    if (!read.ok()) {
      if (!argument.optional) return read;
      inputs_.resize(before);  // it stays at its default; clients cannot name it
      argument.kind = Kind::kTensor;
      argument.parts.clear();
    }
    if (argument.optional) {
      for (std::size_t i = before; i < inputs_.size(); ++i) inputs_[i].optional = true;
    }
    return argument;
  }

  absl::Status ReadParts(const c10::Type& type, Argument& argument) {
    switch (type.kind()) {
      case c10::TypeKind::TupleType:
        argument.kind = Kind::kTuple;
        return ReadTuple(type.expectRef<c10::TupleType>(), argument);
      case c10::TypeKind::ListType:
        argument.kind = Kind::kList;
        return ReadList(type.containedType(0), argument);
      case c10::TypeKind::DictType:
        if (type.containedType(0)->kind() != c10::TypeKind::StringType) break;
        argument.kind = Kind::kDict;
        return ReadDict(type.containedType(1), argument);
      default: break;
    }
    return absl::InvalidArgumentError(
        StrCat("argument '", argument.name, "' of ", schema_.name(), " is a ", type.repr_str(),
               ", which the protocol has no form for; wrap the module in one that takes tensors, numbers or strings, or "
               "tuples, lists and dictionaries of these"));
  }

  absl::Status ReadTuple(const c10::TupleType& tuple, Argument& argument) {
    for (std::size_t i = 0; i < tuple.elements().size(); ++i) {
      const std::string part = tuple.schema() != nullptr ? tuple.schema()->arguments()[i].name() : std::to_string(i);
      HEARTH_RETURN_IF_ERROR(AddPart(tuple.elements()[i], part, argument));
    }
    return absl::OkStatus();
  }

  absl::Status ReadList(const c10::TypePtr& element, Argument& argument) {
    std::vector<std::string> parts = DeclaredParts(declared_, argument.name);
    if (parts.empty()) return Undeclared(argument, "how many it has", "0, ...__1 and so on");
    for (std::size_t i = 0; i < parts.size(); ++i) {
      const std::string number = std::to_string(i);
      if (std::ranges::find(parts, number) == parts.end()) {
        return absl::InvalidArgumentError(StrCat("of the list '", argument.name, "' there are ", parts.size(),
                                                 " parts among the inputs, but none is '", argument.name, kOfPart, number,
                                                 "': they are counted from 0"));
      }
      HEARTH_RETURN_IF_ERROR(AddPart(element, number, argument));
    }
    return absl::OkStatus();
  }

  absl::Status ReadDict(const c10::TypePtr& value, Argument& argument) {
    const std::vector<std::string> keys = DeclaredParts(declared_, argument.name);
    if (keys.empty()) return Undeclared(argument, "which keys it has", "KEY");
    for (const std::string& key : keys) {
      const std::size_t inputs_before = inputs_.size();
      HEARTH_RETURN_IF_ERROR(AddPart(value, key, argument));
      Argument& part = argument.parts.back();
      part.key = key;
      if (inputs_.size() == inputs_before) {
        return absl::InvalidArgumentError(StrCat("input '", part.name, "' is declared, and ", schema_.name(), " has a ",
                                                 value->repr_str(), " there, which the protocol has no form for"));
      }
      if (!part.parts.empty() || !IsDeclaredOptional(declared_, part.name)) continue;
      part.optional = inputs_.back().optional = true;  // its key is left out with it
    }
    return absl::OkStatus();
  }

  absl::Status Undeclared(const Argument& argument, std::string_view what, std::string_view part) const {
    return absl::InvalidArgumentError(StrCat("argument '", argument.name, "' of ", schema_.name(), " is a ",
                                             argument.type->repr_str(), ", and nothing says ", what,
                                             ": declare its parts in model.yaml, as inputs '", argument.name, kOfPart, part, "'"));
  }

  absl::Status AddPart(const c10::TypePtr& type, const std::string& part, Argument& argument) {
    HEARTH_ASSIGN_OR_RETURN(Argument made, Read(type, StrCat(argument.name, kOfPart, part), false, at::IValue()));
    argument.parts.push_back(std::move(made));
    return absl::OkStatus();
  }

  const c10::FunctionSchema& schema_;
  const std::vector<TensorInfo>& declared_;
  std::vector<TensorInfo>& inputs_;
};

absl::Status ReadArguments(const c10::FunctionSchema& schema, const ModelOptions& options, ProgramSignature& program) {
  ArgumentReader reader(schema, options.inputs, program.signature.inputs);
  for (std::size_t i = 1; i < schema.arguments().size(); ++i) {
    HEARTH_ASSIGN_OR_RETURN(Argument argument, reader.Read(schema.arguments()[i]));
    program.arguments.push_back(std::move(argument));
  }
  const auto& inputs = program.signature.inputs;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      if (inputs[i].name != inputs[j].name) continue;
      return absl::InvalidArgumentError(StrCat("'", inputs[i].name, "' is both an argument of ", schema.name(),
                                               " and a part of one: rename the argument"));
    }
  }
  return absl::OkStatus();
}

// Reads what a program returns. False: the program decides at run time how many results there are.
class ResultReader {
 public:
  explicit ResultReader(std::vector<TensorInfo>& outputs) : outputs_(outputs) {}

  // `nullable`: may be None, and is left out then.
  bool Read(const c10::Type& type, const std::string& own_name, bool nullable = false) {
    if (type.kind() == c10::TypeKind::OptionalType) {
      return KindOf(*type.containedType(0)) && Read(*type.containedType(0), own_name, true);
    }
    if (type.kind() == c10::TypeKind::TupleType) return ReadTuple(type.expectRef<c10::TupleType>());
    if (type.kind() == c10::TypeKind::NoneType) return true;
    const auto kind = KindOf(type);
    if (!kind || type.kind() == c10::TypeKind::NumberType) return false;
    std::optional<Shape> shape = ShapeOf(*kind);
    if (shape == Shape{1}) shape = Shape{};  // a scalar is given as one element, and comes back as none has a dimension
    outputs_.push_back({NameOfOutput(own_name, outputs_), DTypeOf(*kind), shape, nullable});
    return true;
  }

 private:
  bool ReadTuple(const c10::TupleType& tuple) {
    for (std::size_t i = 0; i < tuple.elements().size(); ++i) {
      const std::string name = tuple.schema() != nullptr ? tuple.schema()->arguments()[i].name() : "";
      if (tuple.elements()[i]->kind() == c10::TypeKind::NoneType) return false;  // it has a number, and is never there
      if (!Read(*tuple.elements()[i], name)) return false;
    }
    return true;
  }

  static std::string NameOfOutput(const std::string& own_name, const std::vector<TensorInfo>& before) {
    const bool taken = FindInfo(before, own_name) != nullptr;
    return own_name.empty() || taken ? StrCat("OUTPUT__", before.size()) : own_name;
  }

  std::vector<TensorInfo>& outputs_;
};

// Lays one declared tensor over what the schema says.
absl::Status Overlay(const TensorInfo& declared, const std::string& source, TensorInfo& info) {
  if (info.dtype != DType::kUnknown && declared.dtype != DType::kUnknown && info.dtype != declared.dtype) {
    return absl::InvalidArgumentError(StrCat(source, " says '", declared.name, "' is ",
                                             ToString(declared.dtype), ", but the program takes ",
                                             ToString(info.dtype)));
  }
  if (info.is_tensor && declared.dtype == DType::kBytes) {
    return absl::InvalidArgumentError(StrCat(source, " says '", declared.name,
                                             "' is BYTES, but the program takes a tensor, which holds no strings"));
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

// That of an input, by the name that the schema gives it.
Argument* FindLeaf(std::vector<Argument>& arguments, const std::string& name) {
  for (Argument& argument : arguments) {
    if (argument.parts.empty() && argument.name == name) return &argument;
    if (Argument* part = FindLeaf(argument.parts, name)) return part;
  }
  return nullptr;
}

absl::Status OverlayInputs(const ModelOptions& options, ProgramSignature& program) {
  auto& inputs = program.signature.inputs;
  std::vector<std::string> names;
  std::vector<Argument*> arguments;  // of each input; others stay at their defaults
  for (const TensorInfo& input : inputs) {
    names.push_back(input.name);
    arguments.push_back(FindLeaf(program.arguments, input.name));
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
    case Kind::kTuple:
    case Kind::kList:
    case Kind::kDict: HEARTH_CHECK(false);  // their parts are given
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
  HEARTH_RETURN_IF_ERROR(ReadArguments(schema, options, program));
  program.signature.outputs_known =
      schema.returns().size() == 1 && ResultReader(program.signature.outputs).Read(*schema.returns()[0].type(), "");
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
                                          ToString(output.tensor.shape), ", but its configuration reshapes it from ",
                                          ToString(*info.reshape)));
      }
      output.tensor.shape = *std::move(shape);
    }
  }
  return absl::OkStatus();
}

namespace {

class StackBuilder {
 public:
  StackBuilder(const TensorList& inputs, const at::Device& device) : inputs_(inputs), device_(device) {}

  // Nothing: the request has none of it.
  absl::StatusOr<std::optional<at::IValue>> Build(const Argument& argument) const {
    if (!argument.parts.empty()) return BuildOfParts(argument);
    const Tensor* input = Find(inputs_, argument.name);
    if (input == nullptr) return std::nullopt;
    HEARTH_ASSIGN_OR_RETURN(at::IValue value, ToIValue(argument, *input, device_));
    return value;
  }

 private:
  absl::StatusOr<std::optional<at::IValue>> BuildOfParts(const Argument& argument) const {
    std::vector<std::optional<at::IValue>> parts;
    const Argument* missing = nullptr;
    bool any = false;
    for (const Argument& part : argument.parts) {
      HEARTH_ASSIGN_OR_RETURN(std::optional<at::IValue> value, Build(part));
      any = any || value;
      if (!value && !part.optional) missing = &part;
      if (!value && argument.kind != Kind::kDict) value = part.default_value;
      parts.push_back(std::move(value));
    }
    if (!any && (missing != nullptr || argument.optional)) return std::nullopt;
    if (missing != nullptr) {
      return absl::InvalidArgumentError(StrCat("inference input '", missing->name, "' is missing: the parts of '",
                                               argument.name, "' are given together or not at all"));
    }
    return Assemble(argument, parts);
  }

  static at::IValue Assemble(const Argument& argument, std::vector<std::optional<at::IValue>>& parts) {
    if (argument.kind == Kind::kTuple) {
      std::vector<at::IValue> elements;
      for (auto& part : parts) elements.push_back(*std::move(part));
      return c10::ivalue::Tuple::createNamed(std::move(elements), argument.type->expect<c10::TupleType>());
    }
    if (argument.kind == Kind::kList) {
      c10::impl::GenericList list(argument.type->containedType(0));
      for (auto& part : parts) list.push_back(*std::move(part));
      return list;
    }
    c10::impl::GenericDict dict(argument.type->containedType(0), argument.type->containedType(1));
    for (std::size_t i = 0; i < parts.size(); ++i) {
      if (parts[i]) dict.insert(argument.parts[i].key, *std::move(parts[i]));
    }
    return dict;
  }

  const TensorList& inputs_;
  const at::Device& device_;
};

}  // namespace

absl::StatusOr<std::vector<at::IValue>> BuildStack(const ProgramSignature& program, at::IValue self,
                                                   const TensorList& inputs, const at::Device& device) {
  std::vector<at::IValue> stack;
  stack.reserve(program.arguments.size() + 1);
  stack.push_back(std::move(self));
  const StackBuilder builder(inputs, device);
  for (const Argument& argument : program.arguments) {
    HEARTH_ASSIGN_OR_RETURN(std::optional<at::IValue> value, builder.Build(argument));
    // Validation has refused requests that lack a required input; what has optional parts only may be made of none of them.
    if (!value && !argument.optional) {
      return absl::InvalidArgumentError(StrCat("the request has nothing for argument '", argument.name, "', which needs it"));
    }
    stack.push_back(value ? *std::move(value) : argument.default_value);
  }
  return stack;
}

}  // namespace hearth
