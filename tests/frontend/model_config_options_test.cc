#include "server/frontend/model_config_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>

#include "server/frontend/model_config_reader.h"
#include "server/frontend/model_config_wire.h"

namespace hearth {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

// As one finds it beside Triton's example models.
constexpr char kSimple[] = R"(
name: "simple"
platform: "pytorch_libtorch"
max_batch_size: 8
input [
  { name: "INPUT0" data_type: TYPE_INT32 dims: [ 16 ] },
  { name: "INPUT1" data_type: TYPE_INT32 dims: [ 16 ] }
]
output [
  { name: "OUTPUT0" data_type: TYPE_INT32 dims: [ 16 ] },
  { name: "OUTPUT1" data_type: TYPE_INT32 dims: [ 16 ] label_filename: "signs.txt" }
]
instance_group [ { kind: KIND_CPU count: 2 } ]
version_policy: { specific { versions: [ 1, 3 ] } }
model_warmup [ { name: "zeros" batch_size: 4 count: 3
  inputs { key: "INPUT0" value { data_type: TYPE_INT32 dims: 16 zero_data: true } }
  inputs { key: "INPUT1" value { data_type: TYPE_INT32 dims: 16 random_data: true } } } ]
parameters: { key: "INFERENCE_MODE" value: { string_value: "true" } }
)";

class ModelConfigTest : public ::testing::Test {
 protected:
  absl::Status Read(const std::string& text, TritonConfig::Form form = TritonConfig::Form::kText) {
    remarks_.clear();
    return ReadModelConfig("simple", {form, text, form == TritonConfig::Form::kText ? "simple/config.pbtxt" : "parameter 'config'"},
                           options_, remarks_);
  }
  void Accept(const std::string& text) {
    options_ = {};
    const absl::Status status = Read(text);
    EXPECT_TRUE(status.ok()) << status;
  }
  std::string Refusal(const std::string& text, TritonConfig::Form form = TritonConfig::Form::kText) {
    options_ = {};
    const absl::Status status = Read(text, form);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    return std::string(status.message());
  }

  ModelOptions options_;
  std::vector<std::string> remarks_;
};

TEST_F(ModelConfigTest, ARealOneIsFollowed) {
  Accept(kSimple);
  EXPECT_EQ(options_.format, "torchscript");
  EXPECT_EQ(options_.max_batch_size, 8);
  ASSERT_EQ(options_.inputs.size(), 2u);
  EXPECT_EQ(options_.inputs[1].name, "INPUT1");
  EXPECT_EQ(options_.inputs[1].dtype, DType::kInt32);
  EXPECT_THAT(*options_.inputs[1].shape, ElementsAre(-1, 16)) << "the batch goes without saying";
  ASSERT_EQ(options_.outputs.size(), 2u);
  EXPECT_EQ(options_.class_names.at("OUTPUT1").file, "signs.txt");
  EXPECT_EQ(options_.instances, 2);
  EXPECT_EQ(options_.device, "cpu");
  EXPECT_THAT(options_.versions.specific, ElementsAre(1, 3));
  ASSERT_EQ(options_.warm_up.size(), 1u);
  EXPECT_EQ(options_.warm_up[0].name, "zeros");
  EXPECT_EQ(options_.warm_up[0].count, 3);
  ASSERT_EQ(options_.warm_up[0].inputs.size(), 2u);
  EXPECT_THAT(options_.warm_up[0].inputs[0].shape, ElementsAre(4, 16));
  EXPECT_EQ(options_.warm_up[0].inputs[1].fill, WarmUpSample::Fill::kRandom);
  EXPECT_THAT(remarks_, IsEmpty());
}

TEST_F(ModelConfigTest, WithoutABatchDimsAreTheWholeShape) {
  Accept("input { name: 'x' data_type: TYPE_FP32 dims: -1 dims: 4 optional: true } input { name: 'y' }");
  EXPECT_THAT(*options_.inputs[0].shape, ElementsAre(-1, 4));
  EXPECT_TRUE(options_.inputs[0].optional);
  EXPECT_EQ(options_.inputs[1].shape, std::nullopt);
  EXPECT_EQ(options_.inputs[1].dtype, DType::kUnknown);
}

