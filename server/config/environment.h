// Environment variables as settings. config/ only.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "server/config/server_config.h"

namespace hearth {

struct EnvironmentOverrides {
  std::vector<YamlOverride> overrides;
  std::vector<std::pair<std::string, std::string>> mistakes;  // "$HEARTH_X", what is wrong with it
};

// The HEARTH_* variables that set one of `keys` (dotted paths), and those that look as if they
// meant to.
EnvironmentOverrides ReadEnvironment(const Environment& environment,
                                     const std::vector<std::string>& keys);

}  // namespace hearth
