#include "server/storage/aoti_metadata.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/storage/files.h"

namespace hearth {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::string Refusal(std::string_view json) {
  const auto parsed = ParseAotiMetadata(json);
  EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument) << json;
  return std::string(parsed.status().message());
}

TEST(AotiMetadata, ReadsWhatTorchWrites) {
  const auto parsed = ParseAotiMetadata(testing_files::ReadFile(testing_files::DataPath("aoti/torch.json")));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->machine, "x86_64");
  EXPECT_EQ(parsed->device, "cpu");
  EXPECT_THAT(parsed->cpu_features,
              ElementsAre("avx512_vnni", "avx512bw", "avx512dq", "avx512f", "avx512vl", "fma"));
  EXPECT_FALSE(parsed->has_signature);
}

TEST(AotiMetadata, ReadsWhatHearthPackAdds) {
  const auto parsed = ParseAotiMetadata(testing_files::ReadFile(testing_files::DataPath("aoti/packed.json")));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  ASSERT_TRUE(parsed->has_signature);
  ASSERT_EQ(parsed->inputs.size(), 2u);
  EXPECT_EQ(parsed->inputs[0].info.name, "x");
  EXPECT_EQ(parsed->inputs[0].info.dtype, DType::kFp32);
  EXPECT_EQ(*parsed->inputs[0].info.shape, (Shape{-1, 32}));
  EXPECT_THAT(parsed->inputs[0].dimensions, ElementsAre("batch", ""));
  EXPECT_EQ(*parsed->outputs.at(0).info.shape, (Shape{-1, 8}));
  EXPECT_EQ(parsed->dimensions.at("batch").max, 1024);
  EXPECT_EQ(parsed->constants.at("a.weight"), (Shape{64, 32}));
}

TEST(AotiMetadata, WordsThatAreNotKnownAreFeaturesOfTheirOwn) {
  EXPECT_THAT(ParseAotiMetadata(R"({"AOTI_CPU_ISA": "AVX2 AVX10"})")->cpu_features,
              ElementsAre("avx10", "avx2", "f16c", "fma"));
  EXPECT_THAT(ParseAotiMetadata(R"({"AOTI_CPU_ISA": "INVALID_VEC_ISA"})")->cpu_features, IsEmpty());
}

TEST(AotiMetadata, WhatMakesNoSenseIsRefused) {
  EXPECT_THAT(Refusal("not JSON"), HasSubstr("not a JSON object"));
  EXPECT_THAT(Refusal("[]"), HasSubstr("not a JSON object"));
  EXPECT_THAT(Refusal(R"({"hearth": "3"})"), HasSubstr("\"hearth\""));
  EXPECT_THAT(Refusal(R"({"hearth": "{\"inputs\": [{\"name\": \"x\"}], \"outputs\": []}"})"),
              HasSubstr("a name, a datatype and a shape"));
  EXPECT_THAT(Refusal(R"({"hearth": "{\"inputs\": [{\"name\": \"x\", \"datatype\": \"BYTES\", \"shape\": []}], )"
                      R"(\"outputs\": []}"})"),
              HasSubstr("'BYTES'"));
  EXPECT_THAT(Refusal(R"({"hearth": "{\"inputs\": [{\"name\": \"x\", \"datatype\": \"FP32\", \"shape\": [-2]}], )"
                      R"(\"outputs\": []}"})"),
              HasSubstr("a size, -1 or a name"));
  EXPECT_THAT(Refusal(R"({"hearth": "{\"inputs\": []}"})"), HasSubstr("\"outputs\""));
  EXPECT_THAT(Refusal(R"({"hearth": "{\"strides\": {\"n\": [1]}}"})"), HasSubstr("\"strides\""));
  EXPECT_THAT(Refusal(R"({"hearth": "{\"dimensions\": {\"n\": [1]}}"})"), HasSubstr("[least, most]"));
}

TEST(AotiMetadata, AMachineThatLacksFeaturesIsToldWhich) {
  AotiMetadata metadata;
  metadata.machine = "x86_64";
  metadata.cpu_features = {"avx2", "avx512f", "fma"};
  EXPECT_TRUE(CheckMachine(metadata, "x86_64", {"avx2", "avx512f", "fma", "sse"}).ok());
  const absl::Status lacking = CheckMachine(metadata, "x86_64", {"avx2", "fma"});
  EXPECT_EQ(lacking.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(lacking.message()), HasSubstr("'avx512f'"));
  EXPECT_THAT(std::string(lacking.message()), HasSubstr("hearth pack"));
  EXPECT_THAT(std::string(CheckMachine(metadata, "aarch64", {"avx2", "avx512f", "fma"}).message()),
              HasSubstr("this machine is aarch64"));
}

}  // namespace
}  // namespace hearth