TEST_F(ModelConfigTest, ReshapesAreTheProgramsShapes) {
  Accept("max_batch_size: 2 input { name: 'x' dims: 16 reshape { shape: [4, 4] } } output { name: 'y' dims: 1 reshape { } }");
  EXPECT_THAT(*options_.inputs[0].shape, ElementsAre(-1, 16));
  EXPECT_THAT(*options_.inputs[0].reshape, ElementsAre(-1, 4, 4));
  EXPECT_THAT(*options_.outputs[0].reshape, ElementsAre(-1));
  EXPECT_THAT(Refusal("input { name: 'x' dims: 16 reshape { shape: [3, 4] } }"),
              HasSubstr("'x': a tensor of shape [16] cannot be reshaped to [3,4]"));
  EXPECT_THAT(Refusal("input { name: 'x' reshape { shape: 1 } }"), HasSubstr("no dims"));
}

TEST_F(ModelConfigTest, WhatItDoesNotSayStays) {
  options_.max_batch_size = 4;
  options_.inputs = {{"a", DType::kUnknown, std::nullopt, false}};
  options_.instances = 3;
  options_.device = "cuda:1";
  ASSERT_TRUE(Read(R"({"output": [{"name": "y", "dims": ["4"], "data_type": "TYPE_FP32"}]})", TritonConfig::Form::kJson).ok());
  EXPECT_EQ(options_.max_batch_size, 4);
  EXPECT_EQ(options_.inputs.size(), 1u);
  EXPECT_EQ(options_.instances, 3);
  EXPECT_EQ(options_.device, "cuda:1");
  EXPECT_THAT(*options_.outputs[0].shape, ElementsAre(-1, 4)) << "by the batch that was said before";
  ASSERT_TRUE(Read(R"({"max_batch_size": "0"})", TritonConfig::Form::kJson).ok());
  EXPECT_EQ(options_.max_batch_size, 0) << "said, though it is the default";
}

TEST_F(ModelConfigTest, ErrorsSayWhere) {
  EXPECT_THAT(Refusal("name: 'simple'\n  max_batch_sise: 8\n"), StartsWith("simple/config.pbtxt:2:17: "));
  EXPECT_THAT(Refusal("max_batch_size: 'many'"), StartsWith("simple/config.pbtxt:1:17: Expected integer"));
  EXPECT_THAT(Refusal("max_batch_size: 1 max_batch_size: 2"), HasSubstr("specified multiple times"));
  EXPECT_THAT(Refusal("metric_tags { key: '\\377' }"), HasSubstr("not UTF-8"));
  EXPECT_THAT(Refusal("{", TritonConfig::Form::kJson), StartsWith("parameter 'config' is no model configuration in JSON: "));
  EXPECT_THAT(Refusal(R"({"max_batch_sise": 8})", TritonConfig::Form::kJson), HasSubstr("max_batch_sise"));
}

TEST_F(ModelConfigTest, WhatHearthCannotDoIsRefused) {
  for (const auto& [text, why] : std::vector<std::pair<std::string, std::string>>{
           {"backend: 'onnxruntime'", "backend 'onnxruntime' is not there"},
           {"platform: 'tensorrt_plan'", "platform 'tensorrt_plan' is not there"},
           {"backend: 'pytorch' runtime: 'model.py'", "runtime 'model.py' is a Python program"},
           {"name: 'other'", "its name is 'other', and the model's is 'simple'"},
           {"ensemble_scheduling { step { model_name: 'a' } }", "serves no ensembles"},
           {"sequence_batching { control_input { name: 'START' } }", "cannot be had"},
           {"max_batch_size: 4 dynamic_batching { preferred_batch_size: 5 }", "a preferred_batch_size of 5"},
           {"dynamic_batching { priority_levels: 2 default_priority_level: 3 }", "a default_priority_level of 3"},
           {"model_transaction_policy { decoupled: true }", "decoupled cannot be true"},
           {"batch_input { kind: BATCH_ELEMENT_COUNT }", "batch_input"},
           {"model_repository_agents { agents { name: 'checksum' } }", "'integrity'"},
           {"input { name: 'x' is_shape_tensor: true }", "only TensorRT"},
           {"input { dims: 1 }", "has no name"},
           {"input { name: 'x' } input { name: 'x' }", "another tensor named 'x'"},
           {"input { name: 'x' dims: -2 }", "a dimension of -2"},
           {"max_batch_size: -1", "max_batch_size -1"},
           {"instance_group { count: 5000 }", "5000 instances; at most 1024"},
           {"default_model_filename: '../../secret'", "is not the name of a file in a version's folder"},
           {"platform: 'torch_aoti' default_model_filename: 'a.pt'", "is not of the platform 'torch_aoti'"},
           {"output { name: 'y' label_filename: '/etc/passwd' }", "is not the name of a file beside config.pbtxt"},
           {"version_policy { specific { } }", "names no version"},
           {"model_warmup { inputs { key: 'x' value { dims: 1 zero_data: true } } }", "has no data_type"},
           {"model_warmup { inputs { key: 'x' value { data_type: TYPE_FP32 dims: -1 } } }", "has no size"},
           {"model_warmup { count: 1001 }", "at most 1000"}}) {
    EXPECT_THAT(Refusal(text), HasSubstr(why));
    EXPECT_THAT(Refusal(text), StartsWith("simple/config.pbtxt: "));
  }
}

