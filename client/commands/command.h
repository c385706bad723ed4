// What the commands of `hearth` share: settings, output, and how failures become exit codes.
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <string_view>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "client/client.h"
#include "client/table.h"
#include "nlohmann/json.hpp"

namespace hearth::client {

// A promise to scripts; `hearth --help` lists them.
enum ExitCode : int {
  kExitOk = 0,
  kExitFailed = 1,        // the server refused or failed; `health`: not healthy, whatever the reason
  kExitUsage = 2,         // the command line, or a file that it names
  kExitUnreachable = 69,  // EX_UNAVAILABLE: no server answers
  kExitTimedOut = 75,     // EX_TEMPFAIL: --timeout passed first; asking again may succeed
};

inline constexpr std::chrono::milliseconds kQueryTimeout = std::chrono::seconds(10);
// For what may load a model first.
inline constexpr std::chrono::milliseconds kWorkTimeout = std::chrono::minutes(5);

// What one invocation works with. Results go to stdout; every word about a failure goes to stderr.
struct Context {
  Client& client;
  const std::string address;
  const bool json;
  const bool colors;  // of stdout

  // Each prints and returns the exit code to end with.
  int Print(std::string_view text) const;  // ends in a newline already
  int PrintJson(const nlohmann::ordered_json& value) const;
};

// "hearth: <message> (NOT_FOUND)" on stderr. UNREACHABLE and DEADLINE_EXCEEDED have codes of their own.
int Fail(const absl::Status& status);
// The same for a call about one model, NAME or NAME:VERSION: the server may not have seen it yet, and
// NOT_FOUND says how it will.
int FailForModel(const absl::Status& status, const std::string& model);
// "hearth: <message>" on stderr: the caller's mistake.
int FailUsage(std::string_view message);
int FailUsage(const absl::Status& status);

// What the command line chose to do. Filled in by the chosen subcommand's callback.
struct Selection {
  std::function<int(const Context&)> run;
  std::chrono::milliseconds default_timeout = kQueryTimeout;
};

// "name", "name:3", "name:stable": the version is empty when not given, and may be a label, which the server knows.
// INVALID_ARGUMENT: it can be neither.
struct ModelName {
  std::string name;
  std::string version;
};
absl::StatusOr<ModelName> ParseModelName(std::string_view text);

// NOT_FOUND when the server's repository has no such model or version, for answers in which an unknown
// model looks like one that is merely not loaded. OK also where the server keeps no index.
absl::Status CheckInRepository(Client& client, const ModelName& model);

// Each adds its subcommands to `app`. REQUIRES: `selection` outlives `app`.
void AddInferCommand(CLI::App& app, Selection& selection);
void AddRepositoryCommands(CLI::App& app, Selection& selection);  // models, load, unload, metadata
void AddCacheCommands(CLI::App& app, Selection& selection);       // ps, stats
void AddTopCommand(CLI::App& app, Selection& selection);
void AddEventCommands(CLI::App& app, Selection& selection);       // why, events
void AddPlanCommand(CLI::App& app, Selection& selection);
void AddControlCommands(CLI::App& app, Selection& selection);     // prefetch, pin, unpin, evict
void AddServerCommands(CLI::App& app, Selection& selection);      // status, health
void AddReloadCommand(CLI::App& app, Selection& selection);
void AddFileCommands(CLI::App& app, Selection& selection);        // profile, inspect
void AddPackCommand(CLI::App& app, Selection& selection);

}  // namespace hearth::client
