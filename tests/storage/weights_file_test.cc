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

// Refused as INVALID_ARGUMENT, with the file's name and `why`.
void ExpectRefusal(const TempDir& dir, const std::string& name, std::string_view content, const std::string& why) {
  const auto weights = ReadWeights(dir.Write("m/1/" + name, content));
  ASSERT_FALSE(weights.ok()) << name;
  EXPECT_EQ(weights.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(weights.status().message(), HasSubstr(why));
  EXPECT_THAT(weights.status().message(), HasSubstr("'m/1/" + name + "'"));
}

// The 8 bytes before a safetensors header.
std::string Length(std::uint64_t length) { return {reinterpret_cast<const char*>(&length), sizeof length}; }

TEST(WeightsFile, SaysWhatAFileIsInstead) {
  const TempDir dir;
  const auto expect = [&](std::string_view content, const std::string& why) { ExpectRefusal(dir, "w.bin", content, why); };
  for (const char* pickle : {"\x80\x02}q.", "\x80\x03}q.", "\x80\x04}q.", "\x80\x05}q."}) expect(pickle, "hearth pack");
  expect("\x1f\x8b\x08 packed", "unpack it first");
  expect(std::string(257, 'x') + "ustar" + std::string(100, '\0'), "hearth pack");
  expect("hello world, I am no weights", "safetensors");
}

TEST(WeightsFile, ADamagedSafetensorsIsToldWhatIsWrongWithIt) {
  const TempDir dir;
  const auto expect = [&](std::string_view content, const std::string& why) {
    ExpectRefusal(dir, "w.safetensors", content, why);
  };
  const std::string header = R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})";
  expect(Length((1ULL << 63) - 1) + header + "x", "says that its safetensors header has 9223372036854775807 bytes; at most");
  expect(Length(1ULL << 63) + header + "x", "says that its safetensors header has 9223372036854775808 bytes; at most");
  expect(Length(120'000'000) + header + "x", "at most 100000000 are allowed");
  expect(Length(5000) + header + "x", StrCat("has 5000 bytes, and ends after ", header.size() + 1, " of them"));
  expect(Length(header.size()) + header.substr(0, 20), "ends after 20 of them: is the file complete?");
  expect(Length(header.size()).substr(0, 5), "does not begin with the length of a header");
  expect("hello world, I am no weights", "does not begin with the length of a header");
}

TEST(WeightsFile, WhatWasNotDownloadedIsNamedWhateverItIsCalled) {
  const TempDir dir;
  for (const char* name : {"w.safetensors", "w.bin", "w.h5"}) {
    ExpectRefusal(dir, name, "version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull");
    ExpectRefusal(dir, name, "\n<html><head><title>403</title>", "was the download refused?");
    ExpectRefusal(dir, name, "\x1f\x8b\x08 packed", "unpack it first");
  }
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
