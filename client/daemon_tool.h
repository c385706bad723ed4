// Runs `hearthd`'s tools for files: hearthd reads model formats, `hearth` presents what it finds.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace hearth::client {

// What `hearthd ARGUMENTS...` writes to standard output. hearthd is $HEARTHD, or stands beside this
// program, or in PATH. NOT_FOUND when there is none; FAILED_PRECONDITION when it fails: its own words
// are on standard error by then.
absl::StatusOr<std::string> RunHearthd(const std::vector<std::string>& arguments);

}  // namespace hearth::client
