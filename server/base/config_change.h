// What a reload of the configuration changes, for people.
#pragma once

#include <string>
#include <vector>

namespace hearth {

struct ConfigChange {
  std::string key;     // "cache.budget.host"
  std::string before;  // as --print-config shows it
  std::string after;
  bool needs_restart = false;  // else it is in force from the reload on
};

struct ConfigReload {
  std::vector<ConfigChange> changes;  // in the order of --print-config
  std::vector<std::string> notes;     // what else to know, a sentence each
};

}  // namespace hearth
