// hearth prefetch | pin | unpin | evict: where models should be.
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "client/commands/command.h"
#include "client/strings.h"

namespace hearth::client {
namespace {

// What was done to one model: for people, the end of a sentence that begins with its name; for programs, a word.
struct Done {
  std::string text;
  std::string word;
};
using Act = std::function<absl::StatusOr<Done>(Client&, const ModelName&)>;

absl::StatusOr<Done> Prefetch(Client& client, const ModelName& model) {
  const absl::StatusOr<std::string> state = client.Prefetch(model.name, model.version);
  if (!state.ok()) return state.status();
  if (*state == "ready") return Done{"is resident already", *state};
  if (*state == "queued" || *state == "loading") return Done{Cat("is ", *state, " already"), *state};
  return Done{"is being loaded", "queued"};
}

absl::StatusOr<Done> Pin(Client& client, const ModelName& model) {
  const absl::StatusOr<std::int64_t> version = client.Pin(model.name, model.version);
  if (!version.ok()) return version.status();
  return Done{Cat("is pinned, version ", *version), "pinned"};
}

absl::StatusOr<Done> Unpin(Client& client, const ModelName& model) {
  const absl::StatusOr<std::int64_t> version = client.Unpin(model.name, model.version);
  if (!version.ok()) return version.status();
  return Done{Cat("is not pinned, version ", *version), "unpinned"};
}

absl::StatusOr<Done> Evict(Client& client, const ModelName& model) {
  const absl::StatusOr<bool> was_resident = client.Evict(model.name, model.version);
  if (!was_resident.ok()) return was_resident.status();
  return *was_resident ? Done{"is evicted", "evicted"} : Done{"was not resident", "absent"};
}

// One after the other. One that fails does not keep the others from being tried; the exit code is the first failure's.
int ForEach(const Context& context, const std::vector<std::string>& texts, const Act& act) {
  std::vector<ModelName> models;
  for (const std::string& text : texts) {
    absl::StatusOr<ModelName> model = ParseModelName(text);
    if (!model.ok()) return FailUsage(model.status());
    models.push_back(*std::move(model));
  }
  int exit_code = kExitOk;
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (std::size_t i = 0; i < models.size(); ++i) {
    const absl::StatusOr<Done> done = act(context.client, models[i]);
    if (!done.ok()) {
      const int code = FailForModel(done.status(), models[i].name);
      if (exit_code == kExitOk) exit_code = code;
      if (IsUnreachable(done.status())) break;
      continue;
    }
    list.push_back({{"name", models[i].name}, {"state", done->word}});
    if (context.json) continue;
    const std::string line = Cat(Paint(texts[i], Tone::kHeading, context.colors), " ", done->text, "\n");
    if (const int code = context.Print(line); code != kExitOk) return code;
  }
  if (!context.json || list.empty()) return exit_code;
  const int printed = context.PrintJson({{"models", list}});
  return exit_code == kExitOk ? printed : exit_code;
}

}  // namespace

void AddControlCommands(CLI::App& app, Selection& selection) {
  struct Command {
    const char* name;
    const char* help;
    Act act;
  };
  const Command commands[] = {
      {"prefetch", "Begin to load models that will be wanted, and do not wait for them", Prefetch},
      {"pin", "Keep models from being evicted, until 'unpin' or the server's end", Pin},
      {"unpin", "Take back what 'pin' did; what the configuration pins stays pinned", Unpin},
      {"evict", "Free the memory of models that nobody uses; their next request loads them again", Evict}};
  for (const Command& command : commands) {
    auto models = std::make_shared<std::vector<std::string>>();
    CLI::App* sub = app.add_subcommand(command.name, command.help);
    sub->add_option("MODEL", *models, "One or more of NAME, NAME:VERSION or NAME:LABEL; the highest where none is named")
        ->required();
    sub->callback([models, act = command.act, &selection] {
      selection.run = [models, act](const Context& context) { return ForEach(context, *models, act); };
    });
  }
}

}  // namespace hearth::client
