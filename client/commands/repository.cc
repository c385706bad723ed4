// hearth models | load | unload | metadata: what can be served.
#include <chrono>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "client/commands/command.h"
#include "client/files.h"
#include "client/spinner.h"
#include "client/strings.h"
#include "client/units.h"

namespace hearth::client {
namespace {

Tone ToneOf(const std::string& state) {
  if (state == "READY") return Tone::kGood;
  if (state == "LOADING" || state == "UNLOADING") return Tone::kBusy;
  return state == "UNAVAILABLE" ? Tone::kBad : Tone::kQuiet;
}

int Models(const Context& context, bool ready_only) {
  const absl::StatusOr<std::vector<IndexEntry>> index = context.client.Index(ready_only);
  if (!index.ok()) return Fail(index.status());
  if (context.json) {
    nlohmann::ordered_json models = nlohmann::ordered_json::array();
    for (const IndexEntry& entry : *index) {
      models.push_back({{"name", entry.name},
                        {"version", entry.version},
                        {"state", entry.state},
                        {"reason", entry.reason}});
    }
    return context.PrintJson({{"models", models}});
  }
  Table table({"MODEL", "VERSION", "STATE", "REASON"});
  for (const IndexEntry& entry : *index) {
    table.Add({entry.name, entry.version.empty() ? "-" : entry.version,
               {entry.state.empty() ? "not loaded" : entry.state, ToneOf(entry.state)}, entry.reason});
  }
  if (table.empty()) return context.Print(ready_only ? "no model is ready\n" : "the repository is empty\n");
  return context.Print(table.Format(context.colors));
}

// The words that asked for it: NAME, never NAME:VERSION.
absl::Status CheckNoVersions(const std::vector<std::string>& models, bool load) {
  for (const std::string& model : models) {
    const std::size_t colon = model.find(':');
    if (colon == model.npos) continue;
    return absl::InvalidArgumentError(
        Cat("'", model, "': ", load ? "load takes no version, it loads the highest; write 'hearth load "
                                    : "unload takes no version, it unloads every one; write 'hearth unload ",
            model.substr(0, colon), "'"));
  }
  return absl::OkStatus();
}

constexpr std::size_t kMaxConfigBytes = 1 << 20;  // as the server has it

// The configuration in the file that was named; empty: none was.
absl::StatusOr<std::string> ReadConfig(const std::string& file) {
  if (file.empty()) return std::string();
  absl::StatusOr<std::string> text = ReadFile(file, kMaxConfigBytes);
  if (text.ok() && text->find_first_not_of(" \t\r\n") == text->npos) {
    return absl::InvalidArgumentError(Cat("'", file, "' is empty: it has to be a model configuration as JSON"));
  }
  return text;
}

// One model after the other. One that fails does not keep the others from being tried; the exit code is
// that of the first failure.
int LoadOrUnload(const Context& context, const std::vector<std::string>& models, bool load,
                 const std::string& config_file) {
  if (absl::Status plain = CheckNoVersions(models, load); !plain.ok()) return FailUsage(plain);
  const absl::StatusOr<std::string> config = ReadConfig(config_file);
  if (!config.ok()) return FailUsage(config.status());
  int exit_code = kExitOk;
  nlohmann::ordered_json done = nlohmann::ordered_json::array();
  for (const std::string& model : models) {
    const auto start = std::chrono::steady_clock::now();
    absl::Status status;
    {
      const Spinner spinner(Cat(load ? "loading " : "unloading ", model));
      status = load ? context.client.Load(model, *config) : context.client.Unload(model);
    }
    if (!status.ok()) {
      const int code = Fail(status);
      if (exit_code == kExitOk) exit_code = code;
      if (IsUnreachable(status)) break;
      continue;
    }
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    const double seconds = std::round(took.count() * 1e6) / 1e6;
    done.push_back({{"name", model}, {"state", load ? "READY" : "UNAVAILABLE"}, {"seconds", seconds}});
    if (context.json) continue;
    const std::string line = Cat(Paint(model, Tone::kHeading, context.colors),
                                 load ? " is ready, after " : " is unloaded, after ",
                                 FormatSeconds(took.count()), "\n");
    if (const int code = context.Print(line); code != kExitOk) return code;
  }
  if (!context.json || done.empty()) return exit_code;
  const int printed = context.PrintJson({{"models", done}});
  return exit_code == kExitOk ? printed : exit_code;
}

nlohmann::ordered_json ToJson(const std::vector<TensorInfo>& tensors) {
  nlohmann::ordered_json json = nlohmann::ordered_json::array();
  for (const TensorInfo& tensor : tensors) {
    json.push_back({{"name", tensor.name}, {"datatype", tensor.datatype}, {"shape", tensor.shape}});
  }
  return json;
}

void AddRows(const char* kind, const std::vector<TensorInfo>& tensors, Table& table) {
  for (const TensorInfo& tensor : tensors) {
    table.Add({std::string(kind), tensor.name, tensor.datatype.empty() ? "any" : tensor.datatype,
               tensor.shape.empty() ? "-" : ToString(tensor.shape)});
  }
}

int Metadata(const Context& context, const std::string& text) {
  const absl::StatusOr<ModelName> model = ParseModelName(text);
  if (!model.ok()) return FailUsage(model.status());
  absl::StatusOr<ModelInfo> info;
  {
    const Spinner spinner(Cat("waiting for ", text));
    info = context.client.ModelMetadata(model->name, model->version);
  }
  if (!info.ok()) return FailForModel(info.status(), model->name);
  if (context.json) {
    nlohmann::ordered_json json = {{"name", info->name},
                                   {"versions", info->versions},
                                   {"platform", info->platform},
                                   {"inputs", ToJson(info->inputs)},
                                   {"outputs", ToJson(info->outputs)}};
    json["properties"] = info->properties;
    return context.PrintJson(json);
  }
  std::string versions;
  for (const std::string& version : info->versions) versions += Cat(versions.empty() ? "" : ", ", version);
  Table facts({"MODEL", info->name});
  facts.Add({std::string("platform"), info->platform});
  facts.Add({std::string("versions"), versions});
  for (const auto& [key, value] : info->properties) facts.Add({key, value});
  Table tensors({"TENSOR", "NAME", "TYPE", "SHAPE"});
  AddRows("input", info->inputs, tensors);
  AddRows("output", info->outputs, tensors);
  return context.Print(Cat(facts.Format(context.colors), "\n", tensors.Format(context.colors)));
}

}  // namespace

void AddRepositoryCommands(CLI::App& app, Selection& selection) {
  auto ready_only = std::make_shared<bool>(false);
  CLI::App* models = app.add_subcommand("models", "List every model in the repository and its state");
  models->add_flag("--ready", *ready_only, "Only those that are ready");
  models->callback([ready_only, &selection] {
    selection.run = [ready_only](const Context& context) { return Models(context, *ready_only); };
  });

  for (const bool load : {true, false}) {
    auto names = std::make_shared<std::vector<std::string>>();
    CLI::App* command =
        load ? app.add_subcommand("load", "Load models (again, if their files changed) and wait until ready")
             : app.add_subcommand("unload", "Unload models and wait until their memory is back");
    command->add_option("MODEL", *names, "One or more names, without versions")->required();
    auto config = std::make_shared<std::string>();
    if (load) {
      command->add_option("--config", *config,
                          "A file with Triton's model configuration as JSON, for this load and until the next");
    }
    command->callback([names, load, config, &selection] {
      selection.default_timeout = kWorkTimeout;
      selection.run = [names, load, config](const Context& context) {
        return LoadOrUnload(context, *names, load, *config);
      };
    });
  }

  auto name = std::make_shared<std::string>();
  CLI::App* metadata = app.add_subcommand("metadata", "Show what a model takes and gives");
  metadata->add_option("MODEL", *name, "NAME, NAME:VERSION or NAME:LABEL")->required();
  metadata->callback([name, &selection] {
    selection.default_timeout = kWorkTimeout;
    selection.run = [name](const Context& context) { return Metadata(context, *name); };
  });
}

}  // namespace hearth::client
