// hearthd: flags, configuration, signals; everything else is app.cc.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <optional>
#include <string>
#include <string_view>
#include <string_view>
#include <vector>

#include "server/app.h"
#include "server/app_options.h"
#include "server/base/log.h"
#include "server/config/command_line.h"
#include "server/config/server_config.h"
#include "server/signals.h"
#include "server/inspect/inspect.h"
#include "server/inspect/profile.h"
#include "server/torch_backend/aoti_loader.h"
#include "server/torch_backend/rehearsal.h"
#include "server/torch_backend/runtime.h"
#include "server/torch_backend/torchscript_loader.h"

namespace {

constexpr int kExitFailure = 1;
constexpr int kExitUsage = 2;
constexpr int kExitConfig = 78;  // EX_CONFIG of sysexits.h

using hearth::CommandLine;

// Each line of the message says who complains.
int Complain(const absl::Status& status, int exit_code) {
  std::string_view rest = hearth::FromAbsl(status.message());
  do {
    const std::size_t end = std::min(rest.find('\n'), rest.size());
    std::fprintf(stderr, "hearthd: %s\n", std::string(rest.substr(0, end)).c_str());
    rest.remove_prefix(std::min(end + 1, rest.size()));
  } while (!rest.empty());
  return exit_code;
}

int Serve(const CommandLine& command, hearth::ServerConfig config) {
  hearth::Signals signals;
  hearth::log::Configure(config.logging.level, config.logging.format);
  hearth::log::Info("hearthd starting", {{"version", hearth::Version()},
                                         {"pid", ::getpid()},
                                         {"config", command.config_file}});
  hearth::App app(std::move(config), [&command] {
    return hearth::LoadServerConfig(command.config_file, command.settings, hearth::CurrentEnvironment());
  }, command.config_file);
  if (const absl::Status started = app.Start(); !started.ok()) return Complain(started, kExitFailure);
  signals.Handle({.terminate = [&app] { app.RequestStop(); }, .reload = [&app] { app.Reload(); }});
  if (const absl::Status drained = app.Wait(); !drained.ok()) {
    hearth::log::Error("drain not finished", {{"reason", hearth::FromAbsl(drained.message())}});
    _exit(kExitFailure);  // something hangs in there: destructors would wait for it
  }
  return 0;
}

// `hearthd inspect FILE` and `hearthd profile PATH` look at files; no server runs. `hearth` presents
// what they print.
std::optional<int> RunTool(int argc, char** argv) {
  const std::string_view tool = argc > 1 ? argv[1] : "";
  if (tool != "inspect" && tool != "profile") return std::nullopt;
  if (argc != 3 || argv[2][0] == '-') {
    return Complain(absl::InvalidArgumentError(hearth::StrCat("usage: hearthd ", tool, " PATH")), kExitUsage);
  }
  // The catalog's warnings say again what becomes the error; the loader's say more.
  const auto log_from = [](hearth::log::Level level) { hearth::log::Configure(level, hearth::log::Format::kText); };
  log_from(hearth::log::Level::kError);
  absl::StatusOr<std::string> json;
  if (tool == "inspect") {
    json = hearth::Inspect(argv[2]);
  } else {
    hearth::InitialiseTorch();
    hearth::RehearseLoad();
    json = hearth::Profile(argv[2], [&](std::string_view format) {
      log_from(hearth::log::Level::kWarning);
      return format == "aoti" ? hearth::MakeAotiLoader({}) : hearth::MakeTorchScriptLoader({});
    });
  }
  if (!json.ok()) {  // a file that is not there, or not for us, is the caller's mistake
    const bool unread = absl::IsNotFound(json.status()) || absl::IsPermissionDenied(json.status());
    return Complain(json.status(), unread ? kExitUsage : kExitFailure);
  }
  std::fputs(json->c_str(), stdout);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (const std::optional<int> done = RunTool(argc, argv)) return *done;
  const hearth::Environment environment = hearth::CurrentEnvironment();
  const auto command = hearth::ParseCommandLine({argv + 1, argv + argc}, environment);
  if (!command.ok()) return Complain(command.status(), kExitUsage);
  switch (command->action) {
    case CommandLine::Action::kHelp:
      std::fputs(command->help.c_str(), stdout);
      return 0;
    case CommandLine::Action::kVersion:
      std::printf("hearthd %s\n", hearth::Version().c_str());
      return 0;
    default:
      break;
  }
  auto config = hearth::LoadServerConfig(command->config_file, command->settings, environment);
  if (!config.ok()) Complain(config.status(), kExitConfig);
  if (!command->mistakes.ok()) return Complain(command->mistakes, kExitUsage);
  if (!config.ok()) return kExitConfig;
  if (!config->tracing.endpoint.empty()) {
    if (const absl::Status tracing = hearth::TracingOptions(*config).status(); !tracing.ok()) return Complain(tracing, kExitConfig);
  }
  switch (command->action) {
    case CommandLine::Action::kCheckConfig:
      if (const absl::Status secrets = hearth::CheckSecrets(*config); !secrets.ok()) return Complain(secrets, kExitConfig);
      std::printf("%s: OK\n", command->config_file.empty() ? "defaults" : command->config_file.c_str());
      return 0;
    case CommandLine::Action::kPrintConfig:
      std::fputs(hearth::PrintServerConfig(*config).c_str(), stdout);
      return 0;
    default:
      return Serve(*command, *std::move(config));
  }
}
