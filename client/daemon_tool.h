// Runs `hearthd`'s tools for files: hearthd reads model formats, `hearth` presents what it finds.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace hearth::client {

struct ToolResult {
  int exit_code = 0;   // unless 0, hearthd has said why on standard error, and nothing is to be added
  std::string output;  // standard output
};

// Runs `hearthd ARGUMENTS...`. hearthd is $HEARTHD, or stands beside this program, or in PATH. NOT_FOUND when there
// is none; FAILED_PRECONDITION when it was ended by a signal.
absl::StatusOr<ToolResult> RunHearthd(const std::vector<std::string>& arguments);

}  // namespace hearth::client
