// hearth ps | stats: what the cache holds, and how it fares.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <ctime>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "client/commands/cache_rows.h"
#include "client/commands/command.h"
#include "client/strings.h"
#include "client/units.h"

namespace hearth::client {
namespace {

// To three decimals: sums of times have digits at their ends that mean nothing.
double Rounded(double value) { return std::round(value * 1000) / 1000; }

Tone ToneOfState(const std::string& state) {
  if (state == "ready") return Tone::kGood;
  if (state == "host" || state == "mapped") return Tone::kPlain;
  return state == "failed" ? Tone::kBad : Tone::kBusy;
}

}  // namespace

Cell StateCell(const ModelStat& model) {
  if (model.hung) return {Cat(model.state, " (hung)"), Tone::kBad};
  return {model.state, ToneOfState(model.state)};
}

nlohmann::ordered_json TimeJson(const std::optional<WallTime>& time) {
  if (!time) return nullptr;
  const std::time_t seconds = std::chrono::system_clock::to_time_t(*time);
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  char text[32];
  std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

double SecondsSince(WallTime time) {
  return std::chrono::duration<double>(std::chrono::system_clock::now() - time).count();
}

std::string DeviceCell(const ModelStat& model) {
  return FormatBytes(model.device_bytes) + (model.device.empty() ? "" : Cat(" on ", model.device));
}

nlohmann::ordered_json ToJson(const ModelStat& model) {
  nlohmann::ordered_json phases = nlohmann::ordered_json::object();
  for (const PhaseStat& phase : model.load_phases) phases[phase.name] = Rounded(phase.milliseconds);
  return {{"name", model.name},
          {"version", model.version},
          {"state", model.state},
          {"hung", model.hung},
          {"in_use", model.in_use},
          {"pinned", model.pinned},
          {"bytes",
           {{"device", model.device_bytes},
            {"host", model.host_bytes},
            {"mapped", model.mapped_bytes},
            {"window", model.window_bytes}}},
          {"device", model.device.empty() ? nlohmann::ordered_json(nullptr) : nlohmann::ordered_json(model.device)},
          {"hits", model.hits},
          {"last_used", TimeJson(model.last_used)},
          {"loaded_at", TimeJson(model.loaded_at)},
          {"load_milliseconds", Rounded(model.load_milliseconds())},
          {"load_phases", phases},
          {"loaded_from", model.load.from},
          {"error", model.error}};
}

namespace {

nlohmann::ordered_json CountsJson(const ModelStat& model) {
  return {{"name", model.name},
          {"version", model.version},
          {"requests_succeeded", model.requests_succeeded},
          {"requests_failed", model.requests_failed},
          {"mean_request_seconds", model.mean_request_seconds},
          {"mean_infer_seconds", model.mean_infer_seconds},
          {"hits", model.hits}};
}

template <typename Fn>
nlohmann::ordered_json ModelsJson(const std::vector<ModelStat>& models, Fn&& to_json) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const ModelStat& model : models) list.push_back(to_json(model));
  return {{"models", list}};
}

// Of weights larger than the budget: the window that is charged, and all that is behind it.
std::string MappedCell(const ModelStat& model) {
  const bool windowed = model.window_bytes > 0 && model.load.mapped_bytes > 0;
  return FormatBytes(model.mapped_bytes) + (windowed ? Cat(" of ", FormatBytes(model.load.mapped_bytes)) : "");
}

std::string ProcessTable(const std::vector<ModelStat>& models, bool colors) {
  const bool any_error = std::any_of(models.begin(), models.end(),
                                     [](const ModelStat& model) { return !model.error.empty(); });
  std::vector<std::string> headings = {"MODEL",   ">VERSION", "STATE", ">DEVICE",   ">HOST", ">MAPPED",
                                       ">IN USE", "PIN",      ">HITS", "LAST USED", ">LOAD"};
  if (any_error) headings.push_back("ERROR");
  Table table(headings);
  for (const ModelStat& model : models) {
    std::vector<Cell> row = {
        model.name, Cat(model.version), StateCell(model),
        DeviceCell(model), FormatBytes(model.host_bytes), MappedCell(model),
        Cat(model.in_use), std::string(model.pinned ? "yes" : "-"), Cat(model.hits),
        model.last_used ? FormatAge(SecondsSince(*model.last_used)) : "never",
        model.load_phases.empty() ? "-" : FormatSeconds(model.load_milliseconds() / 1000)};
    if (any_error) row.emplace_back(model.error);
    table.Add(std::move(row));
  }
  return table.Format(colors);
}

int Processes(const Context& context) {
  const absl::StatusOr<ServerStat> stat = context.client.Stat();
  if (!stat.ok()) return Fail(stat.status());
  if (context.json) return context.PrintJson(ModelsJson(stat->models, [](const ModelStat& model) { return ToJson(model); }));
  if (stat->models.empty()) return context.Print("no model is resident\n");
  return context.Print(ProcessTable(stat->models, context.colors));
}

int Stats(const Context& context, const std::string& model) {
  const absl::StatusOr<ServerStat> stat = context.client.Stat(model);
  if (!stat.ok()) return FailForModel(stat.status(), model);
  if (stat->models.empty() && !model.empty()) {
    const absl::Status known = CheckInRepository(context.client, {model, ""});
    if (!known.ok()) return FailForModel(known, model);
  }
  if (context.json) return context.PrintJson(ModelsJson(stat->models, CountsJson));
  if (stat->models.empty()) {
    if (model.empty()) return context.Print("no model has been loaded yet\n");
    return context.Print(Cat(model, " is not resident\n"));
  }
  Table table({"MODEL", ">VERSION", ">SUCCEEDED", ">FAILED", ">MEAN REQUEST", ">MEAN INFER", ">HITS"});
  for (const ModelStat& row : stat->models) {
    const bool any = row.requests_succeeded > 0;
    table.Add({row.name, Cat(row.version), Cat(row.requests_succeeded),
               {Cat(row.requests_failed), row.requests_failed > 0 ? Tone::kBad : Tone::kPlain},
               any ? FormatSeconds(row.mean_request_seconds) : "-",
               any ? FormatSeconds(row.mean_infer_seconds) : "-", Cat(row.hits)});
  }
  return context.Print(table.Format(context.colors));
}

}  // namespace

void AddCacheCommands(CLI::App& app, Selection& selection) {
  CLI::App* ps = app.add_subcommand("ps", "List what is loaded, on its way, or failed to load: bytes, use, age");
  ps->callback([&selection] { selection.run = Processes; });

  auto model = std::make_shared<std::string>();
  CLI::App* stats = app.add_subcommand("stats", "Show requests, failures and mean latencies by model");
  stats->add_option("MODEL", *model, "Only this one");
  stats->callback([model, &selection] {
    selection.run = [model](const Context& context) { return Stats(context, *model); };
  });
}

}  // namespace hearth::client