TEST_F(ModelConfigTest, BatchesAndQueuesAreThoseOfModelYaml) {
  Accept("max_batch_size: 8 dynamic_batching { preferred_batch_size: [8, 4] max_queue_delay_microseconds: 2500 "
         "priority_levels: 3 default_priority_level: 2 default_queue_policy { timeout_action: DELAY "
         "default_timeout_microseconds: 7 max_queue_size: 5 } }");
  EXPECT_TRUE(options_.batching.enabled);
  EXPECT_THAT(options_.batching.preferred, ElementsAre(4, 8));
  EXPECT_EQ(options_.batching.max_delay, std::chrono::microseconds(2500));
  EXPECT_EQ(options_.queue.priorities, 3);
  EXPECT_EQ(options_.queue.default_priority, 2);
  EXPECT_EQ(options_.queue.max_size, 5u);
  EXPECT_EQ(options_.queue.timeout, std::chrono::microseconds(7));
  EXPECT_EQ(options_.queue.on_timeout, QueueOptions::OnTimeout::kDelay);
  EXPECT_THAT(remarks_, IsEmpty());

  inference::ModelConfig wire;
  ModelMetadata model;
  model.options = options_;
  FillConfig(model, wire);
  EXPECT_THAT(wire.dynamic_batching().preferred_batch_size(), ElementsAre(4, 8));
  EXPECT_EQ(wire.dynamic_batching().max_queue_delay_microseconds(), 2500u);
  EXPECT_EQ(wire.dynamic_batching().priority_levels(), 3u);
  EXPECT_EQ(wire.dynamic_batching().default_queue_policy().max_queue_size(), 5u);

  Accept("max_batch_size: 1 dynamic_batching { }");
  EXPECT_FALSE(options_.batching.enabled);
  EXPECT_THAT(remarks_, ElementsAre(HasSubstr("no request joins another")));
}

TEST_F(ModelConfigTest, AResponseCacheIsThatOfModelYaml) {
  Accept("response_cache { enable: true }");
  EXPECT_TRUE(options_.response_cache);
  EXPECT_THAT(remarks_, IsEmpty());
  inference::ModelConfig wire;
  ModelMetadata model;
  model.options = options_;
  FillConfig(model, wire);
  EXPECT_TRUE(wire.response_cache().enable());
}

TEST_F(ModelConfigTest, SequencesAreOfModelsWithAStateOfTheirOwn) {
  Accept("sequence_batching { max_sequence_idle_microseconds: 5000000 oldest { max_candidate_sequences: 16 } }");
  EXPECT_EQ(options_.sequences.idle_timeout, std::chrono::seconds(5));
  EXPECT_EQ(options_.sequences.max, 1024u) << "those beyond the candidates have to wait, not to be refused";
  EXPECT_TRUE(options_.sequences.required);
  EXPECT_THAT(remarks_, ElementsAre(HasSubstr("side by side")));
}

TEST_F(ModelConfigTest, TheThreadsOfARunHaveTwoNamesAndOneMeaning) {
  const auto parameter = [](const std::string& name, const std::string& value) {
    return "parameters { key: '" + name + "' value { string_value: '" + value + "' } } ";
  };
  for (const char* name : {"INTRA_OP_THREAD_COUNT", "NUM_THREADS"}) {
    Accept(parameter(name, "4"));
    EXPECT_EQ(options_.intra_op_threads, 4);
    EXPECT_THAT(remarks_, IsEmpty());
    Accept(parameter(name, "0"));
    EXPECT_EQ(options_.intra_op_threads, 0);
    for (const char* bad : {"", "four", "-1", "1025", "99999999999"}) {
      EXPECT_THAT(Read(parameter(name, bad)).message(), HasSubstr("not a number from 0 to 1024")) << bad;
    }
  }
  Accept(parameter("INTRA_OP_THREAD_COUNT", "2") + parameter("NUM_THREADS", "2"));
  EXPECT_EQ(options_.intra_op_threads, 2);
  EXPECT_THAT(Read(parameter("INTRA_OP_THREAD_COUNT", "2") + parameter("NUM_THREADS", "3")).message(), HasSubstr("leave one out"));
}

