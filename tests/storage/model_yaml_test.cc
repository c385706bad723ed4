#include "server/storage/model_yaml.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "server/storage/mapped_file.h"
#include "tests/storage/files.h"

namespace hearth {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;
using testing_files::TempDir;

std::string Errors(const std::string& text) {
  const auto options = ParseModelYaml(text, "model.yaml");
  if (options.ok()) return "";
  EXPECT_EQ(options.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(options.status().message());
}

TEST(ModelYaml, AnEmptyFileMeansTheDefaults) {
  const auto options = ParseModelYaml("", "model.yaml");
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->method, "forward");
  EXPECT_EQ(options->device, "cpu");
  EXPECT_EQ(options->max_batch_size, 0);
  EXPECT_EQ(options->instances, 0);
  EXPECT_EQ(options->intra_op_threads, 0);
  EXPECT_FALSE(options->residency.has_value());
  EXPECT_EQ(options->integrity, Integrity::kOff);
  EXPECT_FALSE(options->idle_unload.has_value());
  EXPECT_EQ(options->versions.latest, 0);
  EXPECT_THAT(options->versions.specific, IsEmpty());
  EXPECT_THAT(options->labels, IsEmpty());
  EXPECT_FALSE(options->resource_preserving);
  EXPECT_THAT(options->inputs, IsEmpty());
  EXPECT_THAT(options->warm_up, IsEmpty());
}

TEST(ModelYaml, ReadsEveryKey) {
  const auto options = ParseModelYaml(R"(
method: audio_forward
device: cuda:1
max_batch_size: 8
instances: 3
intra_op_threads: 4
residency: sealed
integrity: on-load
idle_unload: 10m
min_residency: 90s
versions: {specific: [1, 3]}
labels: {stable: 1, canary-2: 3}
resource_preserving: true
inputs:
  - {name: x, datatype: FP32, shape: [-1, 16]}
  - {name: sr, datatype: INT64, optional: true}
outputs:
  - {name: y, shape: [-1, 4]}
warm_up:
  - count: 5
    inputs:
      x: {datatype: FP32, shape: [1, 16], data: random}
      sr: {datatype: INT64, shape: [], data: 16000}
  - inputs: {x: {datatype: FP32, shape: [8, 16]}}
)",
                                      "model.yaml");
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->method, "audio_forward");
  EXPECT_EQ(options->device, "cuda:1");
  EXPECT_EQ(options->max_batch_size, 8);
  EXPECT_EQ(options->instances, 3);
  EXPECT_EQ(options->intra_op_threads, 4);
  EXPECT_EQ(options->residency, Residency::kSealed);
  EXPECT_EQ(options->integrity, Integrity::kOnLoad);
  EXPECT_EQ(options->idle_unload, std::chrono::minutes(10));
  EXPECT_EQ(options->min_residency, std::chrono::seconds(90));
  EXPECT_THAT(options->versions.specific, ElementsAre(1, 3));
  EXPECT_THAT(options->labels, ElementsAre(Pair("canary-2", 3), Pair("stable", 1)));
  EXPECT_TRUE(options->resource_preserving);
  ASSERT_EQ(options->inputs.size(), 2u);
  EXPECT_EQ(options->inputs[0].name, "x");
  EXPECT_EQ(options->inputs[0].dtype, DType::kFp32);
  EXPECT_EQ(options->inputs[0].shape, (Shape{-1, 16}));
  EXPECT_FALSE(options->inputs[0].optional);
  EXPECT_TRUE(options->inputs[1].optional);
  EXPECT_FALSE(options->inputs[1].shape.has_value());
  ASSERT_EQ(options->outputs.size(), 1u);
  EXPECT_EQ(options->outputs[0].dtype, DType::kUnknown);
  ASSERT_EQ(options->warm_up.size(), 2u);
  EXPECT_EQ(options->warm_up[0].count, 5);
  ASSERT_EQ(options->warm_up[0].inputs.size(), 2u);
  EXPECT_EQ(options->warm_up[0].inputs[0].name, "x");
  EXPECT_EQ(options->warm_up[0].inputs[0].fill, WarmUpSample::Fill::kRandom);
  EXPECT_EQ(options->warm_up[0].inputs[1].value, 16000.0);
  EXPECT_THAT(options->warm_up[0].inputs[1].shape, IsEmpty());
  EXPECT_EQ(options->warm_up[1].count, 2);
  EXPECT_EQ(options->warm_up[1].inputs[0].fill, WarmUpSample::Fill::kZeros);
}

