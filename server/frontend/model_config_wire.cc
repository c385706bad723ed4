#include "server/frontend/model_config_wire.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "server/base/check.h"

namespace hearth {
namespace {

inference::DataType TypeOf(DType dtype) {
  switch (dtype) {
    case DType::kUnknown: return inference::TYPE_INVALID;
    case DType::kBool: return inference::TYPE_BOOL;
    case DType::kUInt8: return inference::TYPE_UINT8;
    case DType::kUInt16: return inference::TYPE_UINT16;
    case DType::kUInt32: return inference::TYPE_UINT32;
    case DType::kUInt64: return inference::TYPE_UINT64;
    case DType::kInt8: return inference::TYPE_INT8;
    case DType::kInt16: return inference::TYPE_INT16;
    case DType::kInt32: return inference::TYPE_INT32;
    case DType::kInt64: return inference::TYPE_INT64;
    case DType::kFp16: return inference::TYPE_FP16;
    case DType::kBf16: return inference::TYPE_BF16;
    case DType::kFp32: return inference::TYPE_FP32;
    case DType::kFp64: return inference::TYPE_FP64;
    case DType::kBytes: return inference::TYPE_STRING;
  }
  return inference::TYPE_INVALID;
}

// The dimension of the batch goes without saying where there is one. A tensor of any rank: one dimension of any size.
template <typename Wire>
void FillTensor(const TensorInfo& info, bool batched, Wire& wire) {
  wire.set_name(info.name);
  wire.set_data_type(TypeOf(info.dtype));
  wire.clear_dims();
  if (!info.shape) {
    wire.add_dims(-1);
    return;
  }
  const auto begin = info.shape->begin() + (batched && !info.shape->empty() ? 1 : 0);
  wire.mutable_dims()->Add(begin, info.shape->end());
}

// The tensors in the order of the program, each with what was said of it beside its type and shape.
template <typename Wire>
void FillTensors(const std::vector<TensorInfo>& infos, bool batched, google::protobuf::RepeatedPtrField<Wire>& wire) {
  const google::protobuf::RepeatedPtrField<Wire> said = std::move(wire);
  wire.Clear();
  for (const TensorInfo& info : infos) {
    Wire& tensor = *wire.Add();
    const auto found = std::find_if(said.begin(), said.end(), [&](const Wire& w) { return w.name() == info.name; });
    if (found != said.end()) tensor = *found;
    FillTensor(info, batched, tensor);
  }
}

void FillClassNames(const ModelOptions& options, inference::ModelConfig& wire) {
  for (inference::ModelOutput& output : *wire.mutable_output()) {
    const auto found = options.class_names.find(output.name());
    output.set_label_filename(found == options.class_names.end() ? "" : found->second.file);
  }
}

void FillVersions(const VersionPolicy& policy, inference::ModelVersionPolicy& wire) {
  if (policy.latest > 0) {
    wire.mutable_latest()->set_num_versions(static_cast<std::uint32_t>(policy.latest));
  } else if (!policy.specific.empty()) {
    wire.mutable_specific()->mutable_versions()->Add(policy.specific.begin(), policy.specific.end());
  } else {
    wire.mutable_all();
  }
}

// "cuda:1" is number 1 of the kind that Triton calls GPU; everything else computes on the processor.
void FillInstances(const ModelMetadata& model, inference::ModelInstanceGroup& wire) {
  if (wire.name().empty()) wire.set_name(model.id.name + "_0");
  wire.clear_gpus();
  wire.set_count(std::max(1, model.options.instances));
  const std::string& device = model.options.device;
  const std::size_t colon = device.find(':');
  const std::string kind = device.substr(0, colon);
  if (kind == "cpu" || kind == "fake") {
    wire.set_kind(inference::ModelInstanceGroup::KIND_CPU);
    return;
  }
  wire.set_kind(inference::ModelInstanceGroup::KIND_GPU);
  std::int32_t number = 0;
  if (colon != std::string::npos) (void)absl::SimpleAtoi(device.substr(colon + 1), &number);
  wire.add_gpus(number);
}

// Under one name, whichever config.pbtxt says it by.
void FillThreads(const ModelOptions& options, inference::ModelConfig& wire) {
  auto& parameters = *wire.mutable_parameters();
  parameters.erase("NUM_THREADS");
  parameters.erase("INTRA_OP_THREAD_COUNT");
  if (options.intra_op_threads == 0) return;
  parameters["INTRA_OP_THREAD_COUNT"].set_string_value(std::to_string(options.intra_op_threads));
}

std::uint64_t Microseconds(Duration duration) {
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(duration).count());
}

// Over what config.pbtxt says of it, since model.yaml may say otherwise.
void FillScheduling(const ModelMetadata& model, inference::ModelConfig& wire) {
  const ModelOptions& options = model.options;
  const bool asked = wire.has_dynamic_batching();
  if (!options.batching.enabled && !asked) {
    // What tells clients (perf_analyzer) that there are sequences at all; of the two there can be one.
    if (model.stateful) {
      wire.mutable_sequence_batching()->set_max_sequence_idle_microseconds(Microseconds(options.sequences.idle_timeout));
    }
    return;
  }
  inference::ModelDynamicBatching& batching = *wire.mutable_dynamic_batching();
  const std::vector<std::int64_t>& preferred = options.batching.preferred;
  batching.mutable_preferred_batch_size()->Assign(preferred.begin(), preferred.end());
  batching.set_max_queue_delay_microseconds(Microseconds(options.batching.max_delay));
  const QueueOptions& queue = options.queue;
  const bool levels = queue.priorities > 1;
  batching.set_priority_levels(levels ? static_cast<std::uint64_t>(queue.priorities) : 0);
  batching.set_default_priority_level(levels ? static_cast<std::uint64_t>(queue.default_priority) : 0);
  if (queue.max_size == 0 && queue.timeout == Duration{}) return;
  inference::ModelQueuePolicy& policy = *batching.mutable_default_queue_policy();
  policy.set_max_queue_size(static_cast<std::uint32_t>(queue.max_size));
  policy.set_default_timeout_microseconds(Microseconds(queue.timeout));
  policy.set_timeout_action(queue.on_timeout == QueueOptions::OnTimeout::kDelay ? inference::ModelQueuePolicy::DELAY
                                                                               : inference::ModelQueuePolicy::REJECT);
}

void FillWarmUp(const WarmUpSample& sample, std::size_t number, bool batched, inference::ModelWarmup& wire) {
  wire.set_name(sample.name.empty() ? "warm_up_" + std::to_string(number) : sample.name);
  wire.set_count(static_cast<std::uint32_t>(sample.count));
  for (const WarmUpSample::Input& input : sample.inputs) {
    inference::ModelWarmup::Input& made = (*wire.mutable_inputs())[input.name];
    made.set_data_type(TypeOf(input.dtype));
    const bool apart = batched && !input.shape.empty();
    if (apart) wire.set_batch_size(static_cast<std::uint32_t>(input.shape.front()));
    made.mutable_dims()->Add(input.shape.begin() + (apart ? 1 : 0), input.shape.end());
    if (input.fill == WarmUpSample::Fill::kZeros) {
      made.set_zero_data(true);
    } else {
      made.set_random_data(true);
    }
  }
}

}  // namespace

