#include "server/frontend/admin_wire.h"

#include "absl/strings/str_format.h"
#include "server/base/bytes.h"

namespace hearth {
namespace {

// Only what works is advertised.
constexpr const char* kExtensions[] = {"model_repository", "model_repository(unload_dependents)", "model_configuration",
                                       "statistics", "binary_tensor_data", "sequence", "schedule_policy", "classification"};
constexpr std::size_t kMaxConfig = 1 << 20;

void FillTensors(
    const std::vector<TensorInfo>& tensors,
    google::protobuf::RepeatedPtrField<inference::ModelMetadataResponse::TensorMetadata>& wire) {
  for (const TensorInfo& info : tensors) {
    auto* tensor = wire.Add();
    tensor->set_name(info.name);
    tensor->set_datatype(std::string(ToString(info.dtype)));
    if (info.shape) tensor->mutable_shape()->Add(info.shape->begin(), info.shape->end());
  }
}

}  // namespace

void FillServer(const std::string& name, const std::string& version, inference::ServerMetadataResponse& wire) {
  wire.set_name(name);
  wire.set_version(version);
  for (const char* extension : kExtensions) wire.add_extensions(extension);
}

void FillMetadata(const ModelMetadata& metadata, inference::ModelMetadataResponse& wire) {
  wire.set_name(metadata.id.name);
  for (const std::int64_t version : metadata.versions) wire.add_versions(std::to_string(version));
  wire.set_platform(metadata.signature.platform);
  FillTensors(metadata.signature.inputs, *wire.mutable_inputs());
  FillTensors(metadata.signature.outputs, *wire.mutable_outputs());
  for (const auto& [key, value] : metadata.properties) (*wire.mutable_properties())[key] = value;
}

void FillIndex(const std::vector<IndexRow>& rows, inference::RepositoryIndexResponse& wire) {
  for (const IndexRow& row : rows) {
    auto* model = wire.add_models();
    model->set_name(row.model);
    model->set_version(row.version);
    model->set_state(row.state);
    model->set_reason(row.reason);
  }
}

absl::Status CheckRepositoryName(const std::string& name) {
  if (name.empty()) return absl::OkStatus();
  return absl::UnimplementedError("'repository_name' specification is not supported");
}

absl::StatusOr<std::shared_ptr<const TritonConfig>> ReadLoadParameters(const RepositoryParameters& parameters) {
  std::shared_ptr<const TritonConfig> config;
  for (const auto& [name, value] : parameters) {
    if (name.rfind("file:", 0) == 0) {
      return absl::InvalidArgumentError(StrCat("load parameter '", name.substr(0, 200), "' is refused: hearth takes no files "
                                               "from clients; put the file into the model repository"));
    }
    if (name != "config") return absl::InvalidArgumentError(StrCat("unrecognized load parameter '", name, "'"));
    if (value.parameter_choice_case() != inference::ModelRepositoryParameter::kStringParam) {
      return absl::InvalidArgumentError("invalid value type for 'config' parameter, expected string_param.");
    }
    if (value.string_param().size() > kMaxConfig) {
      return absl::InvalidArgumentError(StrCat("parameter 'config' is larger than ", FormatBytes(kMaxConfig)));
    }
    config = std::make_shared<const TritonConfig>(
        TritonConfig{TritonConfig::Form::kJson, value.string_param(), "parameter 'config'"});
  }
  return config;
}

absl::Status CheckUnloadParameters(const RepositoryParameters& parameters) {
  for (const auto& [name, value] : parameters) {
    if (name != "unload_dependents") {
      return absl::InvalidArgumentError(StrCat("unrecognized unload parameter '", name, "'"));
    }
    if (value.parameter_choice_case() != inference::ModelRepositoryParameter::kBoolParam) {
      return absl::InvalidArgumentError(
          "invalid value type for 'unload_dependents' parameter, expected bool_param.");
    }
  }
  return absl::OkStatus();
}

std::string ServerTiming(const LoadReport& report) {
  std::string text;
  for (std::size_t i = 0; i < kLoadPhaseCount; ++i) {
    if (report.phases[i].wall == Duration{}) continue;
    absl::StrAppendFormat(&text, "%s%s;dur=%.3f", text.empty() ? "" : ", ", ToString(static_cast<LoadPhase>(i)),
                          ToMilliseconds(report.phases[i].wall));
  }
  return text;
}

}  // namespace hearth