TEST(ModelYaml, NamesFilesButNoPaths) {
  const auto options = ParseModelYaml("program: net.pt\noutputs: [{name: y, class_names: classes.txt}]\n", "model.yaml");
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->program, "net.pt");
  EXPECT_EQ(options->class_names.at("y").file, "classes.txt");
  EXPECT_THAT(Errors("program: ../net.pt\n"), HasSubstr("'../net.pt' is not the name of a file in a version's folder"));
  EXPECT_THAT(Errors("outputs: [{name: y, class_names: /etc/passwd}]\n"),
              HasSubstr("'/etc/passwd' is not the name of a file beside model.yaml"));
}

TEST(ModelYaml, ItsKeysTakeThePlaceOfWhatWasSaidBefore) {
  ModelOptions before;
  before.max_batch_size = 4;
  before.instances = 2;
  before.inputs = {{"a", DType::kFp32, Shape{-1, 2}, false}};
  before.outputs = {{"b", DType::kFp32, Shape{-1}, false}};
  before.class_names["b"].file = "b.txt";
  before.versions.latest = 3;
  before.warm_up.resize(2);
  const auto said = ParseModelYaml("instances: 1\noutputs: [{name: c, shape: [-1]}]\nversions: {specific: [1]}\nwarm_up: []\n",
                                   "model.yaml", before);
  ASSERT_TRUE(said.ok()) << said.status();
  EXPECT_EQ(said->instances, 1);
  EXPECT_EQ(said->max_batch_size, 4);
  EXPECT_EQ(said->inputs.size(), 1u);
  ASSERT_EQ(said->outputs.size(), 1u);
  EXPECT_EQ(said->outputs[0].name, "c");
  EXPECT_TRUE(said->class_names.empty());
  EXPECT_EQ(said->versions.latest, 0);
  EXPECT_THAT(said->versions.specific, ElementsAre(1));
  EXPECT_THAT(said->warm_up, IsEmpty());
}

TEST(ModelYaml, ReportsEveryMistakeAtOnceWithItsLine) {
  const std::string errors = Errors(
      "metod: forward\n"
      "device: 'a b'\n"
      "instances: -1\n"
      "inputs:\n"
      "  - {name: x, datatype: FLOAT}\n"
      "  - {name: x, shape: [-2]}\n"
      "  - {datatype: FP32}\n"
      "intra_op_threads: 5000\n");
  EXPECT_THAT(errors, HasSubstr("model.yaml:1:"));
  EXPECT_THAT(errors, HasSubstr("model.yaml:8:"));
  EXPECT_THAT(errors, HasSubstr("'metod': unknown key"));
  EXPECT_THAT(errors, HasSubstr("model.yaml:2:"));
  EXPECT_THAT(errors, HasSubstr("model.yaml:3:"));
  EXPECT_THAT(errors, HasSubstr("'FLOAT' is not a datatype"));
  EXPECT_THAT(errors, HasSubstr("another one named 'x'"));
  EXPECT_THAT(errors, HasSubstr("shape"));
  EXPECT_THAT(errors, HasSubstr("is required"));
}

