// hearth, the command-line client: parses the command line, connects, runs one command.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <optional>
#include <string>
#include <string_view>

#include "client/commands/command.h"
#include "client/spinner.h"
#include "client/strings.h"
#include "client/trust.h"
#include "client/units.h"

namespace hearth::client {
namespace {

constexpr char kFooter[] = R"(Environment:
  HEARTH_ADDRESS     default of --address
  HEARTH_TOKEN_FILE, HEARTH_TLS, HEARTH_CA, HEARTH_CERT, HEARTH_KEY
                     those of the options called so
  NO_COLOR           no colours, even on a terminal

Exit codes:
  0   done
  1   the server refused or failed, and said why on standard error;
      health: not healthy, or no answer
  2   the command line, or a file that it names, is wrong
  69  no server answers at the address
  75  --timeout passed first; asking again may succeed)";

struct GlobalOptions {
  std::string address = "localhost:8001";
  std::string timeout;
  std::string wait;
  TrustFiles trust;
  bool json = false;
};

void AddGlobalOptions(CLI::App& app, GlobalOptions& options) {
  app.add_option("-a,--address", options.address, "The server's gRPC port")
      ->envname("HEARTH_ADDRESS")->type_name("HOST:PORT")->capture_default_str();
  app.add_option("-t,--timeout", options.timeout,
                 "Give up after this long: 500ms, 30s, 2m (default 10s; 5m where a model may be loaded)")
      ->type_name("DURATION");
  app.add_option("--wait", options.wait, "Keep trying this long if no server answers yet")
      ->type_name("DURATION");
  app.add_option("--token-file", options.trust.token_file,
                 "The token for what the server does not allow everybody; its first line")
      ->envname("HEARTH_TOKEN_FILE")->type_name("FILE");
  app.add_flag("--tls", options.trust.tls, "Speak TLS; the next three mean it, too")->envname("HEARTH_TLS");
  app.add_option("--ca", options.trust.ca, "Trust servers whose certificate this one has signed, PEM (default: as the system does)")
      ->envname("HEARTH_CA")->type_name("FILE");
  app.add_option("--cert", options.trust.certificate, "Our own certificate, for servers that want one")
      ->envname("HEARTH_CERT")->type_name("FILE");
  app.add_option("--key", options.trust.key, "Its key")->envname("HEARTH_KEY")->type_name("FILE");
  app.add_flag("--json", options.json, "Print the result as JSON");
  app.set_version_flag("--version", "hearth " HEARTH_VERSION);
}

bool WantsColors() {
  const char* no_color = std::getenv("NO_COLOR");
  return IsTerminal(STDOUT_FILENO) && (no_color == nullptr || *no_color == '\0');
}

// Help and --version are answers, everything else CLI11 throws is a mistake in one sentence.
int OnParseError(const CLI::App& app, const CLI::ParseError& error) {
  const bool version = dynamic_cast<const CLI::CallForVersion*>(&error) != nullptr;
  if (version && !app.get_subcommands().empty()) {
    return FailUsage("--version prints hearth's own; a model's is named as MODEL:VERSION");
  }
  if (error.get_exit_code() == static_cast<int>(CLI::ExitCodes::Success)) return app.exit(error);
  return FailUsage(Cat(error.what(), "; 'hearth --help' tells more"));
}

int Run(int argc, char** argv) {
  CLI::App app("Talk to hearthd, the model server.", "hearth");
  GlobalOptions options;
  Selection selection;
  app.require_subcommand(0, 1);  // none at all is answered below, in our words
  app.fallthrough();  // global options may also follow the command
  app.footer(kFooter);
  AddGlobalOptions(app, options);
  AddInferCommand(app, selection);
  AddRepositoryCommands(app, selection);
  AddCacheCommands(app, selection);
  AddTopCommand(app, selection);
  AddEventCommands(app, selection);
  AddPlanCommand(app, selection);
  AddControlCommands(app, selection);
  AddServerCommands(app, selection);
  AddReloadCommand(app, selection);
  AddFileCommands(app, selection);
  AddPackCommand(app, selection);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return OnParseError(app, error);
  }

  if (!selection.run) return FailUsage("no command was given; 'hearth --help' lists them");
  ClientOptions client_options{.address = options.address, .timeout = selection.default_timeout};
  if (!options.timeout.empty()) {
    const auto timeout = ParseDuration(options.timeout);
    if (!timeout) return FailUsage(Cat("--timeout: '", options.timeout, "' is no duration like 30s"));
    client_options.timeout = *timeout;
  }
  if (!options.wait.empty()) {
    const auto wait = ParseDuration(options.wait);
    if (!wait) return FailUsage(Cat("--wait: '", options.wait, "' is no duration like 30s"));
    client_options.wait_for_server = *wait;
    client_options.timeout += *wait;  // the time for the answer is not spent on the wait
  }
  if (const absl::Status read = ReadTrust(options.trust, client_options); !read.ok()) {
    return FailUsage(std::string(read.message()));
  }
  const auto client = Client::Create(client_options);
  return selection.run(Context{*client, options.address, options.json, WantsColors()});
}

}  // namespace
}  // namespace hearth::client

int main(int argc, char** argv) {
  // gRPC's own log lines are not for the people at this terminal; who wants them sets the variable.
  setenv("GRPC_VERBOSITY", "NONE", /*overwrite=*/0);
  try {
    return hearth::client::Run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "hearth: %s\n", error.what());
    return hearth::client::kExitFailed;
  }
}
