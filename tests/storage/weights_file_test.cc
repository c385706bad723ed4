#include "server/storage/weights_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/storage/files.h"

namespace hearth {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing_files::TempDir;

std::string Index(const std::string& map) { return R"({"metadata":{"total_size":8},"weight_map":)" + map + "}"; }

TEST(WeightsFile, AnIndexStandsForItsShards) {
  const TempDir dir;
  const auto index = dir.Write("m/model.safetensors.index.json",
                               Index(R"({"a":"two.safetensors","b":"one.safetensors","c":"one.safetensors"})"));
  const auto files = WeightFiles(index);
  ASSERT_TRUE(files.ok()) << files.status();
  EXPECT_THAT(*files, ElementsAre(dir.path() / "m/one.safetensors", dir.path() / "m/two.safetensors"));
}

TEST(WeightsFile, AnyOtherFileStandsForItself) {
  EXPECT_THAT(*WeightFiles("/no/such/model.safetensors"), ElementsAre("/no/such/model.safetensors"));
}

TEST(WeightsFile, AnIndexNamesNoFilesElsewhere) {
  for (const char* name : {"../x", "/etc/passwd", "a/b", ".hidden", ""}) {
    const auto names = weights_internal::ParseIndex(Index(R"({"a":")" + std::string(name) + R"("})"));
    ASSERT_FALSE(names.ok()) << name;
    EXPECT_THAT(names.status().message(), HasSubstr("plain file name"));
  }
}

TEST(WeightsFile, RefusesAnIndexOfAnotherForm) {
  for (const std::string& text : {std::string("{}"), std::string("[]"), Index("{}"), Index("[]"), Index(R"({"a":1})"),
                                  Index(R"({"a":["b"]})"), std::string("{"), std::string(1000, '[')}) {
    EXPECT_EQ(weights_internal::ParseIndex(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
}

TEST(WeightsFile, SaysWhatAFileIsInstead) {
  const TempDir dir;
  const auto expect = [&](std::string_view content, const std::string& why) {
    const auto weights = ReadWeights(dir.Write("m/1/w.bin", content));
    ASSERT_FALSE(weights.ok());
    EXPECT_EQ(weights.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(weights.status().message(), HasSubstr(why));
    EXPECT_THAT(weights.status().message(), HasSubstr("'m/1/w.bin'"));
  };
  expect("\x80\x02}q.", "hearth pack");
  expect("\x80\x04}q.", "hearth pack");
  expect(std::string(257, 'x') + "ustar" + std::string(100, '\0'), "hearth pack");
  expect("hello world, I am no weights", "safetensors");
}

TEST(WeightsFile, ANameInTwoShardsIsAnError) {
  Weights a, b;
  a.tensors.push_back({.name = "x", .type = FindStorageType("FloatStorage"), .sizes = {}, .strides = {}});
  b = a;
  std::vector<Weights> both = {a, b};
  EXPECT_THAT(JoinWeights(both).status().message(), HasSubstr("'x'"));
}

TEST(WeightsFile, JoinedShardsKeepTheirStorages) {
  Weights a, b;
  a.storages = {{.file = nullptr, .offset = 64, .size = 4, .unpack = {}}};
  b.storages = {{.file = nullptr, .offset = 128, .size = 4, .unpack = {}}};
  a.tensors.push_back({.name = "x", .type = FindStorageType("FloatStorage"), .sizes = {}, .strides = {}});
  b.tensors.push_back({.name = "y", .type = FindStorageType("FloatStorage"), .sizes = {}, .strides = {}});
  const auto all = JoinWeights({a, b});
  ASSERT_TRUE(all.ok());
  EXPECT_EQ(all->storages[all->tensors[1].storage].offset, 128u);
  EXPECT_EQ(all->storages[all->tensors[0].storage].offset, 64u);
}

}  // namespace
}  // namespace hearth
