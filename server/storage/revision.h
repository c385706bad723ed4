// Which content of a model's files is there.
#pragma once

#include <cstdint>
#include <filesystem>

#include "server/base/clock.h"
#include "server/model/model_spec.h"

namespace hearth {

// A number made of the identity, size and times of every file in the version's folder (of a bare file or
// unpacked package: its own), and of the folder's model.yaml, config.pbtxt and files of class names. Two numbers of one model differ when anything was
// written, replaced, added or removed in between: the time of an inode's last change is part of it, which `cp -p`
// and `touch -d` cannot set back. Looks at files, not into them; what cannot be looked at counts as absent.
std::uint64_t RevisionOf(const ModelSpec& spec);

// When a file, or anything in a folder, was last written to, as the file system has it; `cp -p` and `mv` keep it.
WallTime LastWrite(const std::filesystem::path& path);

}  // namespace hearth
