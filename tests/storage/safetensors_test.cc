#include "server/storage/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <string>

#include "tests/storage/files.h"

namespace hearth {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A file with this header and so many bytes behind it.
std::string File(const std::string& header, std::size_t data) {
  const std::uint64_t length = header.size();
  std::string file(sizeof length, '\0');
  std::memcpy(file.data(), &length, sizeof length);
  return file + header + std::string(data, '\x01');
}
absl::StatusOr<Weights> Parse(const std::string& file) {
  return safetensors_internal::Parse(testing_files::ToBytes(file));
}
void ExpectRefused(const std::string& file, const std::string& why) {
  const auto weights = Parse(file);
  ASSERT_FALSE(weights.ok());
  EXPECT_EQ(weights.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(weights.status().message(), HasSubstr(why));
}

TEST(Safetensors, TensorsLieInTheFileInTheOrderOfTheirBytes) {
  const std::string header =
      R"({"b":{"dtype":"I64","shape":[2],"data_offsets":[24,40]},"__metadata__":{"format":"pt"},)"
      R"("a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}})";
  const auto weights = Parse(File(header, 40));
  ASSERT_TRUE(weights.ok()) << weights.status();
  ASSERT_EQ(weights->tensors.size(), 2u);
  EXPECT_EQ(weights->tensors[0].name, "a");
  EXPECT_THAT(weights->tensors[0].sizes, ElementsAre(2, 3));
  EXPECT_THAT(weights->tensors[0].strides, ElementsAre(3, 1));
  EXPECT_EQ(weights->tensors[1].type->name, "Long");
  EXPECT_EQ(weights->storages[1].offset, 8 + header.size() + 24);
  EXPECT_EQ(weights->storages[1].size, 16u);
}

TEST(Safetensors, EmptyAndScalarTensorsAndUnicodeNames) {
  const auto weights = Parse(File(R"({"größe":{"dtype":"BF16","shape":[],"data_offsets":[0,2]},)"
                                  R"("none":{"dtype":"F32","shape":[0,7],"data_offsets":[0,0]}})", 2));
  ASSERT_TRUE(weights.ok()) << weights.status();
  EXPECT_EQ(weights->tensors[1].name, "größe");
  EXPECT_TRUE(weights->tensors[1].sizes.empty());
  EXPECT_THAT(weights->tensors[0].sizes, ElementsAre(0, 7));
}

TEST(Safetensors, OnlyTensorsAt64BytesCanBeMapped) {
  const std::string header = R"({"a":{"dtype":"U8","shape":[64],"data_offsets":[0,64]},)"
                             R"("b":{"dtype":"U8","shape":[1],"data_offsets":[64,65]}})";
  const std::string padded = header + std::string((64 - (8 + header.size()) % 64) % 64, ' ');
  EXPECT_EQ(Parse(File(padded, 65))->mapped_bytes(), 65u);
  EXPECT_EQ(Parse(File(" " + padded, 65)).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Parse(File(padded + " ", 65))->copied_bytes(), 65u);
}

TEST(Safetensors, PaddingThatAlignsTensorsIsNoTensor) {
  const std::string a = R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)";
  const std::string b = R"("b":{"dtype":"U8","shape":[4],"data_offsets":[64,68]},)";
  const std::string padding = R"("__padding__0":{"dtype":"U8","shape":[60],"data_offsets":[4,64]}})";
  const auto weights = Parse(File(a + b + padding, 68));
  ASSERT_TRUE(weights.ok()) << weights.status();
  ASSERT_EQ(weights->tensors.size(), 2u);
  EXPECT_EQ(weights->storages.size(), 2u);
  EXPECT_EQ(weights->tensors[1].name, "b");
  EXPECT_EQ(weights->tensors[1].storage, 1u);
  // It has to lie in the file like any other.
  const std::string shorter = R"("__padding__0":{"dtype":"U8","shape":[59],"data_offsets":[4,63]}})";
  ExpectRefused(File(a + b + shorter, 68), "gap");
  // A weight that happens to be called so stays one.
  const std::string weight = R"({"__padding__0":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})";
  EXPECT_EQ(Parse(File(weight, 4))->tensors.size(), 1u);
}

TEST(Safetensors, AChecksumBelongsToTheTensorOfItsName) {
  const std::string digits = "00ff" + std::string(60, 'a');
  const std::string metadata = R"({"__metadata__":{"sha256.a":")" + digits + R"(","sha256.b":"beef","sha256.c":")" +
                               std::string(64, 'g') + R"(","sha256.none":")" + digits + R"(","sha256":")" + digits +
                               R"("},)";
  const auto weights = Parse(File(metadata + R"("a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                                             R"("b":{"dtype":"U8","shape":[1],"data_offsets":[1,2]},)"
                                             R"("c":{"dtype":"U8","shape":[1],"data_offsets":[2,3]},)"
                                             R"("d":{"dtype":"U8","shape":[1],"data_offsets":[3,4]}})", 4));
  ASSERT_TRUE(weights.ok()) << weights.status();
  ASSERT_TRUE(weights->storages[0].checksum.has_value());
  EXPECT_EQ((*weights->storages[0].checksum)[0], 0x00);
  EXPECT_EQ((*weights->storages[0].checksum)[1], 0xff);
  EXPECT_EQ((*weights->storages[0].checksum)[31], 0xaa);
  for (const std::size_t i : {1, 2, 3}) EXPECT_FALSE(weights->storages[i].checksum.has_value()) << i;
}

TEST(Safetensors, RefusesBytesThatNoTensorOrTwoTensorsClaim) {
  const std::string a = R"("a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]})";
  ExpectRefused(File("{" + a + "}", 5), "bytes behind");
  ExpectRefused(File("{" + a + "}", 3), "cut short");
  ExpectRefused(File("{" + a + R"(,"b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}})", 6), "overlap");
  ExpectRefused(File("{" + a + R"(,"b":{"dtype":"U8","shape":[4],"data_offsets":[5,9]}})", 9), "gap");
}

TEST(Safetensors, RefusesNumbersThatDoNotGoTogether) {
  ExpectRefused(File(R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[0,4]}})", 4), "shape [4]");
  ExpectRefused(File(R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[16,0]}})", 16), "shape [4]");
  ExpectRefused(File(R"({"a":{"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", 0),
                "shape");
  ExpectRefused(File(R"({"a":{"dtype":"U8","shape":[18446744073709551615],"data_offsets":[0,1]}})", 1),
                "too large");
  ExpectRefused(File(R"({"a":{"dtype":"F31","shape":[1],"data_offsets":[0,4]}})", 4), "'F31'");
}

TEST(Safetensors, RefusesHeadersThatAreNotOfTheFormat) {
  ExpectRefused(File("{", 0), "which is no header");
  ExpectRefused(File("[]", 0), "does not begin");
  ExpectRefused(File("{]", 0), "not JSON");
  ExpectRefused(File(R"({"a":1})", 0), "does not have there");
  ExpectRefused(File(R"({"a":{"dtype":"U8"}})", 0), "without");
  ExpectRefused(File(R"({"a":{"dtype":"U8","shape":[1.5]}})", 0), "does not have there");
  ExpectRefused(File(R"({"a":{"x":{}}})", 0), "deeper");
  ExpectRefused(File(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                     R"("a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})", 2), "twice");
  ExpectRefused(std::string("\xff\xff\xff\xff\xff\xff\xff\x7f{}", 10), "9223372036854775807 bytes; at most");
}

}  // namespace
}  // namespace hearth
