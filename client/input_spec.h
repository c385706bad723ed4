// What `hearth infer --input` takes:
//
//   NAME[:TYPE][:[SHAPE]]=VALUE     x=3   sr:INT64=16000   x:FP32[2,2]=[1,2,3,4]   x:[1,3]=[1,2,3]
//
// VALUE is a literal (literal.h) or a file:
//   @x.npy                  a NumPy array
//   @x.wav                  its samples, mono, FP32, shape [1, samples]
//   @x.wav:16000            the same, resampled to 16,000 per second
//   @x.wav:16000[0:512]     the first 512 of those samples; either end may be left out
//   @FILE, for type BYTES   the whole file as one element, shape [1] (also a .npy or .wav, if BYTES is
//                           written out)
//   @FILE, otherwise        raw little-endian elements; needs TYPE and SHAPE, where one -1 is computed
//
// TYPE written out converts (rounding, never wrapping). Otherwise the model's own type decides what a
// literal becomes, and an array of another type is refused with a hint instead of converted silently.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "client/tensor.h"

namespace hearth::client {

struct InputSpec {
  std::string name;
  std::optional<DataType> datatype;
  std::optional<Shape> shape;  // may hold one -1
  std::string value;
};

// INVALID_ARGUMENT: no '=', no name, a malformed shape, or a word in capitals where a type is expected
// that is none. Any other ':' that no type or shape follows belongs to the name.
absl::StatusOr<InputSpec> ParseInputSpec(std::string_view text);

// What the model says about an input. Nothing known is fine.
struct Expectation {
  std::optional<DataType> datatype;
  Shape shape;  // -1: any size; empty: not known, or a scalar
};

// Reads the file or literal. Errors name the input.
absl::StatusOr<Tensor> ReadInput(const InputSpec& spec, const Expectation& expected);

}  // namespace hearth::client
