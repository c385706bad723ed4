// hearth infer MODEL[:VERSION] --input NAME=VALUE ...
#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "client/commands/command.h"
#include "client/files.h"
#include "client/input_spec.h"
#include "client/npy.h"
#include "client/render.h"
#include "client/spinner.h"
#include "client/status_macros.h"
#include "client/strings.h"

namespace hearth::client {
namespace {

constexpr char kInputHelp[] =
    R"(Inputs are literals or files:
  --input x=3                          --input 'x=[[1, 2], [3, 4]]'
  --input flag=true                    --input 'text="good morning"'
  --input x=@array.npy                 a NumPy array
  --input x=@speech.wav                mono samples in [-1, 1], FP32, shape [1, samples]
  --input x=@speech.wav:16000          the same, resampled to 16,000 per second
  --input x=@speech.wav:16000[0:512]   the first 512 samples of that
  --input image:BYTES=@cat.jpg         a whole file as one element
  --input x:FP32[1,-1]=@raw.bin        little-endian elements
Types come from the model's metadata where it has them; NAME:TYPE=VALUE decides (and converts),
NAME:[2,2]=VALUE and NAME:FP32[2,2]=VALUE also reshape.)";

struct SavedOutput {
  std::string name;
  std::string path;
};

struct InferArguments {
  std::string model;
  std::string id;
  std::vector<std::string> inputs;
  std::vector<std::string> outputs;
  std::vector<std::string> saves;
  bool full = false;
  std::string sequence;
  bool sequence_start = false;
  bool sequence_end = false;
  int priority = 0;
};

// What the model says about its inputs. A server that cannot say so leaves everything to the literals.
absl::StatusOr<ModelInfo> Metadata(const Context& context, const ModelName& model) {
  absl::StatusOr<ModelInfo> info = context.client.ModelMetadata(model.name, model.version);
  if (absl::IsUnimplemented(info.status())) return ModelInfo();
  return info;
}

Expectation ExpectationFor(const ModelInfo& info, const std::string& input) {
  for (const TensorInfo& tensor : info.inputs) {
    if (tensor.name == input) return {ParseDataType(tensor.datatype), tensor.shape};
  }
  return {};
}

absl::StatusOr<std::vector<InputSpec>> ParseInputs(const std::vector<std::string>& texts) {
  std::vector<InputSpec> specs;
  for (const std::string& text : texts) {
    CLIENT_ASSIGN_OR_RETURN(InputSpec spec, ParseInputSpec(text));
    specs.push_back(std::move(spec));
  }
  return specs;
}

std::optional<SavedOutput> ParseSave(const std::string& text) {
  const std::size_t equals = text.find('=');
  if (equals == text.npos || equals == 0) return std::nullopt;
  SavedOutput save{text.substr(0, equals), text.substr(equals + 1)};
  if (save.path.starts_with('@')) save.path.erase(0, 1);
  if (save.path.empty()) return std::nullopt;
  return save;
}

// Files that cannot be written are refused here, before the model has run for nothing.
absl::StatusOr<std::vector<SavedOutput>> ParseSaves(const std::vector<std::string>& texts) {
  std::vector<SavedOutput> saves;
  for (const std::string& text : texts) {
    const std::optional<SavedOutput> save = ParseSave(text);
    if (!save) {
      return absl::InvalidArgumentError(Cat("'", text, "' is nothing to save: write OUTPUT=@FILE.npy"));
    }
    CLIENT_RETURN_IF_ERROR(CheckWritable(save->path));
    saves.push_back(*save);
  }
  return saves;
}

// `outputs`: what the model says it has, or what it gave.
template <typename Output>
absl::Status CheckSaves(const std::vector<Output>& outputs, const std::vector<SavedOutput>& saves) {
  for (const SavedOutput& save : saves) {
    std::string names;
    bool found = false;
    for (const Output& output : outputs) {
      found = found || output.name == save.name;
      names += Cat(names.empty() ? "'" : ", '", output.name, "'");
    }
    if (found) continue;
    return absl::InvalidArgumentError(Cat("there is no output '", save.name, "' to save; the model has ",
                                          names.empty() ? "none" : names));
  }
  return absl::OkStatus();
}

// REQUIRES: CheckSaves() was OK.
absl::Status Save(const InferResult& result, const std::vector<SavedOutput>& saves) {
  for (const SavedOutput& save : saves) {
    const auto output = std::find_if(result.outputs.begin(), result.outputs.end(),
                                     [&](const NamedTensor& o) { return o.name == save.name; });
    absl::StatusOr<std::string> npy = FormatNpy(output->tensor);
    if (!npy.ok()) {
      return absl::InvalidArgumentError(
          Cat("output '", save.name, "': ", std::string(npy.status().message())));
    }
    if (absl::Status status = WriteFile(save.path, *npy); !status.ok()) return status;
  }
  return absl::OkStatus();
}

nlohmann::ordered_json ToJson(const InferResult& result) {
  nlohmann::ordered_json json = {{"model_name", result.model}, {"model_version", result.version}};
  if (!result.id.empty()) json["id"] = result.id;
  json["outputs"] = nlohmann::ordered_json::array();
  for (const NamedTensor& output : result.outputs) {
    json["outputs"].push_back({{"name", output.name},
                               {"datatype", std::string(ToString(output.tensor.datatype))},
                               {"shape", output.tensor.shape},
                               {"data", TensorData(output.tensor)}});
  }
  return json;
}

std::string ToText(const InferResult& result, bool full, bool colors) {
  std::string out;
  for (const NamedTensor& output : result.outputs) {
    out += Cat(Paint(output.name, Tone::kHeading, colors), "  ", ToString(output.tensor.datatype), " ",
               ToString(output.tensor.shape), "\n", RenderTensor(output.tensor, full), "\n");
  }
  return out.empty() ? "the model gave no outputs\n" : out;
}

int Infer(const Context& context, const InferArguments& arguments) {
  const absl::StatusOr<ModelName> model = ParseModelName(arguments.model);
  if (!model.ok()) return FailUsage(model.status());
  const absl::StatusOr<std::vector<InputSpec>> specs = ParseInputs(arguments.inputs);
  if (!specs.ok()) return FailUsage(specs.status());
  const absl::StatusOr<std::vector<SavedOutput>> saves = ParseSaves(arguments.saves);
  if (!saves.ok()) return FailUsage(saves.status());
  // Is there an input that does not say its type?
  const bool ask = std::any_of(specs->begin(), specs->end(),
                               [](const InputSpec& spec) { return !spec.datatype || !spec.shape; });

  InferRequest request{.model = model->name,
                       .version = model->version,
                       .id = arguments.id,
                       .outputs = arguments.outputs,
                       .sequence = arguments.sequence,
                       .sequence_start = arguments.sequence_start,
                       .sequence_end = arguments.sequence_end,
                       .priority = arguments.priority};
  absl::StatusOr<InferResult> result;
  {
    const Spinner spinner(Cat("waiting for ", arguments.model));
    ModelInfo info;
    if (ask) {
      absl::StatusOr<ModelInfo> answer = Metadata(context, *model);
      if (!answer.ok()) return FailForModel(answer.status(), model->name);
      info = *std::move(answer);
    }
    if (!info.outputs.empty()) {  // else only its answer tells what it has
      if (absl::Status known = CheckSaves(info.outputs, *saves); !known.ok()) return FailUsage(known);
    }
    for (const InputSpec& spec : *specs) {
      absl::StatusOr<Tensor> tensor = ReadInput(spec, ExpectationFor(info, spec.name));
      if (!tensor.ok()) return FailUsage(tensor.status());
      request.inputs.push_back({spec.name, *std::move(tensor)});
    }
    result = context.client.Infer(request);
  }
  if (!result.ok()) return FailForModel(result.status(), model->name);
  if (absl::Status there = CheckSaves(result->outputs, *saves); !there.ok()) return FailUsage(there);
  if (absl::Status saved = Save(*result, *saves); !saved.ok()) return Fail(saved);
  if (context.json) return context.PrintJson(ToJson(*result));
  return context.Print(ToText(*result, arguments.full, context.colors));
}

}  // namespace