TEST(ModelYaml, ResidencyAndIntegrityAreOneOfTheirWords) {
  for (const char* word : {"mapped", "populated", "locked", "sealed"}) {
    EXPECT_EQ(Errors(StrCat("residency: ", word, "\n")), "");
  }
  const std::string residency = Errors("residency: pinned\n");
  for (const char* word : {"mapped", "populated", "locked", "sealed"}) EXPECT_THAT(residency, HasSubstr(word));
  EXPECT_EQ(Errors("integrity: 'off'\n") + Errors("integrity: off\n"), "");
  EXPECT_THAT(Errors("integrity: always\n"), HasSubstr("on-load"));
  EXPECT_EQ(Errors("integrity: background\n"), "");
}

TEST(ModelYaml, ReadsHowRequestsAreBatchedAndQueued) {
  const auto plain = ParseModelYaml("max_batch_size: 8\n", "model.yaml");
  EXPECT_FALSE(plain->batching.enabled);
  EXPECT_EQ(plain->queue.max_size, 0u);
  EXPECT_TRUE(ParseModelYaml("max_batch_size: 8\nbatching: true\n", "model.yaml")->batching.enabled);
  EXPECT_FALSE(ParseModelYaml("max_batch_size: 8\nbatching: false\n", "model.yaml")->batching.enabled);
  const auto options = ParseModelYaml(R"(
max_batch_size: 8
batching: {preferred: [8, 4], max_delay: 2ms, pad: [ids]}
queue: {max_size: 100, timeout: 50ms, on_timeout: delay, priorities: 3}
sequences: {idle_timeout: 10s, max: 7, required: true, on_pressure: end}
response_cache: true
)",
                                      "model.yaml");
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_TRUE(options->batching.enabled);
  EXPECT_THAT(options->batching.preferred, ElementsAre(4, 8));
  EXPECT_EQ(options->batching.max_delay, std::chrono::milliseconds(2));
  EXPECT_THAT(options->batching.pad, ElementsAre("ids"));
  EXPECT_EQ(options->queue.max_size, 100u);
  EXPECT_EQ(options->queue.timeout, std::chrono::milliseconds(50));
  EXPECT_EQ(options->queue.on_timeout, QueueOptions::OnTimeout::kDelay);
  EXPECT_EQ(options->queue.priorities, 3);
  EXPECT_EQ(options->queue.default_priority, 3);
  EXPECT_EQ(options->sequences.idle_timeout, std::chrono::seconds(10));
  EXPECT_EQ(options->sequences.max, 7u);
  EXPECT_TRUE(options->sequences.required);
  EXPECT_TRUE(options->response_cache);
  EXPECT_EQ(options->sequences.on_pressure, SequenceOptions::OnPressure::kEnd);
  EXPECT_THAT(Errors("batching: true\n"), HasSubstr("needs max_batch_size"));
  EXPECT_THAT(Errors("max_batch_size: 8\nbatching: {max_delay: 1h}\n"), HasSubstr("longer than 10s"));
  EXPECT_THAT(Errors("max_batch_size: 8\nbatching: {preferred: [16]}\n"), HasSubstr("above max_batch_size, 8"));
  EXPECT_THAT(Errors("queue: {default_priority: 2}\n"), HasSubstr("above the number of priorities, 1"));
}

TEST(ModelYaml, BatchingNeedsABatchDimension) {
  EXPECT_THAT(Errors("max_batch_size: 8\ninputs: [{name: x, shape: [4]}]\n"),
              HasSubstr("must begin with -1"));
  EXPECT_THAT(Errors("max_batch_size: 8\noutputs: [{name: x, shape: []}]\n"),
              HasSubstr("must begin with -1"));
  EXPECT_EQ(Errors("max_batch_size: 8\ninputs: [{name: x, shape: [-1, 4]}, {name: y}]\n"), "");
  EXPECT_EQ(Errors("inputs: [{name: x, shape: [4]}]\n"), "");
}

