#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "server/storage/hdf5.h"
#include "tests/storage/files.h"

namespace hearth {
namespace {

using ::testing::HasSubstr;

// Over a file of 100 bytes; the last line is added.
absl::StatusOr<Weights> Parse(const std::string& lines, std::size_t names = 1) {
  static const std::vector<std::byte> file(100, std::byte{1});
  return hdf5_internal::ParseListing(StrCat(lines, "\n{\"end\":", names, "}\n"), file);
}
void ExpectRefused(const std::string& lines, const std::string& why) {
  const auto weights = Parse(lines);
  ASSERT_FALSE(weights.ok()) << lines;
  EXPECT_EQ(weights.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(weights.status().message(), HasSubstr(why)) << lines;
}
std::string Set(const std::string& rest, const std::string& type = "float32") {
  return R"({"name":"a","type":")" + type + R"(",)" + rest + "}";
}
std::string Chunked(const std::string& rows, const std::string& filters = "") {
  return Set(R"("shape":[4,6],"chunk":[3,4],"filters":[)" + filters + "]") + "\n" + R"({"chunks":[)" + rows + "]}";
}
constexpr const char* kSenseless = "makes no sense";

TEST(Hdf5Listing, PlainLinesAreTaken) {
  EXPECT_TRUE(Parse(Set(R"("shape":[5,5],"offset":0)")).ok());
  EXPECT_TRUE(Parse(Set(R"("shape":[0,9223372036854775807],"offset":1000)")).ok());
  EXPECT_TRUE(Parse(Chunked("[0,0,0,48,0],[3,4,52,48,0]")).ok());
  EXPECT_TRUE(Parse(Chunked("[0,0,0,1,0]", R"("shuffle","deflate")")).ok());
  EXPECT_TRUE(Parse(R"({"name":"a","skipped":"text"})").ok());
}

TEST(Hdf5Listing, BytesLieInTheFile) {
  ExpectRefused(Set(R"("shape":[5,5],"offset":1)"), "cut short");
  ExpectRefused(Set(R"("shape":[1],"offset":18446744073709551615)"), "cut short");
  ExpectRefused(Set(R"("shape":[1],"offset":-1)"), kSenseless);
  ExpectRefused(Chunked("[0,0,53,48,0]"), "cut short");
  ExpectRefused(Chunked("[0,0,18446744073709551615,48,0]"), "cut short");
}

TEST(Hdf5Listing, ShapesCanBeCounted) {
  ExpectRefused(Set(R"("shape":[4294967296,4294967296],"offset":0)"), "impossible shape");
  ExpectRefused(Set(R"("shape":[2305843009213693952])"), "impossible shape");
  ExpectRefused(Set(R"("shape":[18446744073709551615])"), kSenseless);
  ExpectRefused(Set(R"("shape":[1.5])"), kSenseless);
  ExpectRefused(Set(R"("shape":5)"), kSenseless);
  ExpectRefused(Set(R"("offset":0)"), kSenseless);
  const std::string half = Set(R"("shape":[1152921504606846976])");
  ExpectRefused(half + "\n" + R"({"name":"b",)" + half.substr(12), "impossible shape");
}

TEST(Hdf5Listing, TypesAreKnown) {
  ExpectRefused(Set(R"("shape":[1],"offset":0)", "float31"), kSenseless);
  ExpectRefused(Set(R"("shape":[1],"offset":0)", ""), kSenseless);
}

TEST(Hdf5Listing, FillAndInlineBytesHaveTheirSize) {
  EXPECT_TRUE(Parse(Set(R"("shape":[1],"inline":"0000803f")")).ok());
  ExpectRefused(Set(R"("shape":[2],"inline":"0000803f")"), kSenseless);
  ExpectRefused(Set(R"("shape":[1],"inline":"0000803")"), kSenseless);
  ExpectRefused(Set(R"("shape":[1],"inline":"0000803x")"), kSenseless);
  ExpectRefused(Set(R"("shape":[2],"fill":"00")"), kSenseless);
}

TEST(Hdf5Listing, ChunksLieInTheirDataSetEachOnce) {
  ExpectRefused(Chunked("[1,0,0,48,0]"), "does not lie in it");
  ExpectRefused(Chunked("[0,8,0,48,0]"), "does not lie in it");
  ExpectRefused(Chunked("[0,0,48,0]"), "does not lie in it");
  ExpectRefused(Chunked("[0,0,0,48,0],[0,4,0,48,0],[0,0,0,48,0]"), "same place");
  ExpectRefused(Chunked("[0]"), kSenseless);
  ExpectRefused(Chunked("7"), kSenseless);
  ExpectRefused(R"({"chunks":[[0,0,0,48,0]]})", kSenseless);
  ExpectRefused(Set(R"("shape":[1],"offset":0)") + "\n" + R"({"chunks":[[0,0,4,0]]})", kSenseless);
}

TEST(Hdf5Listing, ChunksHaveTheBytesOfTheirShape) {
  ExpectRefused(Chunked("[0,0,0,47,0]"), "do not go with its shape");
  ExpectRefused(Chunked("[0,0,0,4294967344,0]"), kSenseless);
  ExpectRefused(Chunked("[0,0,0,47,1]", R"("deflate")"), "do not go with its shape");
  ExpectRefused(Set(R"("shape":[9999],"chunk":[9999],"filters":["deflate"])") + "\n" + R"({"chunks":[[0,0,10,0]]})",
                "do not go with its shape");
}

TEST(Hdf5Listing, ShapesOfChunksMakeSense) {
  for (const char* chunk : {"[0,4]", "[100000,100000]", "[9223372036854775807,9223372036854775807]"}) {
    ExpectRefused(Set(StrCat(R"("shape":[4,6],"filters":[],"chunk":)", chunk)), "impossible shape");
  }
  ExpectRefused(Set(R"("shape":[],"filters":[],"chunk":[])"), "impossible shape");
  ExpectRefused(Set(R"("shape":[4,6],"filters":[],"chunk":[4])"), kSenseless);
  ExpectRefused(Set(R"("shape":[4],"chunk":[4])"), kSenseless);
  ExpectRefused(Set(R"("shape":[4],"filters":["lzf"],"chunk":[4])"), kSenseless);
  ExpectRefused(Set(R"("shape":[4],"filters":["deflate","shuffle"],"chunk":[4])"), "order");
  ExpectRefused(Set(R"("shape":[4],"filters":["deflate","deflate"],"chunk":[4])"), "order");
}

// 100 bytes that claim to become 100 MB, a thousand times over, of which one element is wanted.
TEST(Hdf5Listing, ABombIsRefusedBeforeItIsUnpacked) {
  std::string lines;
  for (int i = 0; i < 15'000; ++i) {
    lines += StrCat(R"({"name":"n)", i, R"(","type":"uint8","shape":[1],"filters":["deflate"],"chunk":[100000]})",
                    "\n", R"({"chunks":[[0,0,97,0]]})", "\n");
  }
  const auto weights = Parse(lines, 15'000);
  EXPECT_THAT(weights.status().message(), HasSubstr("far larger than what is in them"));
}

TEST(Hdf5Listing, UnpackingChecksWhatTheListClaims) {
  const auto weights = Parse(Chunked("[0,0,0,40,0]", R"("deflate")"));
  ASSERT_TRUE(weights.ok()) << weights.status();
  std::vector<std::byte> out(4 * 6 * 4);
  const absl::Status unpacked = UnpackAll(weights->storages[0], out);
  EXPECT_EQ(unpacked.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(unpacked.message(), HasSubstr("'a': its packed bytes are damaged"));
}

TEST(Hdf5Listing, EndsAsItShould) {
  const std::string one = Set(R"("shape":[1],"offset":0)");
  EXPECT_THAT(Parse(one, 2).status().message(), HasSubstr(kSenseless));
  EXPECT_THAT(hdf5_internal::ParseListing(one, {}).status().message(), HasSubstr("cut short"));
  EXPECT_THAT(hdf5_internal::ParseListing("", {}).status().message(), HasSubstr("too soon"));
  EXPECT_THAT(hdf5_internal::ParseListing("{\"end\":0}\n{\"end\":0}\n", {}).status().message(), HasSubstr(kSenseless));
  EXPECT_THAT(hdf5_internal::ParseListing("{\"error\":\"is odd\"}\n", {}).status().message(), HasSubstr("is odd"));
  ExpectRefused("[]", kSenseless);
  ExpectRefused("{", kSenseless);
  ExpectRefused(std::string(2'000'000, '['), kSenseless);
  ExpectRefused(std::string(900'000, '['), kSenseless);
}

}  // namespace
}  // namespace hearth
