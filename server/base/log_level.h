// The level of the log alone, for who changes it while the server runs; the configuration sets it anew when it is
// reloaded (log.h). Thread-safe.
#pragma once

#include "server/base/log.h"

namespace hearth::log {

Level CurrentLevel();
void SetLevel(Level level);

}  // namespace hearth::log
