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

// One argument after `self`. A Tensor takes any protocol tensor; int, float, bool and str take one
// element; List[int|float|bool|str] take a vector.
struct Argument {
  enum class Kind : std::uint8_t {
    kTensor, kInt, kFloat, kBool, kString, kIntList, kFloatList, kBoolList, kStringList,
  };
  std::string name;  // as clients call it: model.yaml's, or the program's
  Kind kind = Kind::kTensor;
  bool optional = false;       // has a default, or is Optional[...]
  at::IValue default_value;    // used when the request leaves it out
  std::optional<Shape> shape = {}, reshape = {};  // as TensorInfo's; a tensor's, where it has both
};

// What the schema of a method says, with model.yaml's names, types and shapes laid over it.
struct ProgramSignature {
  Signature signature;
  std::vector<Argument> arguments;
  std::vector<std::string> output_names;  // model.yaml's where it has one; empty: the program's own
};

// INVALID_ARGUMENT: an argument has a type the protocol has no form for and no default, or model.yaml
// contradicts the schema. declared_order.h says which argument and which result each of model.yaml's is; outputs go by
// number or in order, and those that it leaves out stay.
absl::StatusOr<ProgramSignature> ReadSignature(const c10::FunctionSchema& schema,
                                               const ModelOptions& options);

// Gives outputs that the program has in another shape the one of the signature. INTERNAL: the program gave one of neither.
absl::Status ReshapeOutputs(const Signature& signature, TensorList& outputs);

// The stack for a run, `self` first. INVALID_ARGUMENT when a scalar argument got more than one
// element, or a tensor an element type its argument cannot take.
absl::StatusOr<std::vector<at::IValue>> BuildStack(const ProgramSignature& program, at::IValue self,
                                                   const TensorList& inputs, const at::Device& device);

}  // namespace hearth
