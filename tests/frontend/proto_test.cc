// The wire is a contract with clients that were compiled long ago: names, numbers and types of
// every field, and the methods, are written down here a second time.
#include <google/protobuf/descriptor.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "inference.pb.h"

namespace hearth {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::DescriptorPool;
using google::protobuf::FieldDescriptor;

// "repeated int64 3": what decides whether two ends understand each other.
std::string Describe(const FieldDescriptor& field) {
  std::string text;
  if (field.is_map()) {
    const Descriptor* entry = field.message_type();
    const FieldDescriptor* value = entry->map_value();
    text = std::string("map ") + entry->map_key()->type_name() + " " +
           (value->message_type() ? value->message_type()->full_name() : value->type_name());
  } else {
    if (field.is_repeated()) text = "repeated ";
    text += field.message_type() ? field.message_type()->full_name() : field.type_name();
  }
  return text + " " + std::to_string(field.number());
}

using Fields = std::map<std::string, std::string>;

Fields FieldsOf(const std::string& message) {
  const Descriptor* descriptor =
      DescriptorPool::generated_pool()->FindMessageTypeByName("inference." + message);
  Fields fields;
  if (descriptor == nullptr) return {{message, "is missing"}};
  for (int i = 0; i < descriptor->field_count(); ++i) {
    fields[descriptor->field(i)->name()] = Describe(*descriptor->field(i));
  }
  return fields;
}

const std::map<std::string, Fields>& Protocol() {
  static const std::map<std::string, Fields> messages = {
      {"ServerLiveRequest", {}},
      {"ServerLiveResponse", {{"live", "bool 1"}}},
      {"ServerReadyRequest", {}},
      {"ServerReadyResponse", {{"ready", "bool 1"}}},
      {"ModelReadyRequest", {{"name", "string 1"}, {"version", "string 2"}}},
      {"ModelReadyResponse", {{"ready", "bool 1"}}},
      {"ServerMetadataRequest", {}},
      {"ServerMetadataResponse",
       {{"name", "string 1"}, {"version", "string 2"}, {"extensions", "repeated string 3"}}},
      {"ModelMetadataRequest", {{"name", "string 1"}, {"version", "string 2"}}},
      {"ModelMetadataResponse",
       {{"name", "string 1"},
        {"versions", "repeated string 2"},
        {"platform", "string 3"},
        {"inputs", "repeated inference.ModelMetadataResponse.TensorMetadata 4"},
        {"outputs", "repeated inference.ModelMetadataResponse.TensorMetadata 5"},
        {"properties", "map string string 6"}}},
      {"ModelMetadataResponse.TensorMetadata",
       {{"name", "string 1"}, {"datatype", "string 2"}, {"shape", "repeated int64 3"}}},
      {"InferParameter",
       {{"bool_param", "bool 1"},
        {"int64_param", "int64 2"},
        {"string_param", "string 3"},
        {"double_param", "double 4"},
        {"uint64_param", "uint64 5"}}},
      {"InferTensorContents",
       {{"bool_contents", "repeated bool 1"},
        {"int_contents", "repeated int32 2"},
        {"int64_contents", "repeated int64 3"},
        {"uint_contents", "repeated uint32 4"},
        {"uint64_contents", "repeated uint64 5"},
        {"fp32_contents", "repeated float 6"},
        {"fp64_contents", "repeated double 7"},
        {"bytes_contents", "repeated bytes 8"}}},
      {"ModelInferRequest",
       {{"model_name", "string 1"},
        {"model_version", "string 2"},
        {"id", "string 3"},
        {"parameters", "map string inference.InferParameter 4"},
        {"inputs", "repeated inference.ModelInferRequest.InferInputTensor 5"},
        {"outputs", "repeated inference.ModelInferRequest.InferRequestedOutputTensor 6"},
        {"raw_input_contents", "repeated bytes 7"}}},
      {"ModelInferRequest.InferInputTensor",
       {{"name", "string 1"},
        {"datatype", "string 2"},
        {"shape", "repeated int64 3"},
        {"parameters", "map string inference.InferParameter 4"},
        {"contents", "inference.InferTensorContents 5"}}},
      {"ModelInferRequest.InferRequestedOutputTensor",
       {{"name", "string 1"}, {"parameters", "map string inference.InferParameter 2"}}},
      {"ModelInferResponse",
       {{"model_name", "string 1"},
        {"model_version", "string 2"},
        {"id", "string 3"},
        {"parameters", "map string inference.InferParameter 4"},
        {"outputs", "repeated inference.ModelInferResponse.InferOutputTensor 5"},
        {"raw_output_contents", "repeated bytes 6"}}},
      {"ModelInferResponse.InferOutputTensor",
       {{"name", "string 1"},
        {"datatype", "string 2"},
        {"shape", "repeated int64 3"},
        {"parameters", "map string inference.InferParameter 4"},
        {"contents", "inference.InferTensorContents 5"}}},
      {"ModelStreamInferResponse",
       {{"error_message", "string 1"}, {"infer_response", "inference.ModelInferResponse 2"}}},
      {"ModelRepositoryParameter",
       {{"bool_param", "bool 1"},
        {"int64_param", "int64 2"},
        {"string_param", "string 3"},
        {"bytes_param", "bytes 4"}}},
      {"RepositoryIndexRequest", {{"repository_name", "string 1"}, {"ready", "bool 2"}}},
      {"RepositoryIndexResponse",
       {{"models", "repeated inference.RepositoryIndexResponse.ModelIndex 1"}}},
      {"RepositoryIndexResponse.ModelIndex",
       {{"name", "string 1"},
        {"version", "string 2"},
        {"state", "string 3"},
        {"reason", "string 4"}}},
      {"RepositoryModelLoadRequest",
       {{"repository_name", "string 1"},
        {"model_name", "string 2"},
        {"parameters", "map string inference.ModelRepositoryParameter 3"}}},
      {"RepositoryModelLoadResponse", {}},
      {"RepositoryModelUnloadRequest",
       {{"repository_name", "string 1"},
        {"model_name", "string 2"},
        {"parameters", "map string inference.ModelRepositoryParameter 3"}}},
      {"RepositoryModelUnloadResponse", {}},
      {"ModelConfigRequest", {{"name", "string 1"}, {"version", "string 2"}}},
      {"ModelConfigResponse", {{"config", "inference.ModelConfig 1"}}},
      {"ModelStatisticsRequest", {{"name", "string 1"}, {"version", "string 2"}}},
      {"ModelStatisticsResponse", {{"model_stats", "repeated inference.ModelStatistics 1"}}},
      {"ModelStatistics",
       {{"name", "string 1"},
        {"version", "string 2"},
        {"last_inference", "uint64 3"},
        {"inference_count", "uint64 4"},
        {"execution_count", "uint64 5"},
        {"inference_stats", "inference.InferStatistics 6"},
        {"batch_stats", "repeated inference.InferBatchStatistics 7"},
        {"memory_usage", "repeated inference.MemoryUsage 8"}}},
      {"StatisticDuration", {{"count", "uint64 1"}, {"ns", "uint64 2"}}},
      {"InferStatistics",
       {{"success", "inference.StatisticDuration 1"},
        {"fail", "inference.StatisticDuration 2"},
        {"queue", "inference.StatisticDuration 3"},
        {"compute_input", "inference.StatisticDuration 4"},
        {"compute_infer", "inference.StatisticDuration 5"},
        {"compute_output", "inference.StatisticDuration 6"},
        {"cache_hit", "inference.StatisticDuration 7"},
        {"cache_miss", "inference.StatisticDuration 8"}}},
      {"InferBatchStatistics",
       {{"batch_size", "uint64 1"},
        {"compute_input", "inference.StatisticDuration 2"},
        {"compute_infer", "inference.StatisticDuration 3"},
        {"compute_output", "inference.StatisticDuration 4"}}},
      {"MemoryUsage", {{"type", "string 1"}, {"id", "int64 2"}, {"byte_size", "uint64 3"}}},
      {"SystemSharedMemoryStatusRequest", {{"name", "string 1"}}},
      {"SystemSharedMemoryStatusResponse",
       {{"regions", "map string inference.SystemSharedMemoryStatusResponse.RegionStatus 1"}}},
      {"SystemSharedMemoryStatusResponse.RegionStatus",
       {{"name", "string 1"}, {"key", "string 2"}, {"offset", "uint64 3"}, {"byte_size", "uint64 4"}}},
      {"SystemSharedMemoryRegisterRequest",
       {{"name", "string 1"}, {"key", "string 2"}, {"offset", "uint64 3"}, {"byte_size", "uint64 4"}}},
      {"SystemSharedMemoryRegisterResponse", {}},
      {"SystemSharedMemoryUnregisterRequest", {{"name", "string 1"}}},
      {"SystemSharedMemoryUnregisterResponse", {}},
      {"CudaSharedMemoryStatusRequest", {{"name", "string 1"}}},
      {"CudaSharedMemoryStatusResponse",
       {{"regions", "map string inference.CudaSharedMemoryStatusResponse.RegionStatus 1"}}},
      {"CudaSharedMemoryStatusResponse.RegionStatus",
       {{"name", "string 1"}, {"device_id", "uint64 2"}, {"byte_size", "uint64 3"}}},
      {"CudaSharedMemoryRegisterRequest",
       {{"name", "string 1"}, {"raw_handle", "bytes 2"}, {"device_id", "int64 3"}, {"byte_size", "uint64 4"}}},
      {"CudaSharedMemoryRegisterResponse", {}},
      {"CudaSharedMemoryUnregisterRequest", {{"name", "string 1"}}},
      {"CudaSharedMemoryUnregisterResponse", {}},
      {"TraceSettingRequest",
       {{"settings", "map string inference.TraceSettingRequest.SettingValue 1"}, {"model_name", "string 2"}}},
      {"TraceSettingRequest.SettingValue", {{"value", "repeated string 1"}}},
      {"TraceSettingResponse", {{"settings", "map string inference.TraceSettingResponse.SettingValue 1"}}},
      {"TraceSettingResponse.SettingValue", {{"value", "repeated string 1"}}},
      {"LogSettingsRequest", {{"settings", "map string inference.LogSettingsRequest.SettingValue 1"}}},
      {"LogSettingsRequest.SettingValue",
       {{"bool_param", "bool 1"}, {"uint32_param", "uint32 2"}, {"string_param", "string 3"}}},
      {"LogSettingsResponse", {{"settings", "map string inference.LogSettingsResponse.SettingValue 1"}}},
      {"LogSettingsResponse.SettingValue",
       {{"bool_param", "bool 1"}, {"uint32_param", "uint32 2"}, {"string_param", "string 3"}}},
  };
  return messages;
}

TEST(Proto, HasTheProtocolsFields) {
  for (const auto& [message, fields] : Protocol()) EXPECT_EQ(FieldsOf(message), fields) << message;
}

TEST(Proto, DeclaresNoMessageBesides) {
  const auto* file = inference::ModelInferRequest::descriptor()->file();
  for (int i = 0; i < file->message_type_count(); ++i) {
    EXPECT_TRUE(Protocol().contains(file->message_type(i)->name()))
        << file->message_type(i)->name();
  }
}

TEST(Proto, HasTheProtocolsMethods) {
  const auto* service =
      DescriptorPool::generated_pool()->FindServiceByName("inference.GRPCInferenceService");
  ASSERT_NE(service, nullptr);
  std::vector<std::string> methods;
  for (int i = 0; i < service->method_count(); ++i) {
    const auto* method = service->method(i);
    methods.push_back(method->name());
    const bool streams = method->name() == "ModelStreamInfer";
    EXPECT_EQ(method->input_type()->name(), streams ? "ModelInferRequest" : method->name() + "Request");
    EXPECT_EQ(method->output_type()->name(), method->name() + "Response");
    EXPECT_EQ(method->client_streaming(), streams) << method->name();
    EXPECT_EQ(method->server_streaming(), streams) << method->name();
  }
  EXPECT_EQ(methods,
            (std::vector<std::string>{"ServerLive", "ServerReady", "ModelReady", "ServerMetadata",
                                      "ModelMetadata", "ModelConfig", "ModelStatistics", "ModelInfer",
                                      "ModelStreamInfer", "RepositoryIndex",
                                      "RepositoryModelLoad", "RepositoryModelUnload",
                                      "SystemSharedMemoryStatus", "SystemSharedMemoryRegister",
                                      "SystemSharedMemoryUnregister", "CudaSharedMemoryStatus",
                                      "CudaSharedMemoryRegister", "CudaSharedMemoryUnregister", "TraceSetting",
                                      "LogSettings"}));
}

}  // namespace
}  // namespace hearth
