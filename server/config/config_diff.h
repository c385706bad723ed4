// What one configuration makes of another while the daemon runs.
#pragma once

#include <vector>

#include "server/base/config_change.h"
#include "server/config/server_config.h"

namespace hearth {

// `running` with everything of `next` that can be applied without a restart. The only list of these keys; those that
// are left out are bound into threads, sockets and loaders.
ServerConfig TakeOver(const ServerConfig& running, const ServerConfig& next);

// Every key that differs, in the order of --print-config.
std::vector<ConfigChange> DiffConfigs(const ServerConfig& running, const ServerConfig& next);

}  // namespace hearth
