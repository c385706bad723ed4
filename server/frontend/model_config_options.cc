#include "server/frontend/model_config_options.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <map>
#include <optional>
#include <set>
#include <string_view>
#include <utility>

#include "absl/strings/numbers.h"
#include "server/base/bytes.h"
#include "server/storage/model_yaml.h"
#include "server/tensor/reshape.h"

namespace hearth {
namespace {

using inference::ModelConfig;
using inference::ModelInstanceGroup;
using Dims = google::protobuf::RepeatedField<std::int64_t>;

constexpr std::int64_t kMaxBatch = 1 << 20;
constexpr std::int64_t kMaxInstances = 1024;
constexpr int kMaxThreads = 1024;
constexpr std::uint32_t kMaxWarmUpCount = 1000;
constexpr std::uint64_t kMaxPriorities = 100;
constexpr std::uint64_t kMaxMicroseconds = std::uint64_t{365} * 24 * 3600 * 1000 * 1000;  // beyond it, for ever
constexpr std::size_t kMaxWarmUpBytes = std::size_t{1} << 30;

template <typename... Args>
absl::Status Refuse(const Args&... text) {
  return absl::InvalidArgumentError(StrCat(text...));
}

// --- what kind of program it is ---

// "": any.
absl::StatusOr<std::string> FormatOf(const ModelConfig& config) {
  const std::string& backend = config.backend();
  if (!backend.empty() && backend != "pytorch") {
    return Refuse("backend '", backend, "' is not there: hearth runs PyTorch programs, backend \"pytorch\"");
  }
  const std::string& platform = config.platform();
  if (platform.empty()) return std::string();
  if (platform == "pytorch_libtorch" || platform == "pytorch") return std::string("torchscript");
  if (platform == "torch_aoti") return std::string("aoti");
  return Refuse("platform '", platform, "' is not there: hearth runs PyTorch programs, platform \"pytorch_libtorch\" "
                "(TorchScript) or \"torch_aoti\" (AOTInductor packages)");
}

absl::Status SetProgram(const ModelConfig& config, ModelOptions& options) {
  HEARTH_ASSIGN_OR_RETURN(std::string format, FormatOf(config));
  const std::string& file = config.default_model_filename();
  if (!file.empty()) {
    if (!IsFileName(file)) {
      return Refuse("default_model_filename '", file, "' is not the name of a file in a version's folder");
    }
    const std::string_view named = file.ends_with(".pt2") ? "aoti" : "torchscript";
    if (!format.empty() && format != named) {
      return Refuse("default_model_filename '", file, "' is not of the platform '", config.platform(), "'");
    }
    options.program = file;
  }
  if (!format.empty()) options.format = std::move(format);
  if (config.runtime().ends_with(".py")) {
    return Refuse("runtime '", config.runtime(), "' is a Python program: hearth runs TorchScript and AOTInductor packages");
  }
  return absl::OkStatus();
}

// What is asked for and would be missed in every answer.
absl::Status CheckAble(const ModelConfig& config) {
  if (config.has_ensemble_scheduling()) {
    return Refuse("ensemble_scheduling: hearth serves no ensembles; have the client call one model after the other");
  }
  if (config.model_transaction_policy().decoupled()) {
    return Refuse("model_transaction_policy: a model of hearth's has one answer to a request, so decoupled cannot be true");
  }
  if (config.batch_input_size() > 0 || config.batch_output_size() > 0) {
    return Refuse("batch_input and batch_output: hearth makes no inputs of what a batch looks like");
  }
  if (config.model_repository_agents().agents_size() > 0) {
    return Refuse("model_repository_agents: hearth runs none; checksums of weights are compared with model.yaml's "
                  "'integrity'");
  }
  return absl::OkStatus();
}

// --- tensors ---

// With the dimension of the batch, which goes without saying where there is one.
Shape ToShape(const Dims& dims, bool batched) {
  Shape shape;
  if (batched) shape.push_back(-1);
  shape.insert(shape.end(), dims.begin(), dims.end());
  return shape;
}

absl::Status CheckDims(const Dims& dims, const std::string& name) {
  for (const std::int64_t dimension : dims) {
    if (dimension < -1) return Refuse("'", name, "' has a dimension of ", dimension, "; write -1 for any size");
  }
  return absl::OkStatus();
}

// What inputs and outputs have in common.
template <typename Wire>
absl::StatusOr<TensorInfo> ReadTensor(const Wire& wire, bool batched, std::set<std::string>& names) {
  TensorInfo info;
  info.name = wire.name();
  if (info.name.empty()) return Refuse("an input or output has no name");
  if (!names.insert(info.name).second) return Refuse("there is another tensor named '", info.name, "'");
  if (wire.is_shape_tensor() || wire.is_non_linear_format_io()) {
    return Refuse("'", info.name, "' is a tensor of a kind that only TensorRT has");
  }
  info.dtype = ToDType(wire.data_type());
  HEARTH_RETURN_IF_ERROR(CheckDims(wire.dims(), info.name));
  if (!wire.dims().empty()) info.shape = ToShape(wire.dims(), batched);
  if (!wire.has_reshape()) return info;
  if (!info.shape) return Refuse("'", info.name, "' has a reshape and no dims");
  HEARTH_RETURN_IF_ERROR(CheckDims(wire.reshape().shape(), info.name));
  info.reshape = ToShape(wire.reshape().shape(), batched);
  HEARTH_RETURN_IF_ERROR(Annotate(CheckReshape(*info.shape, *info.reshape), StrCat("'", info.name, "'")));
  return info;
}

absl::Status SetTensors(const ModelConfig& config, ModelOptions& options) {
  const bool batched = options.max_batch_size > 0;
  std::set<std::string> names;
  if (config.input_size() > 0) options.inputs.clear();
  for (const inference::ModelInput& input : config.input()) {
    HEARTH_ASSIGN_OR_RETURN(TensorInfo info, ReadTensor(input, batched, names));
    info.optional = input.optional();
    options.inputs.push_back(std::move(info));
  }
  names.clear();
  if (config.output_size() > 0) {
    options.outputs.clear();
    options.class_names.clear();
  }
  for (const inference::ModelOutput& output : config.output()) {
    HEARTH_ASSIGN_OR_RETURN(TensorInfo info, ReadTensor(output, batched, names));
    const std::string& file = output.label_filename();
    if (!file.empty() && !IsFileName(file)) {
      return Refuse("label_filename '", file, "' of '", info.name, "' is not the name of a file beside config.pbtxt");
    }
    if (!file.empty()) options.class_names[info.name].file = file;
    options.outputs.push_back(std::move(info));
  }
  return absl::OkStatus();
}

absl::Status SetBatch(const ModelConfig& config, ModelOptions& options) {
  if (!config.has_max_batch_size()) return absl::OkStatus();
  if (config.max_batch_size() < 0 || config.max_batch_size() > kMaxBatch) {
    return Refuse("max_batch_size ", config.max_batch_size(), " is not from 0 to ", kMaxBatch);
  }
  options.max_batch_size = config.max_batch_size();
  return absl::OkStatus();
}

// --- versions and instances ---

absl::Status SetVersions(const inference::ModelVersionPolicy& wire, VersionPolicy& policy) {
  switch (wire.policy_choice_case()) {
    case inference::ModelVersionPolicy::kAll:
      policy = {};
      break;
    case inference::ModelVersionPolicy::kLatest:
      policy = {};
      policy.latest = static_cast<int>(std::clamp<std::uint32_t>(wire.latest().num_versions(), 1, 1 << 30));
      break;
    case inference::ModelVersionPolicy::kSpecific:
      policy = {};
      policy.specific.assign(wire.specific().versions().begin(), wire.specific().versions().end());
      if (policy.specific.empty()) return Refuse("version_policy: specific names no version");
      break;
    case inference::ModelVersionPolicy::POLICY_CHOICE_NOT_SET:
      break;
  }
  return absl::OkStatus();
}

bool OnDevice(const ModelInstanceGroup& group) {
  return group.kind() == ModelInstanceGroup::KIND_GPU ||
         (group.kind() == ModelInstanceGroup::KIND_AUTO && group.gpus_size() > 0);
}

// Its weights are in one place: that of the first group. Instances of others add up there.
absl::Status SetInstances(const ModelConfig& config, ModelOptions& options, std::vector<std::string>& remarks) {
  if (config.instance_group_size() == 0) return absl::OkStatus();
  const ModelInstanceGroup& first = config.instance_group(0);
  const std::int32_t gpu = first.gpus_size() > 0 ? first.gpus(0) : 0;
  std::int64_t instances = 0;
  bool elsewhere = first.gpus_size() > 1;
  bool more = false;
  for (const ModelInstanceGroup& group : config.instance_group()) {
    if (group.count() < 0) return Refuse("instance_group: a count of ", group.count());
    instances += group.count();
    elsewhere = elsewhere || OnDevice(group) != OnDevice(first) ||
                std::any_of(group.gpus().begin(), group.gpus().end(), [&](std::int32_t g) { return g != gpu; });
    more = more || group.passive() || group.has_rate_limiter() || group.profile_size() > 0 ||
           group.secondary_devices_size() > 0 || !group.host_policy().empty();
  }
  if (instances > kMaxInstances) return Refuse("instance_group: ", instances, " instances; at most ", kMaxInstances);
  if (gpu < 0 || gpu > 9999) return Refuse("instance_group: there is no GPU ", gpu);
  options.instances = static_cast<int>(instances);
  options.device = OnDevice(first) ? StrCat("cuda:", gpu) : std::string("cpu");
  if (elsewhere) {
    remarks.push_back(StrCat("instance_group: a model is on one device, this one on ", options.device));
  }
  if (first.kind() == ModelInstanceGroup::KIND_MODEL) {
    remarks.emplace_back("instance_group: KIND_MODEL computes on the processor");
  }
  if (more) {
    remarks.emplace_back("instance_group: passive, rate_limiter, profile, secondary_devices and host_policy have no effect");
  }
  return absl::OkStatus();
}

// --- warm-up ---

absl::StatusOr<WarmUpSample::Input> ReadWarmUpInput(const std::string& name, const inference::ModelWarmup::Input& wire,
                                                    std::optional<std::int64_t> batch) {
  WarmUpSample::Input input;
  input.name = name;
  input.dtype = ToDType(wire.data_type());
  if (input.dtype == DType::kUnknown) return Refuse("the warm-up input '", name, "' has no data_type");
  if (batch) input.shape.push_back(*batch);
  input.shape.insert(input.shape.end(), wire.dims().begin(), wire.dims().end());
  const auto bytes = ByteSize(input.dtype == DType::kBytes ? DType::kUInt32 : input.dtype, input.shape);
  if (!bytes || *bytes > kMaxWarmUpBytes) {
    return Refuse("the warm-up input '", name, "' of shape ", ToString(input.shape), " is larger than ",
                  FormatBytes(kMaxWarmUpBytes), ", or has no size");
  }
  if (wire.random_data()) input.fill = WarmUpSample::Fill::kRandom;
  return input;
}

absl::Status SetWarmUp(const ModelConfig& config, ModelOptions& options, std::vector<std::string>& remarks) {
  if (config.model_warmup_size() == 0) return absl::OkStatus();
  options.warm_up.clear();
  for (const inference::ModelWarmup& wire : config.model_warmup()) {
    WarmUpSample sample;
    sample.name = wire.name();
    if (wire.count() > kMaxWarmUpCount) return Refuse("model_warmup: a count of ", wire.count(), "; at most ", kMaxWarmUpCount);
    if (wire.count() > 0) sample.count = static_cast<int>(wire.count());
    std::optional<std::int64_t> batch;
    if (options.max_batch_size > 0) batch = std::max<std::int64_t>(1, wire.batch_size());
    bool from_file = false;
    const std::map<std::string, inference::ModelWarmup::Input> sorted(wire.inputs().begin(), wire.inputs().end());
    for (const auto& [name, input] : sorted) {
      from_file = from_file || input.has_input_data_file();
      HEARTH_ASSIGN_OR_RETURN(WarmUpSample::Input made, ReadWarmUpInput(name, input, batch));
      sample.inputs.push_back(std::move(made));
    }
    if (from_file) {
      remarks.push_back(StrCat("model_warmup: the sample '", wire.name(), "' is left out, since it is read from a file; "
                               "zero_data and random_data can be had"));
    } else {
      options.warm_up.push_back(std::move(sample));
    }
  }
  return absl::OkStatus();
}

// --- parameters ---

// What Triton's PyTorch backend calls the threads of one run, old name and new.
constexpr std::array<std::string_view, 2> kThreads = {"NUM_THREADS", "INTRA_OP_THREAD_COUNT"};

// 0: what it would be without.
absl::Status SetThreads(const ModelConfig& config, ModelOptions& options) {
  std::string_view said_by;
  for (const std::string_view name : kThreads) {
    const auto parameter = config.parameters().find(std::string(name));
    if (parameter == config.parameters().end()) continue;
    int threads = 0;
    const std::string& value = parameter->second.string_value();
    if (!absl::SimpleAtoi(value, &threads) || threads < 0 || threads > kMaxThreads) {
      return Refuse("parameters: ", name, " is '", value, "', which is not a number from 0 to ", kMaxThreads);
    }
    if (!said_by.empty() && threads != options.intra_op_threads) {
      return Refuse("parameters: ", said_by, " and ", name, " are the same thing and say two; leave one out");
    }
    options.intra_op_threads = threads;
    said_by = name;
  }
  return absl::OkStatus();
}

// Parameters of Triton's PyTorch backend that have no effect, and what becomes of each here.
constexpr std::array<std::pair<std::string_view, std::string_view>, 11> kParameters = {{
    {"DISABLE_CUDNN", "PyTorch decides"},
    {"DISABLE_OPTIMIZED_EXECUTION", "the program is optimised once it has run twice"},
    {"ENABLE_CACHE_CLEANING", "a device's cache is emptied when a model leaves it"},
    {"ENABLE_JIT_EXECUTOR", "PyTorch decides"},
    {"ENABLE_JIT_PROFILING", "PyTorch decides"},
    {"ENABLE_NVFUSER", "PyTorch decides"},
    {"ENABLE_TENSOR_FUSER", "PyTorch decides"},
    {"ENABLE_WEIGHT_SHARING", "all runs of a model share its weights"},
    {"INFERENCE_MODE", "it is always on"},
    {"INTER_OP_THREAD_COUNT", "compute.threads of the server's configuration counts"},
    {"NUM_INTEROP_THREADS", "compute.threads of the server's configuration counts"},
}};

// Values that ask for what is done anyway.
bool IsSo(const std::string& name, const std::string& value) {
  return value == "true" && (name == "ENABLE_WEIGHT_SHARING" || name == "INFERENCE_MODE");
}

void NoteParameters(const ModelConfig& config, std::vector<std::string>& remarks) {
  const std::map<std::string, inference::ModelParameter> sorted(config.parameters().begin(), config.parameters().end());
  for (const auto& [name, value] : sorted) {
    if (IsSo(name, value.string_value()) || std::ranges::find(kThreads, name) != kThreads.end()) continue;
    const auto known = std::ranges::find(kParameters, name, [](const auto& parameter) { return parameter.first; });
    remarks.push_back(StrCat("parameters: ", name, " has no effect: ",
                             known == kParameters.end() ? "nothing here knows it" : known->second));
  }
}

// --- what has no effect ---

void NoteUnused(const ModelConfig& config, std::vector<std::string>& remarks) {
  NoteParameters(config, remarks);
  const std::pair<bool, std::string_view> parts[] = {
      {config.has_optimization(), "optimization"},
      {config.cc_model_filenames_size() > 0, "cc_model_filenames"},
      {config.metric_tags_size() > 0, "metric_tags"},
      {config.has_model_metrics(), "model_metrics"},
  };
  for (const auto& [there, name] : parts) {
    if (there) remarks.push_back(StrCat(name, " has no effect"));
  }
  if (config.model_operations().op_library_filename_size() > 0) {
    remarks.emplace_back("model_operations has no effect: torch_libraries of the server's configuration names libraries "
                         "of operators");
  }
  const auto ragged = std::any_of(config.input().begin(), config.input().end(),
                                  [](const inference::ModelInput& input) { return input.allow_ragged_batch(); });
  if (ragged) remarks.emplace_back("allow_ragged_batch has no effect: requests of different shapes run apart");
}

// --- scheduling ---

Duration Microseconds(std::uint64_t count) {
  return std::chrono::microseconds(std::min<std::uint64_t>(count, kMaxMicroseconds));
}

void SetQueue(const inference::ModelQueuePolicy& wire, QueueOptions& queue) {
  queue.max_size = wire.max_queue_size();
  queue.timeout = Microseconds(wire.default_timeout_microseconds());
  queue.on_timeout = wire.timeout_action() == inference::ModelQueuePolicy::DELAY ? QueueOptions::OnTimeout::kDelay
                                                                                : QueueOptions::OnTimeout::kReject;
}

absl::Status SetBatching(const inference::ModelDynamicBatching& wire, ModelOptions& options,
                         std::vector<std::string>& remarks) {
  if (wire.priority_levels() > kMaxPriorities || wire.default_priority_level() > std::max<std::uint64_t>(1, wire.priority_levels())) {
    return Refuse("dynamic_batching: ", wire.priority_levels(), " priority_levels with a default_priority_level of ",
                  wire.default_priority_level(), "; at most ", kMaxPriorities, " levels, and the default among them");
  }
  options.queue.priorities = static_cast<int>(std::max<std::uint64_t>(1, wire.priority_levels()));
  options.queue.default_priority = wire.default_priority_level() == 0 ? options.queue.priorities
                                                                      : static_cast<int>(wire.default_priority_level());
  SetQueue(wire.default_queue_policy(), options.queue);
  if (wire.preserve_ordering()) {
    remarks.emplace_back("dynamic_batching: preserve_ordering has no effect: answers on a stream are in order, others are not");
  }
  if (wire.priority_queue_policy_size() > 0) {
    remarks.emplace_back("dynamic_batching: priority_queue_policy has no effect: default_queue_policy is of every level");
  }
  if (options.max_batch_size < 2) {
    options.batching = {};
    remarks.push_back(StrCat("dynamic_batching: no request joins another with a max_batch_size of ", options.max_batch_size));
    return absl::OkStatus();
  }
  options.batching = {.enabled = true};
  for (const std::int32_t size : wire.preferred_batch_size()) {
    if (size < 1 || size > options.max_batch_size) {
      return Refuse("dynamic_batching: a preferred_batch_size of ", size, ", which is not from 1 to max_batch_size, ",
                    options.max_batch_size);
    }
    options.batching.preferred.push_back(size);
  }
  std::sort(options.batching.preferred.begin(), options.batching.preferred.end());
  options.batching.max_delay = Microseconds(wire.max_queue_delay_microseconds());
  if (options.batching.max_delay > kLongestBatchDelay) {
    return Refuse("dynamic_batching: a max_queue_delay_microseconds of ", wire.max_queue_delay_microseconds(),
                  ", which is longer than 10 seconds");
  }
  return absl::OkStatus();
}

// hearth's sequences are of models that keep their state themselves, and tell nobody where one begins.
absl::Status SetSequences(const inference::ModelSequenceBatching& wire, ModelOptions& options,
                          std::vector<std::string>& remarks) {
  if (wire.control_input_size() > 0 || wire.state_size() > 0 || wire.iterative_sequence()) {
    return Refuse("sequence_batching: control_input, state and iterative_sequence cannot be had; a sequence's state is what "
                  "the program writes to its own attributes, from its first request to its last");
  }
  if (wire.max_sequence_idle_microseconds() > 0) {
    options.sequences.idle_timeout = Microseconds(wire.max_sequence_idle_microseconds());
  }
  options.sequences.required = true;
  remarks.emplace_back("sequence_batching: requests of different sequences run side by side, not as one batch; all of them at "
                       "once, whatever oldest.max_candidate_sequences says");
  return absl::OkStatus();
}

absl::Status SetScheduling(const ModelConfig& config, ModelOptions& options, std::vector<std::string>& remarks) {
  if (config.has_response_cache()) options.response_cache = config.response_cache().enable();
  if (config.has_dynamic_batching()) return SetBatching(config.dynamic_batching(), options, remarks);
  if (config.has_sequence_batching()) return SetSequences(config.sequence_batching(), options, remarks);
  return absl::OkStatus();
}

}  // namespace

DType ToDType(inference::DataType type) {
  switch (type) {
    case inference::TYPE_BOOL: return DType::kBool;
    case inference::TYPE_UINT8: return DType::kUInt8;
    case inference::TYPE_UINT16: return DType::kUInt16;
    case inference::TYPE_UINT32: return DType::kUInt32;
    case inference::TYPE_UINT64: return DType::kUInt64;
    case inference::TYPE_INT8: return DType::kInt8;
    case inference::TYPE_INT16: return DType::kInt16;
    case inference::TYPE_INT32: return DType::kInt32;
    case inference::TYPE_INT64: return DType::kInt64;
    case inference::TYPE_FP16: return DType::kFp16;
    case inference::TYPE_FP32: return DType::kFp32;
    case inference::TYPE_FP64: return DType::kFp64;
    case inference::TYPE_STRING: return DType::kBytes;
    case inference::TYPE_BF16: return DType::kBf16;
    default: return DType::kUnknown;
  }
}

absl::Status ApplyModelConfig(const std::string& model, const ModelConfig& config, ModelOptions& options,
                              std::vector<std::string>& remarks) {
  if (!config.name().empty() && config.name() != model) {
    return Refuse("its name is '", config.name(), "', and the model's is '", model, "': leave it out, or make them the same");
  }
  HEARTH_RETURN_IF_ERROR(CheckAble(config));
  HEARTH_RETURN_IF_ERROR(SetProgram(config, options));
  HEARTH_RETURN_IF_ERROR(SetBatch(config, options));
  HEARTH_RETURN_IF_ERROR(SetTensors(config, options));
  HEARTH_RETURN_IF_ERROR(SetVersions(config.version_policy(), options.versions));
  HEARTH_RETURN_IF_ERROR(SetInstances(config, options, remarks));
  HEARTH_RETURN_IF_ERROR(SetThreads(config, options));
  HEARTH_RETURN_IF_ERROR(SetWarmUp(config, options, remarks));
  HEARTH_RETURN_IF_ERROR(SetScheduling(config, options, remarks));
  NoteUnused(config, remarks);
  return absl::OkStatus();
}

}  // namespace hearth
