#include "server/torch_backend/declared_order.h"

#include <algorithm>
#include <charconv>
#include <numeric>
#include <optional>

namespace hearth {
namespace {

std::optional<std::size_t> WholeNumber(std::string_view text) {
  std::size_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

// "INPUT__3", "ARGS[3]" -> 3.
std::optional<std::size_t> NumberIn(std::string_view name) {
  if (name.ends_with(']')) {
    const std::size_t open = name.rfind('[');
    if (open == name.npos) return std::nullopt;
    return WholeNumber(name.substr(open + 1, name.size() - open - 2));
  }
  const std::size_t bar = name.rfind("__");
  return bar == name.npos ? std::nullopt : WholeNumber(name.substr(bar + 2));
}

std::string Count(std::size_t number, std::string_view what) { return StrCat(number, " ", what, number == 1 ? "" : "s"); }

// Nothing: not every name has a number.
std::optional<std::vector<std::size_t>> Numbers(const std::vector<TensorInfo>& declared) {
  std::vector<std::size_t> numbers;
  for (const TensorInfo& info : declared) {
    const auto number = NumberIn(info.name);
    if (!number) return std::nullopt;
    numbers.push_back(*number);
  }
  return numbers;
}

}  // namespace

absl::StatusOr<std::vector<std::size_t>> PlacesByNumberOrOrder(const std::vector<TensorInfo>& declared, std::size_t count,
                                                               std::string_view source, std::string_view what) {
  if (const auto numbers = Numbers(declared)) {
    for (std::size_t i = 0; i < numbers->size(); ++i) {
      const std::size_t number = (*numbers)[i];
      if (number >= count) {
        return absl::InvalidArgumentError(StrCat(source, " declares the ", what, " '", declared[i].name,
                                                 "', but the program has ", Count(count, what), ", counted from 0"));
      }
      if (std::find(numbers->begin(), numbers->begin() + static_cast<std::ptrdiff_t>(i), number) !=
          numbers->begin() + static_cast<std::ptrdiff_t>(i)) {
        return absl::InvalidArgumentError(
            StrCat(source, " declares two ", what, "s with the number ", number, "; '", declared[i].name, "' is one"));
      }
    }
    return *numbers;
  }
  if (declared.size() != count) {
    return absl::InvalidArgumentError(StrCat(source, " declares ", Count(declared.size(), what), ", but the program has ", count));
  }
  std::vector<std::size_t> in_order(count);
  std::iota(in_order.begin(), in_order.end(), std::size_t{0});
  return in_order;
}

absl::StatusOr<std::vector<std::size_t>> PlacesOf(const std::vector<TensorInfo>& declared,
                                                  const std::vector<std::string>& names, std::string_view source,
                                                  std::string_view what) {
  std::vector<std::size_t> places;
  for (const TensorInfo& info : declared) {
    const auto found = std::find(names.begin(), names.end(), info.name);
    if (found == names.end()) return PlacesByNumberOrOrder(declared, names.size(), source, what);
    places.push_back(static_cast<std::size_t>(found - names.begin()));
  }
  return places;
}

}  // namespace hearth
