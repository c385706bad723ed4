// hearth profile | inspect: where a load's time goes, and what is in a file.
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "client/commands/command.h"
#include "client/daemon_tool.h"
#include "client/files.h"
#include "client/load_profile.h"
#include "client/strings.h"
#include "client/units.h"

namespace hearth::client {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kTensorsShown = 40;

struct ProfileArguments {
  std::string subject;
  std::string trace, html;
  bool reload = false;
};

// A path says so by a slash or its ending; a model's name has no slash.
bool NamesAPath(const std::string& subject) {
  return subject.find('/') != std::string::npos || subject.ends_with(".pt") || subject.ends_with(".jit") ||
         subject.ends_with(".pt2");
}

// The version of the model that is resident; nothing when none is.
absl::StatusOr<std::optional<ModelStat>> Resident(Client& client, const std::string& model) {
  absl::StatusOr<ServerStat> stat = client.Stat(model);
  if (!stat.ok()) return stat.status();
  for (ModelStat& row : stat->models) {
    if (!row.load_phases.empty()) return std::move(row);
  }
  return std::nullopt;
}

absl::StatusOr<LoadProfile> ProfileOfServed(Client& client, const std::string& model, bool reload) {
  absl::StatusOr<std::optional<ModelStat>> found = Resident(client, model);
  if (found.ok() && (reload || !found->has_value())) {
    if (found->has_value()) {  // what is resident and unchanged is not loaded again
      if (absl::Status unloaded = client.Unload(model); !unloaded.ok()) return unloaded;
    }
    if (absl::Status loaded = client.Load(model); !loaded.ok()) return loaded;
    found = Resident(client, model);
  }
  if (!found.ok()) return found.status();
  if (!found->has_value()) return absl::NotFoundError(Cat("model '", model, "' left before it could be looked at"));
  const ModelStat& row = **found;
  return LoadProfile{Cat(row.name, ":", row.version), row.load, row.load_phases};
}

// Of a hearthd that failed and said why.
int ExitCodeOf(const ToolResult& failed) { return failed.exit_code == kExitUsage ? kExitUsage : kExitFailed; }

int Present(const Context& context, const absl::StatusOr<LoadProfile>& profile, const ProfileArguments& arguments) {
  if (!profile.ok()) return Fail(profile.status());
  if (!arguments.trace.empty()) {
    if (const absl::Status written = WriteFile(arguments.trace, ToTrace(*profile)); !written.ok()) return Fail(written);
  }
  if (!arguments.html.empty()) {
    if (const absl::Status written = WriteFile(arguments.html, ToHtml(*profile)); !written.ok()) return Fail(written);
  }
  if (context.json) return context.PrintJson(ToJson(*profile));
  return context.Print(RenderWaterfall(*profile, context.colors));
}

int Profile(const Context& context, const ProfileArguments& arguments) {
  if (!NamesAPath(arguments.subject)) {
    const auto profile = ProfileOfServed(context.client, arguments.subject, arguments.reload);
    return profile.ok() ? Present(context, profile, arguments) : FailForModel(profile.status(), arguments.subject);
  }
  const absl::StatusOr<ToolResult> ran = RunHearthd({"profile", arguments.subject});
  if (!ran.ok()) return Fail(ran.status());
  return ran->exit_code == 0 ? Present(context, ParseLoadProfile(ran->output), arguments) : ExitCodeOf(*ran);
}

std::string ShapeText(const Json& shape) {
  std::string text = "[";
  for (const Json& size : shape) {
    text += Cat(text.size() > 1 ? "," : "", size.is_string() ? size.get<std::string>() : size.dump());
  }
  return text + "]";
}

// An AOTInductor package: what it was compiled for, and what it takes.
std::string PackageText(const Json& file, bool colors) {
  const auto words = [](const Json& list) {
    std::string text;
    for (const Json& word : list) text += Cat(text.empty() ? "" : " ", word.get<std::string>());
    return text.empty() ? std::string("nothing recorded") : text;
  };
  std::string out = Cat(file.at("file").get<std::string>(), ": AOTInductor package, ",
                        FormatBytes(file.at("bytes").get<std::uint64_t>()), "\ncompiled for ",
                        file.at("device").get<std::string>(), ", ", file.at("machine").get<std::string>(), ": ",
                        words(file.at("cpu_features")), "\n");
  if (!file.at("missing_features").empty()) {
    out += Cat("this machine lacks: ", words(file.at("missing_features")), "\n");
  }
  Table table({"TENSOR", "TYPE", "SHAPE"});
  for (const char* kind : {"inputs", "outputs"}) {
    for (const Json& tensor : file.at(kind)) {
      table.Add({Cat(kind[0] == 'i' ? "input " : "output ", tensor.at("name").get<std::string>()),
                 tensor.at("datatype").get<std::string>(), ShapeText(tensor.at("shape"))});
    }
  }
  return table.empty() ? out : out + table.Format(colors);
}

std::string FileText(const Json& file, bool colors) {
  if (file.at("format") == "aoti") return PackageText(file, colors);
  const auto bytes = [](const Json& value) { return FormatBytes(value.get<std::uint64_t>()); };
  std::string out = Cat(file.at("file").get<std::string>(), ": ", file.at("format").get<std::string>(), ", ",
                        bytes(file.at("bytes")), ", in the page cache ", bytes(file.at("cached_bytes")), "\nweights ",
                        bytes(file.at("weight_bytes")), ", of which can be mapped ", bytes(file.at("mappable_bytes")), "\n");
  if (file.contains("code")) {
    std::uint64_t code = 0;
    for (const Json& record : file.at("code")) code += record.at("bytes").get<std::uint64_t>();
    out += Cat("code ", FormatBytes(code), " in ", file.at("code").size(), " files, classes ",
               file.at("classes").size(), "\n");
  }
  Table table({"TENSOR", "TYPE", "SHAPE", ">BYTES", ">OFFSET", "MAPPED"});
  const Json& tensors = file.at("tensors");
  for (std::size_t i = 0; i < tensors.size() && i < kTensorsShown; ++i) {
    const Json& tensor = tensors[i];
    const Json& offset = tensor.at("offset");
    const bool empty = tensor.at("bytes") == 0;
    table.Add({tensor.at("name").get<std::string>(), tensor.at("type").get<std::string>(), ShapeText(tensor.at("shape")),
               bytes(tensor.at("bytes")), offset.is_null() ? "-" : Cat(offset.get<std::uint64_t>()),
               std::string(empty ? "-" : tensor.at("mappable").get<bool>() ? "yes" : "copied")});
  }
  if (!table.empty()) out += table.Format(colors);
  if (tensors.size() > kTensorsShown) out += Cat("and ", tensors.size() - kTensorsShown, " more; --json shows all\n");
  return out;
}

// Of one file, or of those of an index or of a version.
std::string InspectText(const Json& seen, bool colors) {
  if (seen.at("format") != "model" && seen.at("format") != "index") return FileText(seen, colors);
  const std::size_t count = seen.at("files").size();
  std::string out = seen.at("format") == "index"
                        ? seen.at("file").get<std::string>()
                        : Cat(seen.at("model").get<std::string>(), ":", seen.at("version").get<std::int64_t>());
  out += Cat(": ", count, count == 1 ? " file\n" : " files\n");
  for (const Json& file : seen.at("files")) out += Cat("\n", FileText(file, colors));
  return out;
}

int Inspect(const Context& context, const std::string& path) {
  const absl::StatusOr<ToolResult> ran = RunHearthd({"inspect", path});
  if (!ran.ok()) return Fail(ran.status());
  if (ran->exit_code != 0) return ExitCodeOf(*ran);
  const Json json = Json::parse(ran->output, nullptr, /*allow_exceptions=*/false);
  try {
    return context.json ? context.PrintJson(json) : context.Print(InspectText(json, context.colors));
  } catch (const Json::exception&) {
    return Fail(absl::InvalidArgumentError("hearthd printed something else; is it of another version?"));
  }
}

}  // namespace