TEST(ModelYaml, WarmUpInputsAreComplete) {
  const auto input = [](const std::string& rest) {
    return Errors("warm_up: [{inputs: {x: {" + rest + "}}}]\n");
  };
  EXPECT_EQ(input("datatype: INT32, shape: [2], data: 7"), "");
  EXPECT_EQ(input("datatype: BYTES, shape: [2]"), "");
  EXPECT_THAT(input("shape: [2]"), HasSubstr("datatype"));
  EXPECT_THAT(input("datatype: FP32"), HasSubstr("shape"));
  EXPECT_THAT(input("datatype: FP32, shape: [-1]"), HasSubstr("shape"));
  EXPECT_THAT(input("datatype: FP32, shape: [0]"), HasSubstr("shape"));
  EXPECT_THAT(input("datatype: FP32, shape: [100000, 100000]"), HasSubstr("larger than 1"));
  EXPECT_THAT(input("datatype: FP32, shape: [2], data: ones"),
              HasSubstr("not zeros, random or a number"));
  EXPECT_THAT(input("datatype: FP32, shape: [2], data: .nan"),
              HasSubstr("not zeros, random or a number"));
  EXPECT_THAT(input("datatype: INT32, shape: [2], data: 1.5"), HasSubstr("not an integer"));
  EXPECT_THAT(input("datatype: BYTES, shape: [2], data: 1"), HasSubstr("cannot fill BYTES"));
  EXPECT_THAT(Errors("warm_up: [{count: 0, inputs: {}}]\n"), HasSubstr("count"));
  EXPECT_THAT(Errors("warm_up: [{count: 1}]\n"), HasSubstr("inputs"));
}

TEST(ModelYaml, AMissingFileIsNotFound) {
  TempDir dir;
  EXPECT_EQ(ReadModelYaml(dir.path() / "model.yaml").status().code(), absl::StatusCode::kNotFound);
}

TEST(ModelYaml, ErrorsNameTheFile) {
  TempDir dir;
  const auto path = dir.Write("net/model.yaml", "device: 3x\n");
  EXPECT_THAT(std::string(ReadModelYaml(path).status().message()),
              HasSubstr(ShortName(path) + ":1:"));
}

TEST(ModelYaml, RefusesAHugeFile) {
  TempDir dir;
  const auto path = dir.Write("model.yaml", std::string(2 << 20, '#'));
  EXPECT_EQ(ReadModelYaml(path).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(ModelYaml, SaysWhichVersionsAreServed) {
  EXPECT_EQ(ParseModelYaml("versions: {latest: 2}", "model.yaml")->versions.latest, 2);
  const auto all = ParseModelYaml("versions: all", "model.yaml");
  ASSERT_TRUE(all.ok()) << all.status();
  EXPECT_EQ(all->versions.latest, 0);
  EXPECT_THAT(all->versions.specific, IsEmpty());
}

TEST(ModelYaml, RefusesAPolicyThatSaysNothingOrTwoThings) {
  for (const char* bad : {"some", "3", "{}", "{latest: 1, specific: [1]}"}) {
    EXPECT_THAT(Errors(std::string("versions: ") + bad), HasSubstr("write all, {latest: N} or {specific: [1, 3]}")) << bad;
  }
  EXPECT_THAT(Errors("versions: {latest: 0}"), HasSubstr("versions.latest"));
  EXPECT_THAT(Errors("versions: {specific: [0]}"), HasSubstr("versions.specific"));
  EXPECT_THAT(Errors("versions: {specific: []}"), HasSubstr("names no version"));
  EXPECT_THAT(Errors("versions: {newest: 1}"), HasSubstr("unknown key"));
}

TEST(ModelYaml, RefusesALabelThatCouldBeAVersion) {
  for (const char* bad : {"\"2\"", "2nd", "-1", "\"\"", "a b"}) {
    EXPECT_THAT(Errors(std::string("labels: {") + bad + ": 1}"), HasSubstr("is not a label")) << bad;
  }
  EXPECT_THAT(Errors("labels: {stable: 0}"), HasSubstr("labels.stable"));
}

}  // namespace
}  // namespace hearth
