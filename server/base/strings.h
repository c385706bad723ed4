// StrCat over std::string_view. Debian's Abseil has an absl::string_view that is a type of its own,
// so absl::StrCat(std::string_view) does not compile; everybody builds messages with this instead.
#pragma once

#include <cstddef>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace hearth {

inline absl::string_view ToAbsl(std::string_view s) { return {s.data(), s.size()}; }
inline std::string_view FromAbsl(absl::string_view s) { return {s.data(), s.size()}; }

namespace strings_internal {
template <typename T>
decltype(auto) Arg(const T& value) {
  if constexpr (std::is_same_v<T, std::string_view>) {
    return ToAbsl(value);
  } else {
    return (value);
  }
}
}  // namespace strings_internal

template <typename... Args>
[[nodiscard]] std::string StrCat(const Args&... args) {
  return absl::StrCat(strings_internal::Arg(args)...);
}

// "'a', 'b'": names in a message, each in single quotes.
template <typename Range>
[[nodiscard]] std::string QuotedList(const Range& names) {
  std::string out;
  for (const auto& name : names) {
    if (!out.empty()) out += ", ";
    out += '\'';
    out += name;
    out += '\'';
  }
  return out;
}

// Whether `bytes` have `text` in them from byte `at` on: what files of a format begin with.
[[nodiscard]] inline bool StartsWith(std::span<const std::byte> bytes, std::string_view text,
                                     std::size_t at = 0) {
  return bytes.size() >= at + text.size() &&
         std::memcmp(bytes.data() + at, text.data(), text.size()) == 0;
}

// ^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$: a name that is safe in paths, metrics labels and log lines.
[[nodiscard]] constexpr bool IsPlainName(std::string_view name) {
  constexpr auto kAlphanumeric = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
  };
  if (name.empty() || name.size() > 128 || !kAlphanumeric(name.front())) return false;
  for (const char c : name) {
    if (!kAlphanumeric(c) && c != '.' && c != '_' && c != '-') return false;
  }
  return true;
}

// Whether it names a file in a folder and leads nowhere else, in whatever alphabet; hidden files are none of ours.
[[nodiscard]] constexpr bool IsFileName(std::string_view name) {
  if (name.empty() || name.size() > 255 || name.front() == '.') return false;
  for (const char c : name) {
    if (c == '/' || (c >= '\0' && c < ' ') || c == '\x7f') return false;
  }
  return true;
}

}  // namespace hearth
