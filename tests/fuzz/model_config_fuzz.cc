// config.pbtxt and a load's config: whatever the text, it is refused with a sentence, or what is understood of it keeps to
// its bounds, is understood the same way once it has been said again, and is answered. The first byte says which form it has.
#include <google/protobuf/text_format.h>

#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "server/frontend/model_config_reader.h"
#include "server/frontend/model_config_wire.h"
#include "server/tensor/reshape.h"

namespace {

void Require(bool kept) {
  if (!kept) std::abort();
}

// Of a configuration in protobuf's wire format. In it, numbers that are not equal to themselves are.
std::string Text(const std::string& bytes) {
  inference::ModelConfig parsed;
  std::string text;
  Require(parsed.ParseFromString(bytes));
  Require(google::protobuf::TextFormat::PrintToString(parsed, &text));
  return text;
}

void CheckTensors(const std::vector<hearth::TensorInfo>& tensors, bool batched) {
  for (const hearth::TensorInfo& info : tensors) {
    Require(!info.name.empty());
    if (info.shape && batched) Require(!info.shape->empty() && info.shape->front() == -1);
    if (info.reshape) Require(info.shape && hearth::CheckReshape(*info.shape, *info.reshape).ok());
  }
}

void CheckBounds(const hearth::ModelOptions& options) {
  Require(options.max_batch_size >= 0 && options.max_batch_size <= 1 << 20);
  Require(options.instances >= 0 && options.instances <= 1024);
  Require(options.intra_op_threads >= 0 && options.intra_op_threads <= 1024);
  Require(options.program.find('/') == std::string::npos);
  for (const auto& [output, classes] : options.class_names) Require(classes.file.find('/') == std::string::npos);
  CheckTensors(options.inputs, options.max_batch_size > 0);
  CheckTensors(options.outputs, options.max_batch_size > 0);
  for (const hearth::WarmUpSample& sample : options.warm_up) {
    Require(sample.count >= 1 && sample.count <= 1000);
    for (const hearth::WarmUpSample::Input& input : sample.inputs) Require(hearth::ElementCount(input.shape).has_value());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using Form = hearth::TritonConfig::Form;
  if (size == 0) return 0;
  const Form form = data[0] == 'j' ? Form::kJson : Form::kText;
  const hearth::TritonConfig config{form, {reinterpret_cast<const char*>(data) + 1, size - 1}, "fuzzed"};
  hearth::ModelOptions options;
  std::vector<std::string> remarks;
  const absl::Status status = hearth::ReadModelConfig("net", config, options, remarks);
  if (!status.ok()) {
    Require(absl::IsInvalidArgument(status) && status.message().substr(0, 6) == "fuzzed");
    return 0;
  }
  CheckBounds(options);

  const std::string again = Text(*options.triton);
  hearth::ModelOptions same;
  std::vector<std::string> same_remarks;
  Require(hearth::ReadModelConfig("net", {Form::kText, again, "fuzzed"}, same, same_remarks).ok());
  Require(same_remarks == remarks && Text(*same.triton) == again);

  hearth::ModelMetadata model;
  model.id = {"net", 1};
  model.signature.inputs = options.inputs;
  model.signature.outputs = options.outputs;
  model.signature.max_batch_size = options.max_batch_size;
  model.options = options;
  inference::ModelConfig answer;
  hearth::FillConfig(model, answer);
  Require(answer.input_size() == static_cast<int>(options.inputs.size()));
  return 0;
}
