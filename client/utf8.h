// The little of Unicode that a command line needs.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace hearth::client {

// False, and nothing appended, for a surrogate or a number beyond U+10FFFF.
bool AppendUtf8(char32_t c, std::string& out);

// Well-formed as the Unicode standard defines it: no overlong forms, no surrogates.
bool IsUtf8(std::string_view text);

// Code points; what is not UTF-8 counts per byte. Close enough to columns for names and numbers.
std::size_t DisplayWidth(std::string_view text);

// The text with control characters (and, if it is not UTF-8, every byte beyond ASCII) as \n, \t or \xNN,
// so that what a server says cannot drive the terminal.
std::string Printable(std::string_view text);

}  // namespace hearth::client
