#include "server/tensor/reshape.h"

#include <cstddef>
#include <utility>
#include <vector>

namespace hearth {
namespace {

// The elements between open dimensions: one number more than there are of these. Nothing: they are too many to count.
std::optional<std::vector<std::int64_t>> Runs(const Shape& shape) {
  std::vector<std::int64_t> runs;
  Shape run;
  for (const std::int64_t dimension : shape) {
    if (dimension >= 0) {
      run.push_back(dimension);
      continue;
    }
    const std::optional<std::int64_t> elements = ElementCount(std::exchange(run, {}));
    if (!elements) return std::nullopt;
    runs.push_back(*elements);
  }
  const std::optional<std::int64_t> elements = ElementCount(run);
  if (!elements) return std::nullopt;
  runs.push_back(*elements);
  return runs;
}

}  // namespace

absl::Status CheckReshape(const Shape& from, const Shape& to) {
  const auto before = Runs(from);
  const auto after = Runs(to);
  if (before && after && *before == *after) return absl::OkStatus();
  return absl::InvalidArgumentError(
      StrCat("a tensor of shape ", ToString(from), " cannot be reshaped to ", ToString(to),
             ": both need as many -1, and as many elements between them"));
}

std::optional<Shape> Reshape(const Shape& from, const Shape& to, const Shape& actual) {
  if (actual.size() != from.size()) return std::nullopt;
  Shape shape = to;
  std::size_t open = 0;  // in `shape`, the next one
  for (std::size_t i = 0; i < from.size(); ++i) {
    if (from[i] >= 0) {
      if (actual[i] != from[i]) return std::nullopt;
      continue;
    }
    while (open < to.size() && to[open] >= 0) ++open;
    if (open == to.size()) return std::nullopt;
    shape[open++] = actual[i];
  }
  return shape;
}

}  // namespace hearth
