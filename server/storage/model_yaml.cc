#include "server/storage/model_yaml.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/numbers.h"
#include "server/base/bytes.h"
#include "server/base/strings.h"
#include "server/base/yaml_reader.h"
#include "server/storage/mapped_file.h"

namespace hearth {
namespace {

constexpr std::size_t kMaxFile = 1 << 20;
constexpr std::size_t kMaxWarmUpBytes = std::size_t{1} << 30;

bool IsWord(std::string_view text) {
  return !text.empty() && !(text[0] >= '0' && text[0] <= '9') &&
         std::all_of(text.begin(), text.end(), [](char c) {
           return c == '_' || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
                  (c >= 'A' && c <= 'Z');
         });
}

// "cpu", "cuda", "cuda:1".
bool IsDevice(std::string_view text) {
  const std::size_t colon = text.find(':');
  if (!IsWord(text.substr(0, colon))) return false;
  if (colon == text.npos) return true;
  const std::string_view number = text.substr(colon + 1);
  return !number.empty() && number.size() <= 4 &&
         std::all_of(number.begin(), number.end(), [](char c) { return c >= '0' && c <= '9'; });
}

bool ReadDType(const YamlNode& node, DType& dtype) {
  return node.ReadWith([&](std::string_view text) {
    const std::optional<DType> parsed = ParseDType(text);
    if (!parsed) {
      return absl::InvalidArgumentError(StrCat(
          "'", text,
          "' is not a datatype; write BOOL, UINT8 to UINT64, INT8 to INT64, FP16, BF16, FP32, "
          "FP64 or BYTES"));
    }
    dtype = *parsed;
    return absl::OkStatus();
  });
}

// A name beside model.yaml: a path could lead anywhere.
void ReadClassNames(const YamlNode& node, const std::string& output, ModelOptions& options) {
  std::string file;
  if (!node.Read(file)) return;
  if (!IsFileName(file)) node.Error(StrCat("'", file, "' is not the name of a file beside model.yaml"));
  options.class_names[output].file = file;
}

void ReadTensorInfo(YamlMap& map, bool is_input, ModelOptions& options, std::set<std::string>& names,
                    TensorInfo& info) {
  if (map["name"].Require().Read(info.name)) {
    if (info.name.empty()) map["name"].Error("must not be empty");
    if (!names.insert(info.name).second) {
      map["name"].Error(StrCat("there is another one named '", info.name, "'"));
    }
  }
  ReadDType(map["datatype"], info.dtype);
  Shape shape;
  if (map["shape"].Read(shape, -1)) {
    if (options.max_batch_size > 0 && (shape.empty() || shape[0] != -1)) {
      map["shape"].Error("must begin with -1, the batch dimension, because max_batch_size is set");
    }
    info.shape = std::move(shape);
  }
  if (is_input) {
    map["optional"].Read(info.optional);
  } else {
    ReadClassNames(map["class_names"], info.name, options);
  }
}

void ReadTensorInfos(const YamlNode& list, bool is_input, ModelOptions& options) {
  if (!list.present()) return;
  std::vector<TensorInfo>& out = is_input ? options.inputs : options.outputs;
  out.clear();
  if (!is_input) options.class_names.clear();
  std::set<std::string> names;
  list.List([&](YamlNode item) {
    item.Map([&](YamlMap& map) { ReadTensorInfo(map, is_input, options, names, out.emplace_back()); });
  });
}

bool IsInteger(DType dtype) { return dtype >= DType::kUInt8 && dtype <= DType::kInt64; }

absl::Status ReadFill(std::string_view text, WarmUpSample::Input& input) {
  if (text == "zeros" || text == "random") {
    input.fill = text == "zeros" ? WarmUpSample::Fill::kZeros : WarmUpSample::Fill::kRandom;
    return absl::OkStatus();
  }
  double value = 0;
  if (!absl::SimpleAtod(std::string(text), &value) || !std::isfinite(value)) {
    return absl::InvalidArgumentError(StrCat("'", text, "' is not zeros, random or a number"));
  }
  if (input.dtype == DType::kBytes) {
    return absl::InvalidArgumentError("a number cannot fill BYTES");
  }
  if (IsInteger(input.dtype) && value != std::floor(value)) {
    return absl::InvalidArgumentError(
        StrCat("'", text, "' is not an integer, as ", ToString(input.dtype), " needs"));
  }
  input.value = value;
  return absl::OkStatus();
}

void ReadWarmUpInput(const std::string& name, const YamlNode& node, WarmUpSample& sample) {
  node.Map([&](YamlMap& map) {
    WarmUpSample::Input& input = sample.inputs.emplace_back();
    input.name = name;
    ReadDType(map["datatype"].Require(), input.dtype);
    if (map["shape"].Require().Read(input.shape, 1)) {
      const DType sized = input.dtype == DType::kBytes ? DType::kUInt32 : input.dtype;
      const auto bytes = ByteSize(sized, input.shape);
      if (!bytes || *bytes > kMaxWarmUpBytes) {
        map["shape"].Error(StrCat("is larger than ", FormatBytes(kMaxWarmUpBytes)));
      }
    }
    map["data"].ReadWith([&](std::string_view text) { return ReadFill(text, input); });
  });
}

void ReadWarmUp(const YamlNode& list, std::vector<WarmUpSample>& out) {
  if (!list.present()) return;
  out.clear();
  list.List([&](YamlNode item) {
    item.Map([&](YamlMap& map) {
      WarmUpSample& sample = out.emplace_back();
      map["count"].Read(sample.count, 1, 1000);
      map["inputs"].Require().Entries(
          [&](const std::string& name, YamlNode value) { ReadWarmUpInput(name, value, sample); });
    });
  });
}

// Names beside program.pt: a path could lead anywhere.
void ReadWeightNames(const YamlNode& list, std::vector<std::string>& out) {
  list.Read(out);
  for (const std::string& name : out) {
    if (!IsFileName(name)) list.Error(StrCat("'", name, "' is not the name of a file beside program.pt"));
  }
}

void ReadPlacement(YamlMap& map, ModelOptions& options) {
  Residency residency{};
  if (map["residency"].ReadEnum(residency, {{"mapped", Residency::kMapped},
                                            {"populated", Residency::kPopulated},
                                            {"locked", Residency::kLocked},
                                            {"sealed", Residency::kSealed}})) {
    options.residency = residency;
  }
  map["integrity"].ReadEnum(options.integrity, {{"off", Integrity::kOff},
                                                {"on-load", Integrity::kOnLoad},
                                                {"background", Integrity::kBackground}});
}

constexpr std::string_view kPolicies = "write all, {latest: N} or {specific: [1, 3]}";

void ReadVersions(const YamlNode& node, VersionPolicy& policy) {
  if (!node.present()) return;
  policy = {};
  if (!node.is_map()) {
    node.ReadWith([](std::string_view text) {
      if (text == "all") return absl::OkStatus();
      return absl::InvalidArgumentError(StrCat("'", text, "' does not say which versions to serve; ", kPolicies));
    });
    return;
  }
  node.Map([&](YamlMap& map) {
    const bool latest = map["latest"].Read(policy.latest, 1);
    const bool specific = map["specific"].Read(policy.specific, 1);
    if (specific && policy.specific.empty()) map["specific"].Error("names no version");
    if (latest == specific) map.Error(StrCat("has to say one thing; ", kPolicies));
  });
}

void ReadLabels(const YamlNode& node, std::map<std::string, std::int64_t>& labels) {
  node.Entries([&](const std::string& label, YamlNode value) {
    if (!IsLabel(label)) {
      value.Error(StrCat("'", label, "' is not a label: a letter first, so that it is no version's number, then letters, "
                         "digits, '.', '_' and '-', 128 at most"));
    }
    value.Read(labels[label], 1);
  });
}

void ReadLifetime(YamlMap& map, ModelOptions& options) {
  if (Duration idle{}; map["idle_unload"].Read(idle)) options.idle_unload = idle;
  if (Duration least{}; map["min_residency"].Read(least)) options.min_residency = least;
  ReadVersions(map["versions"], options.versions);
  ReadLabels(map["labels"], options.labels);
  map["resource_preserving"].Read(options.resource_preserving);
}

void ReadBatching(const YamlNode& node, std::int64_t max_batch_size, BatchingOptions& batching) {
  if (!node.present()) return;
  if (!node.is_map()) {
    if (!node.Read(batching.enabled)) return;
  } else {
    batching.enabled = true;
    node.Map([&](YamlMap& map) {
      if (map["preferred"].Read(batching.preferred, 1)) {
        std::sort(batching.preferred.begin(), batching.preferred.end());
        if (!batching.preferred.empty() && batching.preferred.back() > max_batch_size) {
          map["preferred"].Error(StrCat("has a size above max_batch_size, ", max_batch_size));
        }
      }
      if (map["max_delay"].Read(batching.max_delay) && batching.max_delay > kLongestBatchDelay) {
        map["max_delay"].Error("is longer than 10s: so long a request, and whoever wants the model to leave, would wait");
      }
      map["pad"].Read(batching.pad);
    });
  }
  if (batching.enabled && max_batch_size < 2) {
    node.Error("needs max_batch_size: how many rows one run may take, at least 2");
  }
}

void ReadQueue(const YamlNode& node, QueueOptions& queue) {
  node.Map([&](YamlMap& map) {
    map["max_size"].Read(queue.max_size, 0, 1 << 20);
    map["timeout"].Read(queue.timeout);
    map["on_timeout"].ReadEnum(queue.on_timeout, {{"reject", QueueOptions::OnTimeout::kReject},
                                                  {"delay", QueueOptions::OnTimeout::kDelay}});
    map["priorities"].Read(queue.priorities, 1, 100);
    queue.default_priority = queue.priorities;
    if (map["default_priority"].Read(queue.default_priority, 1, 100) && queue.default_priority > queue.priorities) {
      map["default_priority"].Error(StrCat("is above the number of priorities, ", queue.priorities));
    }
  });
}

void ReadSequences(const YamlNode& node, SequenceOptions& sequences) {
  node.Map([&](YamlMap& map) {
    map["idle_timeout"].Read(sequences.idle_timeout);
    map["max"].Read(sequences.max, 1, 1 << 20);
    map["required"].Read(sequences.required);
    map["on_pressure"].ReadEnum(sequences.on_pressure, {{"keep", SequenceOptions::OnPressure::kKeep},
                                                        {"end", SequenceOptions::OnPressure::kEnd}});
  });
}

void ReadOptions(YamlMap& map, ModelOptions& options) {
  if (map["method"].Read(options.method) && !IsWord(options.method)) {
    map["method"].Error(StrCat("'", options.method, "' is not the name of a method"));
  }
  if (map["device"].Read(options.device) && !IsDevice(options.device)) {
    map["device"].Error(
        StrCat("'", options.device, "' is not a device; write cpu, cuda or cuda:1"));
  }
  if (map["program"].Read(options.program) && !IsFileName(options.program)) {
    map["program"].Error(StrCat("'", options.program, "' is not the name of a file in a version's folder"));
  }
  ReadWeightNames(map["weights"], options.weights);
  map["max_batch_size"].Read(options.max_batch_size, 0, 1 << 20);
  map["instances"].Read(options.instances, 0, 1024);
  map["intra_op_threads"].Read(options.intra_op_threads, 0, 1024);
  ReadBatching(map["batching"], options.max_batch_size, options.batching);
  ReadQueue(map["queue"], options.queue);
  ReadSequences(map["sequences"], options.sequences);
  map["response_cache"].Read(options.response_cache);
  ReadPlacement(map, options);
  ReadTensorInfos(map["inputs"], /*is_input=*/true, options);
  ReadTensorInfos(map["outputs"], /*is_input=*/false, options);
  ReadWarmUp(map["warm_up"], options.warm_up);
  ReadLifetime(map, options);
}

}  // namespace

bool IsLabel(std::string_view text) {
  return IsPlainName(text) && !(text[0] >= '0' && text[0] <= '9');
}

absl::StatusOr<ModelOptions> ParseModelYaml(std::string_view text, const std::string& file, ModelOptions under) {
  YamlReader yaml(text, file);
  ModelOptions options = std::move(under);
  yaml.root().Map([&](YamlMap& map) { ReadOptions(map, options); });
  HEARTH_RETURN_IF_ERROR(yaml.status());
  return options;
}

absl::StatusOr<ModelOptions> ReadModelYaml(const std::filesystem::path& path, const ModelOptions& under) {
  HEARTH_ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(path, kMaxFile));
  return ParseModelYaml(text, ShortName(path), under);
}

}  // namespace hearth
