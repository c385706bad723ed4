// hearth reload: the server's configuration, read again.
#include <memory>
#include <string>

#include "client/commands/command.h"
#include "client/strings.h"

namespace hearth::client {
namespace {

nlohmann::ordered_json ToJson(const ReloadResult& result, bool dry_run) {
  nlohmann::ordered_json json = {{"dry_run", dry_run},
                                 {"changes", nlohmann::ordered_json::array()},
                                 {"notes", nlohmann::ordered_json::array()}};
  for (const ConfigChange& change : result.changes) {
    json["changes"].push_back({{"key", change.key},
                               {"before", change.before},
                               {"after", change.after},
                               {"needs_restart", change.needs_restart}});
  }
  for (const std::string& note : result.notes) json["notes"].push_back(note);
  return json;
}

int Reload(const Context& context, bool dry_run) {
  const absl::StatusOr<ReloadResult> result = context.client.Reload(dry_run);
  if (!result.ok()) return Fail(result.status());
  if (context.json) return context.PrintJson(ToJson(*result, dry_run));
  if (result->changes.empty()) return context.Print("the configuration is the one in force\n");
  Table table({"KEY", "BEFORE", "AFTER", "EFFECT"});
  for (const ConfigChange& change : result->changes) {
    table.Add({change.key, change.before, change.after,
               change.needs_restart ? Cell{"needs a restart", Tone::kBusy}
                                    : Cell{dry_run ? "would be applied" : "applied", Tone::kGood}});
  }
  std::string out = table.Format(context.colors);
  for (const std::string& note : result->notes) out += Cat(note, "\n");
  return context.Print(out);
}

}  // namespace

void AddReloadCommand(CLI::App& app, Selection& selection) {
  auto dry_run = std::make_shared<bool>(false);
  CLI::App* reload = app.add_subcommand("reload", "Read the configuration and the repository again, and show what changed");
  reload->add_flag("--dry-run", *dry_run, "Only show what would change");
  reload->callback([dry_run, &selection] {
    selection.default_timeout = kWorkTimeout;
    selection.run = [dry_run](const Context& context) { return Reload(context, *dry_run); };
  });
}

}  // namespace hearth::client
