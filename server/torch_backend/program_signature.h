// The arguments of a program's method, and how request tensors become them.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "server/base/status.h"
#include "server/model/model_spec.h"
#include "server/tensor/tensor.h"
#include "server/torch_backend/torch_headers.h"

namespace hearth {

// One argument after `self`, or a part of one. A Tensor takes any protocol tensor but BYTES; int, float, bool and str take
// one element; List[int|float|bool|str] take a vector. A tuple, any other list and a dictionary are made of parts, each of
// which is an input of its own.
struct Argument {
  enum class Kind : std::uint8_t {
    kTensor, kInt, kFloat, kBool, kString, kIntList, kFloatList, kBoolList, kStringList, kTuple, kList, kDict,
  };
  std::string name;  // as clients call it: model.yaml's, or the program's; of a part, "ARGUMENT__PART"
  Kind kind = Kind::kTensor;
  bool optional = false;       // has a default, or is Optional[...]
  at::IValue default_value;    // used when the request leaves it out
  std::optional<Shape> shape = {}, reshape = {};  // as TensorInfo's; a tensor's, where it has both
  std::vector<Argument> parts = {};               // in the order of the tuple or the list, or of model.yaml
  std::string key = {};                           // of a part of a dictionary
  c10::TypePtr type = {};                         // of what is made of parts
};

// What the schema of a method says, with model.yaml's names, types and shapes laid over it.
struct ProgramSignature {
  Signature signature;
  std::vector<Argument> arguments;
  std::vector<std::string> output_names;  // model.yaml's where it has one; empty: the program's own
};

// INVALID_ARGUMENT: an argument has a type the protocol has no form for and no default, or model.yaml
// contradicts the schema. How many parts a list has, and which a dictionary, is what model.yaml's inputs "ARGUMENT__0" or
// "ARGUMENT__KEY" say. declared_order.h says which argument and which result each of model.yaml's is; outputs go by
// number or in order, and those that it leaves out stay.
absl::StatusOr<ProgramSignature> ReadSignature(const c10::FunctionSchema& schema,
                                               const ModelOptions& options);

// Gives outputs that the program has in another shape the one of the signature. INTERNAL: the program gave one of neither.
absl::Status ReshapeOutputs(const Signature& signature, TensorList& outputs);

// The stack for a run, `self` first. INVALID_ARGUMENT when a scalar argument got more than one
// element, a tensor an element type its argument cannot take, or an argument some of its parts but not all.
absl::StatusOr<std::vector<at::IValue>> BuildStack(const ProgramSignature& program, at::IValue self,
                                                   const TensorList& inputs, const at::Device& device);

}  // namespace hearth
