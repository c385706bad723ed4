// What an AOTInductor program takes, as strictly as its code needs it. No torch headers.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "server/base/status.h"
#include "server/model/model_spec.h"
#include "server/storage/aoti_metadata.h"

namespace hearth {

// Compiled code reads what it is given without a look at its type or shape: a request that differs
// from what it was compiled for would make it read beyond its inputs. So every input has a type and a
// shape here, from the package's metadata or model.yaml, and CheckInputs() holds each request to them.
//
// Dimensions of one name have one size in a request. Where the package gives no names, the open first
// dimensions are one batch, and all other open ones are free.
//
// Immutable after construction, so thread-safe.
class AotiSignature {
 public:
  // `inputs`, `outputs`: how many the library says it has. INVALID_ARGUMENT when model.yaml contradicts
  // that or the metadata, or when an input's type or shape is known to neither.
  static absl::StatusOr<AotiSignature> Make(const AotiMetadata& metadata, const ModelOptions& options,
                                            std::size_t inputs, std::size_t outputs);

  const Signature& signature() const { return signature_; }
  const std::vector<std::string>& output_names() const { return output_names_; }

  // Only while loading: what a run told about the outputs.
  void LearnOutputs(const TensorList& outputs);

  // The inputs in the program's order. INVALID_ARGUMENT unless the program can take them.
  absl::StatusOr<std::vector<const Tensor*>> CheckInputs(const TensorList& inputs) const;

  // A shape of each input that the program takes: the smallest that its ranges allow, but not below 2.
  std::vector<Shape> ProbeShapes() const;

 private:
  absl::Status SetInputs(const AotiMetadata& metadata, const ModelOptions& options, std::size_t count);
  absl::Status SetOutputs(const AotiMetadata& metadata, const ModelOptions& options, std::size_t count);

  Signature signature_;
  std::vector<std::vector<std::string>> dimensions_;  // of each input; empty where free or fixed
  std::map<std::string, AotiRange, std::less<>> ranges_;
  std::vector<std::string> output_names_;
};

}  // namespace hearth
