// What a file is that hearth does not read, by its first bytes, and what to do about it.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string_view>

namespace hearth {

// Of files that are often found in the place of models and of weights: what PyTorch before 1.6 wrote, what was
// not downloaded, what has to be unpacked. Continues a sentence that begins with the file's name; nothing for
// all others.
std::optional<std::string_view> ForeignFile(std::span<const std::byte> file);

}  // namespace hearth