void AddFileCommands(CLI::App& app, Selection& selection) {
  auto arguments = std::make_shared<ProfileArguments>();
  CLI::App* profile = app.add_subcommand("profile", "Show where the time of a load goes, phase by phase");
  profile->add_option("MODEL|PATH", arguments->subject,
                      "A served model (loaded if it is not resident), or a file or folder that hearthd here can read")
      ->required();
  profile->add_flag("--reload", arguments->reload, "Unload a served model first and load it anew");
  profile->add_option("--trace", arguments->trace, "Write a trace for ui.perfetto.dev")->type_name("FILE");
  profile->add_option("--html", arguments->html, "Write a page with the picture")->type_name("FILE");
  profile->callback([arguments, &selection] {
    selection.default_timeout = kWorkTimeout;
    selection.run = [arguments](const Context& context) { return Profile(context, *arguments); };
  });

  auto path = std::make_shared<std::string>();
  CLI::App* inspect = app.add_subcommand("inspect", "Show what is in the files of a model, without loading it");
  inspect->add_option("PATH", *path, "A TorchScript archive, an AOTInductor package, weights (safetensors, torch.save, "
                      "HDF5), an index of shards, or a version's or a model's folder")->required();
  inspect->callback([path, &selection] {
    selection.run = [path](const Context& context) { return Inspect(context, *path); };
  });
}

}  // namespace hearth::client
