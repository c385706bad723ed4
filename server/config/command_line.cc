#include "server/config/command_line.h"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <map>

namespace hearth {
namespace {

// A flag that is only another way to write --set.
struct ShortSpelling {
  const char* flag;
  const char* key;
  const char* placeholder;
  const char* help;
};

constexpr ShortSpelling kShortSpellings[] = {
    {"--grpc-port", "grpc.port", "N", "Set grpc.port"},
    {"--http-port", "http.port", "N", "Set http.port"},
    {"--log-level", "logging.level", "LEVEL", "Set logging.level: debug, info, warning or error"},
};

// CLI11's own text, and for a flag that does not exist the one that was probably meant.
std::string Explain(const CLI::App& app, const CLI::ParseError& error) {
  std::string message = error.what();
  const std::vector<std::string> unknown = app.remaining();
  if (!unknown.empty() && unknown.front().starts_with('-')) {
    std::vector<std::string> flags;
    for (const CLI::Option* option : app.get_options()) {
      for (const std::string& name : option->get_lnames()) flags.push_back("--" + name);
    }
    const std::string flag = unknown.front().substr(0, unknown.front().find('='));
    const std::string_view closest = ClosestWord(flag, flags);
    message = StrCat("unknown flag ", flag);
    if (!closest.empty()) message += StrCat("; did you mean ", closest, "?");
  } else if (!unknown.empty()) {
    message = StrCat("unexpected argument '", unknown.front(), "'");
  }
  std::replace(message.begin(), message.end(), '\n', ' ');
  return StrCat(message, " (hearthd --help lists the flags)");
}

absl::StatusOr<YamlOverride> ParseSetting(const std::string& text) {
  const std::size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0) {
    return absl::InvalidArgumentError(StrCat(
        "--set '", text, "': write --set path=value, for example --set cache.budget.host=4GiB"));
  }
  const std::string path = text.substr(0, equals);
  return YamlOverride{path, text.substr(equals + 1), StrCat("--set ", path)};
}

// Walks the options in the order they were given, so that the last one wins whatever its spelling.
void CollectSettings(const CLI::App& app, CommandLine& line) {
  std::vector<YamlOverride>& settings = line.settings;
  std::map<const CLI::Option*, std::size_t> next;
  std::string roots;
  for (const CLI::Option* option : app.parse_order()) {
    const std::size_t index = next[option]++;
    if (index >= option->results().size()) continue;
    const std::string& value = option->results()[index];
    const std::string flag = option->get_name();
    if (flag == "--set") {
      if (absl::StatusOr<YamlOverride> setting = ParseSetting(value); setting.ok()) {
        settings.push_back(*std::move(setting));
      } else {
        const std::string before(line.mistakes.message());
        line.mistakes = absl::InvalidArgumentError(
            StrCat(before, before.empty() ? "" : "\n", FromAbsl(setting.status().message())));
      }
    } else if (flag == "--model-repository") {
      // Several make one list.
      roots += (roots.empty() ? "" : ", ") + QuoteYaml(value);
      settings.push_back({"repository.roots", StrCat("[", roots, "]"), flag});
    }
    for (const ShortSpelling& spelling : kShortSpellings) {
      if (flag == spelling.flag) settings.push_back({spelling.key, value, flag});
    }
  }
}

absl::StatusOr<CommandLine> Parse(const std::vector<std::string>& arguments,
                                  const Environment& environment) {
  CLI::App app("Keeps PyTorch models warm and serves them over the Open Inference Protocol.",
               "hearthd");
  app.set_help_flag();  // ours: help is an answer here, not an exception
  bool help = false, version = false, check = false, print = false;
  std::vector<std::string> given;  // read again in order by CollectSettings
  CommandLine line;
  const auto found = environment.find("HEARTH_CONFIG");
  if (found != environment.end()) line.config_file = found->second;

  app.add_option("-c,--config", line.config_file, "YAML file; default: $HEARTH_CONFIG")
      ->type_name("FILE");
  app.add_flag("--check-config", check,
               "Say whether the configuration is good, and exit (78: it is not)");
  app.add_flag("--print-config", print, "Print every key with its value in effect, and exit");
  const auto repeatable = [&](const char* flag, const char* placeholder, const char* text) {
    app.add_option(flag, given, text)->type_name(placeholder)->allow_extra_args(false)->take_all();
  };
  repeatable("--set", "PATH=VALUE",
             "Set any key, e.g. --set cache.budget.host=4GiB; may be repeated");
  repeatable("--model-repository", "DIR", "Set repository.roots; may be repeated");
  for (const ShortSpelling& spelling : kShortSpellings) {
    repeatable(spelling.flag, spelling.placeholder, spelling.help);
  }
  app.add_flag("--version", version, "Print the version, and exit");
  app.add_flag("-h,--help", help, "Print this, and exit");
  app.footer(
      "Flags win over HEARTH_* variables (HEARTH_GRPC__PORT=8001), they over the file.\n"
      "config/hearth.yaml explains every key.");

  try {
    app.parse(
        std::vector<std::string>(arguments.rbegin(), arguments.rend()));  // CLI11 pops from the end
  } catch (const CLI::ParseError& error) {
    return absl::InvalidArgumentError(Explain(app, error));
  }
  CollectSettings(app, line);
  if (check && print) {
    return absl::InvalidArgumentError("--check-config and --print-config exclude each other");
  }
  using Action = CommandLine::Action;
  line.action = help      ? Action::kHelp
                : version ? Action::kVersion
                : check   ? Action::kCheckConfig
                : print   ? Action::kPrintConfig
                          : Action::kServe;
  line.help = app.help();
  return line;
}

}  // namespace

absl::StatusOr<CommandLine> ParseCommandLine(const std::vector<std::string>& arguments,
                                             const Environment& environment) {
  auto line = CatchAsStatus("command line", [&] { return Parse(arguments, environment); });
  if (!line.ok()) return line.status();
  return *std::move(line);
}

}  // namespace hearth