void AddInferCommand(CLI::App& app, Selection& selection) {
  auto arguments = std::make_shared<InferArguments>();
  CLI::App* command =
      app.add_subcommand("infer", "Run a model once; it is loaded first if it is not resident");
  command->footer(kInputHelp);
  command->add_option("MODEL", arguments->model, "NAME, NAME:VERSION or NAME:LABEL")->required();
  command->add_option("-i,--input", arguments->inputs, "NAME=VALUE or NAME=@FILE; repeat for more")
      ->allow_extra_args(false)->type_name("NAME=VALUE");
  command->add_option("-o,--output", arguments->outputs, "Only this output; repeat for more")
      ->allow_extra_args(false)->type_name("NAME");
  command->add_option("--save", arguments->saves, "Also write an output to a .npy file; repeat for more")
      ->allow_extra_args(false)->type_name("NAME=@FILE.npy");
  command->add_option("--id", arguments->id, "Name of the request in the server's messages");
  CLI::Option* const sequence =
      command->add_option("--sequence-id", arguments->sequence, "One request of this sequence, whose state it goes on with")
          ->type_name("ID");
  command->add_flag("--sequence-start", arguments->sequence_start, "The sequence begins with it")->needs(sequence);
  command->add_flag("--sequence-end", arguments->sequence_end, "The sequence ends with it")->needs(sequence);
  command->add_option("--priority", arguments->priority, "1 goes first; without it, the model's default")
      ->check(CLI::PositiveNumber)->type_name("LEVEL");
  command->add_flag("--full", arguments->full, "Print every element of long tensors");
  command->callback([arguments, &selection] {
    selection.default_timeout = kWorkTimeout;
    selection.run = [arguments](const Context& context) { return Infer(context, *arguments); };
  });
}

}  // namespace hearth::client
