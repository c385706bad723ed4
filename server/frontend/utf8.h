// Whether bytes are text.
#pragma once

#include <cstddef>
#include <string_view>

namespace hearth {

// Well-formed UTF-8 (RFC 3629): nothing overlong, no surrogates, nothing above U+10FFFF.
[[nodiscard]] constexpr bool IsUtf8(std::string_view text) {
  std::size_t at = 0;
  const auto byte = [text](std::size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0U; };
  const auto follows = [&byte](std::size_t i) { return (byte(i) & 0xC0) == 0x80; };
  while (at < text.size()) {
    const unsigned first = byte(at);
    const unsigned second = byte(at + 1);
    if (first < 0x80) {
      ++at;
    } else if (first >= 0xC2 && first <= 0xDF) {
      if (!follows(at + 1)) return false;
      at += 2;
    } else if (first >= 0xE0 && first <= 0xEF) {
      if (!follows(at + 1) || !follows(at + 2)) return false;
      if ((first == 0xE0 && second < 0xA0) || (first == 0xED && second > 0x9F)) return false;
      at += 3;
    } else if (first >= 0xF0 && first <= 0xF4) {
      if (!follows(at + 1) || !follows(at + 2) || !follows(at + 3)) return false;
      if ((first == 0xF0 && second < 0x90) || (first == 0xF4 && second > 0x8F)) return false;
      at += 4;
    } else {
      return false;
    }
  }
  return true;
}

}  // namespace hearth
