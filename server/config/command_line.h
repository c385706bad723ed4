// The command line of hearthd.
#pragma once

#include <string>
#include <vector>

#include "server/base/status.h"
#include "server/base/yaml_reader.h"
#include "server/config/server_config.h"

namespace hearth {

struct CommandLine {
  enum class Action {
    kServe,
    kCheckConfig,  // read the configuration, say whether it is good, exit
    kPrintConfig,  // print it with every value in effect, exit
    kVersion,
    kHelp,  // print `help`, exit
  };
  Action action = Action::kServe;
  std::string config_file;             // --config, else $HEARTH_CONFIG, else empty: none
  std::vector<YamlOverride> settings;  // --set and its short spellings, in the order given
  // INVALID_ARGUMENT, one a line: every --set that is no path=value. Apart from the other errors,
  // so that it hides nothing that is wrong with the configuration.
  absl::Status mistakes;
  std::string help;
};

// INVALID_ARGUMENT: a command line that cannot be understood; the message says why, on one line,
// and belongs on stderr before an exit with status 2.
absl::StatusOr<CommandLine> ParseCommandLine(const std::vector<std::string>& arguments,
                                             const Environment& environment);

}  // namespace hearth
