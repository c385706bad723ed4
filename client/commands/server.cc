// hearth status | health: how the server is.
#include <algorithm>
#include <memory>
#include <string>

#include "client/commands/command.h"
#include "client/strings.h"
#include "client/units.h"

namespace hearth::client {
namespace {

// For servers that have no Cache service: what every server of the protocol can say.
absl::StatusOr<ServerStat> PlainStatus(Client& client) {
  const absl::StatusOr<ServerInfo> info = client.ServerMetadata();
  if (!info.ok()) return info.status();
  const absl::StatusOr<bool> ready = client.Ready();
  if (!ready.ok()) return ready.status();
  ServerStat stat;
  stat.name = info->name;
  stat.version = info->version;
  stat.ready = *ready;
  return stat;
}

// Failed, queued and loading models are in the list too.
std::int64_t ResidentModels(const ServerStat& stat) {
  return std::count_if(stat.models.begin(), stat.models.end(), [](const ModelStat& model) {
    return model.state == "ready" || model.state == "draining";
  });
}

nlohmann::ordered_json ToJson(const BudgetStat& budget) {
  return {{"dimension", budget.dimension},
          {"capacity_bytes", budget.capacity_bytes},
          {"used_bytes", budget.used_bytes},
          {"resident_bytes", budget.resident_bytes},
          {"loading_bytes", budget.loading_bytes},
          {"unloading_bytes", budget.unloading_bytes},
          {"lost_bytes", budget.lost_bytes}};
}

nlohmann::ordered_json ToJson(const ServerStat& stat, const std::string& address, bool full) {
  nlohmann::ordered_json json = {
      {"address", address}, {"name", stat.name}, {"version", stat.version}, {"ready", stat.ready}};
  if (!stat.not_ready_reason.empty()) json["not_ready_reason"] = stat.not_ready_reason;
  if (!full) return json;
  if (!stat.not_loading_reason.empty()) json["not_loading_reason"] = stat.not_loading_reason;
  json["hung"] = nlohmann::ordered_json::array();
  for (const ModelStat& model : stat.models) {
    if (model.hung) json["hung"].push_back({{"name", model.name}, {"version", model.version}, {"state", model.state}});
  }
  json["uptime_seconds"] = stat.uptime_seconds;
  json["in_flight"] = stat.in_flight;
  json["resident_models"] = ResidentModels(stat);
  json["budgets"] = nlohmann::ordered_json::array();
  for (const BudgetStat& budget : stat.budgets) json["budgets"].push_back(ToJson(budget));
  json["devices"] = nlohmann::ordered_json::array();
  for (const BudgetStat& budget : stat.devices) {
    json["devices"].push_back({{"device", budget.device}});
    json["devices"].back().update(ToJson(budget));
  }
  return json;
}

std::string ToText(const ServerStat& stat, const Context& context, bool full) {
  std::string out = Cat(Paint(Cat(stat.name, " ", stat.version), Tone::kHeading, context.colors), " at ",
                        context.address, ": ",
                        stat.ready ? Paint("ready", Tone::kGood, context.colors)
                                   : Paint("not ready", Tone::kBad, context.colors),
                        stat.not_ready_reason.empty() ? "" : Cat(": ", stat.not_ready_reason), "\n");
  if (!full) return out;
  out += Cat("up ", FormatSeconds(stat.uptime_seconds), ", models resident: ", ResidentModels(stat),
             ", requests in flight: ", stat.in_flight, "\n");
  std::string hung;
  for (const ModelStat& model : stat.models) {
    if (model.hung) hung += Cat(hung.empty() ? "" : ", ", model.name, ":", model.version, " (", model.state, ")");
  }
  if (!hung.empty()) out += Cat(Paint("hung", Tone::kBad, context.colors), ": ", hung, "\n");
  if (!stat.not_loading_reason.empty()) {
    out += Cat(Paint("not loading", Tone::kBad, context.colors), ": ", stat.not_loading_reason, "\n");
  }
  const std::vector<BudgetStat> memories = stat.memories();
  if (memories.empty()) return out;
  const bool any_lost = std::any_of(memories.begin(), memories.end(),
                                    [](const BudgetStat& budget) { return budget.lost_bytes > 0; });
  std::vector<std::string> headings = {"MEMORY", ">USED", ">OF", ">RESIDENT", ">LOADING", ">UNLOADING"};
  if (any_lost) headings.push_back(">LOST");
  Table table(headings);
  for (const BudgetStat& budget : memories) {
    std::vector<Cell> row = {budget.name(), FormatBytes(budget.used_bytes), FormatBytes(budget.capacity_bytes),
                             FormatBytes(budget.resident_bytes), FormatBytes(budget.loading_bytes),
                             FormatBytes(budget.unloading_bytes)};
    if (any_lost) row.push_back({FormatBytes(budget.lost_bytes), budget.lost_bytes > 0 ? Tone::kBad : Tone::kPlain});
    table.Add(std::move(row));
  }
  return Cat(out, "\n", table.Format(context.colors));
}

int ShowStatus(const Context& context) {
  absl::StatusOr<ServerStat> stat = context.client.Stat();
  const bool full = !absl::IsUnimplemented(stat.status());
  if (!full) stat = PlainStatus(context.client);
  if (!stat.ok()) return Fail(stat.status());
  if (context.json) return context.PrintJson(ToJson(*stat, context.address, full));
  return context.Print(ToText(*stat, context, full));
}

struct HealthArguments {
  bool ready = false;
  bool live = false;
  std::string model;
};

// What is asked, and the words for yes and no.
struct Question {
  const char* key;
  const char* yes;
  const char* no;
};

// The protocol calls a model that does not exist "not ready".
absl::StatusOr<bool> ModelReady(Client& client, const ModelName& model) {
  absl::StatusOr<bool> ready = client.ModelReady(model.name, model.version);
  if (!ready.ok() || *ready) return ready;
  if (absl::Status known = CheckInRepository(client, model); !known.ok()) return known;
  return ready;
}

// Empty where the server does not say: only hearthd does.
std::string WhyNotReady(Client& client) {
  const absl::StatusOr<ServerStat> stat = client.Stat();
  return stat.ok() ? stat->not_ready_reason : "";
}

int Health(const Context& context, const HealthArguments& arguments) {
  absl::StatusOr<bool> answer;
  Question question{"serving", "serving", "not serving"};
  if (!arguments.model.empty()) {
    if (arguments.live) return FailUsage("--live asks about the server, so leave out the model");
    const absl::StatusOr<ModelName> model = ParseModelName(arguments.model);
    if (!model.ok()) return FailUsage(model.status());
    answer = ModelReady(context.client, *model);
    question = {"ready", "ready", "not ready"};
  } else if (arguments.live) {
    answer = context.client.Live();
    question = {"live", "live", "not live"};
  } else if (arguments.ready) {
    answer = context.client.Ready();
    question = {"ready", "ready", "not ready"};
  } else {
    answer = context.client.Healthy();
  }
  if (!answer.ok()) {
    FailForModel(answer.status(), arguments.model);
    return kExitFailed;  // container health checks know 0 and 1 only
  }
  const std::string reason = *answer || !arguments.ready ? "" : WhyNotReady(context.client);
  nlohmann::ordered_json json = {{question.key, *answer}};
  if (!reason.empty()) json["reason"] = reason;
  const int printed = context.json ? context.PrintJson(json)
                                   : context.Print(Cat(*answer ? question.yes : question.no,
                                                       reason.empty() ? "" : ": ", reason, "\n"));
  return *answer ? printed : kExitFailed;
}

}  // namespace

void AddServerCommands(CLI::App& app, Selection& selection) {
  CLI::App* status = app.add_subcommand("status", "Show the server: version, uptime, memory budgets");
  status->callback([&selection] { selection.run = ShowStatus; });

  auto arguments = std::make_shared<HealthArguments>();
  CLI::App* health = app.add_subcommand("health", "Exit with 0 when healthy, else with 1");
  CLI::Option* ready = health->add_flag("--ready", arguments->ready, "Should it be sent requests?");
  health->add_flag("--live", arguments->live, "Does the process answer?")->excludes(ready);
  health->add_option("MODEL", arguments->model, "Is this model resident? NAME, NAME:VERSION or NAME:LABEL");
  health->callback([arguments, &selection] {
    selection.run = [arguments](const Context& context) { return Health(context, *arguments); };
  });
}

}  // namespace hearth::client