TEST_F(ModelConfigTest, AnswersNameTheThreadsOfARunAsModelYamlHasThem) {
  Accept("parameters { key: 'NUM_THREADS' value { string_value: '4' } }");
  ModelMetadata model;
  model.options = options_;
  for (const int threads : {4, 2, 0}) {
    model.options.intra_op_threads = threads;
    inference::ModelConfig wire;
    FillConfig(model, wire);
    EXPECT_FALSE(wire.parameters().contains("NUM_THREADS"));
    ASSERT_EQ(wire.parameters().contains("INTRA_OP_THREAD_COUNT"), threads > 0);
    if (threads == 0) continue;
    EXPECT_EQ(wire.parameters().at("INTRA_OP_THREAD_COUNT").string_value(), std::to_string(threads));
  }
}

TEST_F(ModelConfigTest, WhatHasNoEffectIsNamed) {
  Accept("optimization { cuda { graphs: true } } metric_tags { key: 'a' value: 'b' } "
         "parameters { key: 'INTER_OP_THREAD_COUNT' value { string_value: '4' } } "
         "parameters { key: 'my_own' value { string_value: 'x' } } "
         "parameters { key: 'ENABLE_WEIGHT_SHARING' value { string_value: 'false' } } "
         "model_warmup { name: 'recorded' inputs { key: 'x' value { data_type: TYPE_FP32 dims: 1 input_data_file: 'f' } } } "
         "instance_group { count: 1 kind: KIND_GPU gpus: [1, 2] } instance_group { count: 2 kind: KIND_CPU passive: true }");
  EXPECT_THAT(remarks_, ElementsAre(HasSubstr("on cuda:1"), HasSubstr("passive"), HasSubstr("sample 'recorded' is left out"),
                                    HasSubstr("ENABLE_WEIGHT_SHARING"), HasSubstr("compute.threads"),
                                    HasSubstr("my_own has no effect: nothing here knows it"), HasSubstr("optimization"),
                                    HasSubstr("metric_tags")));
  EXPECT_EQ(options_.device, "cuda:1");
  EXPECT_EQ(options_.instances, 3);
  EXPECT_THAT(options_.warm_up, IsEmpty());
}

TEST_F(ModelConfigTest, PlatformsAndFilesSayWhatKindOfProgram) {
  Accept("platform: 'torch_aoti'");
  EXPECT_EQ(options_.format, "aoti");
  Accept("backend: 'pytorch' default_model_filename: 'net.pt2'");
  EXPECT_EQ(options_.program, "net.pt2");
  EXPECT_EQ(options_.format, "");
}

TEST_F(ModelConfigTest, AnswersRepeatWhatWasSaidAndCompleteIt) {
  Accept(std::string(kSimple) + "metric_tags { key: 'team' value: 'a' } optimization { cuda { graphs: true } }");
  ModelMetadata model;
  model.id = {"simple", 3};
  model.file = "model.pt";
  model.options = options_;
  model.signature.platform = "pytorch_libtorch";
  model.signature.max_batch_size = 8;
  model.signature.inputs = options_.inputs;
  model.signature.outputs = {options_.outputs[0], {"OUTPUT1", DType::kInt32, Shape{-1, 16}}, {"extra", DType::kFp32, Shape{-1, 2}}};
  inference::ModelConfig wire;
  FillConfig(model, wire);
  EXPECT_EQ(wire.metric_tags().at("team"), "a");
  EXPECT_TRUE(wire.optimization().cuda().graphs());
  EXPECT_EQ(wire.parameters().at("INFERENCE_MODE").string_value(), "true");
  EXPECT_EQ(wire.backend(), "pytorch");
  EXPECT_EQ(wire.default_model_filename(), "model.pt");
  ASSERT_EQ(wire.output_size(), 3);
  EXPECT_EQ(wire.output(1).label_filename(), "signs.txt");
  EXPECT_THAT(wire.output(1).dims(), ElementsAre(16));
  EXPECT_EQ(wire.output(2).name(), "extra");
  ASSERT_EQ(wire.instance_group_size(), 1);
  EXPECT_EQ(wire.instance_group(0).count(), 2);
  ASSERT_EQ(wire.model_warmup_size(), 1);
  EXPECT_EQ(wire.model_warmup(0).batch_size(), 4u);
  EXPECT_THAT(wire.model_warmup(0).inputs().at("INPUT0").dims(), ElementsAre(16));
}

}  // namespace
}  // namespace hearth
