// Tensors as text for people and as JSON for programs.
#pragma once

#include <string>

#include "client/tensor.h"
#include "nlohmann/json.hpp"

namespace hearth::client {

// "[[1, 2, 3], [4, 5, 6]]", one innermost list per line. Unless `full`, a tensor of more than 64 elements
// shows only the first and last three along each long dimension, and long BYTES elements their
// beginning. REQUIRES: Validate(tensor) is OK.
std::string RenderTensor(const Tensor& tensor, bool full);

// The elements in row-major order, as the protocol's JSON has them. NaN and infinities, which JSON lacks,
// are "NaN", "Infinity" and "-Infinity"; a BYTES element that is not UTF-8 is {"b64": "..."}.
// REQUIRES: Validate(tensor) is OK.
nlohmann::ordered_json TensorData(const Tensor& tensor);

// Indented, but lists of plain values on one line. What is not UTF-8 in a string is replaced by U+FFFD.
// No newline at the end.
std::string DumpJson(const nlohmann::ordered_json& json);

}  // namespace hearth::client
