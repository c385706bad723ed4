// Which of a program's tensors are meant by those that model.yaml or config.pbtxt declares. No torch headers.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "server/base/status.h"
#include "server/model/signature.h"

namespace hearth {

// For each of `declared`, the place of its tensor among the program's `count`:
//   - where every name has a number behind "__" or in brackets at its end ("INPUT__0", "ARGS[0]"): that number, as in
//     Triton's PyTorch backend
//   - else in order, and then there are exactly as many
// INVALID_ARGUMENT: a number twice, or one that no tensor has; or not as many. `source` says what, "model.yaml", `what`
// what they are, "input".
absl::StatusOr<std::vector<std::size_t>> PlacesByNumberOrOrder(const std::vector<TensorInfo>& declared, std::size_t count,
                                                               std::string_view source, std::string_view what);

// The same, but by name where each of `declared` has one of `names`.
absl::StatusOr<std::vector<std::size_t>> PlacesOf(const std::vector<TensorInfo>& declared,
                                                  const std::vector<std::string>& names, std::string_view source,
                                                  std::string_view what);

}  // namespace hearth
