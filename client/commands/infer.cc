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

std::optional<SavedOutput> ParseSave(const std::string& text) {
  const std::size_t equals = text.find('=');
  if (equals == text.npos || equals == 0) return std::nullopt;
  SavedOutput save{text.substr(0, equals), text.substr(equals + 1)};
  if (save.path.starts_with('@')) save.path.erase(0, 1);
  if (save.path.empty()) return std::nullopt;
  return save;
}

absl::Status Save(const InferResult& result, const std::vector<SavedOutput>& saves) {
  for (const SavedOutput& save : saves) {
    const auto output = std::find_if(result.outputs.begin(), result.outputs.end(),
                                     [&](const NamedTensor& o) { return o.name == save.name; });
    if (output == result.outputs.end()) {
      return absl::NotFoundError(Cat("the model gave no output '", save.name, "' to save"));
    }
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
  const ModelName model = ParseModelName(arguments.model);
  InferRequest request{model.name, model.version, arguments.id, {}, arguments.outputs};
  std::vector<InputSpec> specs;
  bool ask = false;  // is there an input that does not say its type?
  for (const std::string& text : arguments.inputs) {
    absl::StatusOr<InputSpec> spec = ParseInputSpec(text);
    if (!spec.ok()) return FailUsage(std::string(spec.status().message()));
    ask = ask || !spec->datatype || !spec->shape;
    specs.push_back(*std::move(spec));
  }
  std::vector<SavedOutput> saves;
  for (const std::string& text : arguments.saves) {
    const std::optional<SavedOutput> save = ParseSave(text);
    if (!save) return FailUsage(Cat("'", text, "' is nothing to save: write OUTPUT=@FILE.npy"));
    saves.push_back(*save);
  }

  absl::StatusOr<InferResult> result;
  {
    const Spinner spinner(Cat("waiting for ", arguments.model));
    ModelInfo info;
    if (ask) {
      absl::StatusOr<ModelInfo> answer = Metadata(context, model);
      if (!answer.ok()) return Fail(answer.status());
      info = *std::move(answer);
    }
    for (const InputSpec& spec : specs) {
      absl::StatusOr<Tensor> tensor = ReadInput(spec, ExpectationFor(info, spec.name));
      if (!tensor.ok()) return FailUsage(std::string(tensor.status().message()));
      request.inputs.push_back({spec.name, *std::move(tensor)});
    }
    result = context.client.Infer(request);
  }
  if (!result.ok()) return Fail(result.status());
  if (absl::Status saved = Save(*result, saves); !saved.ok()) return Fail(saved);
  if (context.json) return context.PrintJson(ToJson(*result));
  return context.Print(ToText(*result, arguments.full, context.colors));
}

}  // namespace

void AddInferCommand(CLI::App& app, Selection& selection) {
  auto arguments = std::make_shared<InferArguments>();
  CLI::App* command =
      app.add_subcommand("infer", "Run a model once; it is loaded first if it is not resident");
  command->footer(kInputHelp);
  command->add_option("MODEL", arguments->model, "NAME or NAME:VERSION")->required();
  command->add_option("-i,--input", arguments->inputs, "NAME=VALUE or NAME=@FILE; repeat for more")
      ->allow_extra_args(false)->type_name("NAME=VALUE");
  command->add_option("-o,--output", arguments->outputs, "Only this output; repeat for more")
      ->allow_extra_args(false)->type_name("NAME");
  command->add_option("--save", arguments->saves, "Also write an output to a .npy file; repeat for more")
      ->allow_extra_args(false)->type_name("NAME=@FILE.npy");
  command->add_option("--id", arguments->id, "Name of the request in the server's messages");
  command->add_flag("--full", arguments->full, "Print every element of long tensors");
  command->callback([arguments, &selection] {
    selection.default_timeout = kWorkTimeout;
    selection.run = [arguments](const Context& context) { return Infer(context, *arguments); };
  });
}

}  // namespace hearth::client