void FillConfig(const ModelMetadata& model, inference::ModelConfig& wire) {
  const Signature& signature = model.signature;
  const ModelOptions& options = model.options;
  const bool batched = signature.max_batch_size > 0;
  if (options.triton != nullptr) HEARTH_CHECK(wire.ParseFromString(*options.triton));  // as ReadModelConfig made it
  wire.set_name(model.id.name);
  wire.set_platform(signature.platform);
  wire.set_backend("pytorch");
  wire.set_max_batch_size(static_cast<std::int32_t>(signature.max_batch_size));
  wire.set_default_model_filename(model.file);
  FillVersions(options.versions, *wire.mutable_version_policy());
  FillTensors(signature.inputs, batched, *wire.mutable_input());
  for (int i = 0; i < wire.input_size(); ++i) {
    wire.mutable_input(i)->set_optional(signature.inputs[static_cast<std::size_t>(i)].optional);
  }
  FillTensors(signature.outputs, batched, *wire.mutable_output());
  FillClassNames(options, wire);
  while (wire.instance_group_size() > 1) wire.mutable_instance_group()->RemoveLast();
  if (wire.instance_group_size() == 0) wire.add_instance_group();
  FillInstances(model, *wire.mutable_instance_group(0));
  FillThreads(options, wire);
  FillScheduling(model, wire);
  if (options.response_cache || wire.has_response_cache()) {
    wire.mutable_response_cache()->set_enable(options.response_cache);
  }
  wire.mutable_model_transaction_policy()->set_decoupled(false);
  wire.clear_model_warmup();
  std::size_t number = 0;
  for (const WarmUpSample& sample : options.warm_up) FillWarmUp(sample, number++, batched, *wire.add_model_warmup());
}

}  // namespace hearth
