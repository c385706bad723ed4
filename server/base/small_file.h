// Files that are read whole: tokens, certificates.
#pragma once

#include <cstddef>
#include <string>

#include "server/base/status.h"

namespace hearth {

// A file that the configuration names.
struct PlacedFile {
  std::string path = {};   // empty: none
  std::string where = {};  // as messages say it: "hearth.yaml:12:9: key 'tls.key'"
};

// INVALID_ARGUMENT: it is larger than `most` bytes, or a folder; otherwise it cannot be read. The messages name it.
absl::StatusOr<std::string> ReadSmallFile(const std::string& path, std::size_t most);

}  // namespace hearth
