// The names of an output's classes: one a line, in the order of the classes.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "server/base/status.h"

namespace hearth {

// Empty lines at the end are none; others are classes without a name. Errors as those of ReadSmallFile (mapped_file.h).
absl::StatusOr<std::shared_ptr<const std::vector<std::string>>> ReadClassNames(const std::filesystem::path& file);

}  // namespace hearth
