// Building messages. absl::StrCat of Debian's Abseil does not take a std::string_view.
#pragma once

#include <string>
#include <string_view>
#include <type_traits>

#include "absl/strings/str_cat.h"

namespace hearth::client {

namespace strings_internal {
template <typename T>
decltype(auto) Arg(const T& value) {
  if constexpr (std::is_same_v<T, std::string_view>) {
    return std::string(value);
  } else {
    return (value);
  }
}
}  // namespace strings_internal

template <typename... Args>
[[nodiscard]] std::string Cat(const Args&... args) {
  return absl::StrCat(strings_internal::Arg(args)...);
}

}  // namespace hearth::client
