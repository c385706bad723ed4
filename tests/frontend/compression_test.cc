#include "server/frontend/compression.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace hearth {
namespace {

using ::testing::HasSubstr;

std::string Text(const BufferPool::Buffer& buffer) {
  return {reinterpret_cast<const char*>(buffer.bytes.data()), buffer.bytes.size()};
}

class CompressionTest : public testing::TestWithParam<Encoding> {
 protected:
  absl::StatusOr<BufferPool::Buffer> Plain(std::string_view body, std::uint64_t max = 1 << 20) {
    return Decompress(body, GetParam(), max, pool_);
  }
  BufferPool pool_{1 << 20};
};
INSTANTIATE_TEST_SUITE_P(Encodings, CompressionTest, testing::Values(Encoding::kGzip, Encoding::kDeflate),
                         [](const auto& test) { return std::string(ToString(test.param)); });

TEST_P(CompressionTest, WhatIsCompressedComesBack) {
  for (const std::string& text : {std::string(), std::string("a"), std::string(500000, 'x'), std::string(1 << 20, '\0')}) {
    const std::string small = Compress(text, GetParam());
    if (text.size() > 1000) {
      EXPECT_LT(small.size(), text.size() / 50);
    }
    const auto plain = Plain(small);
    ASSERT_TRUE(plain.ok()) << plain.status();
    EXPECT_EQ(Text(*plain), text);
  }
}

TEST_P(CompressionTest, WhatBecomesTooLargeIsRefused) {
  const std::string small = Compress(std::string(1000, 'x'), GetParam());
  EXPECT_TRUE(Plain(small, 1000).ok());
  EXPECT_EQ(Plain(small, 999).status().code(), absl::StatusCode::kOutOfRange);
}

TEST_P(CompressionTest, WhatIsDamagedIsRefused) {
  const std::string whole = Compress("some text that is compressed", GetParam());
  for (std::size_t size = 0; size < whole.size(); ++size) {
    EXPECT_EQ(Plain(whole.substr(0, size)).status().code(), absl::StatusCode::kInvalidArgument) << size;
  }
  EXPECT_THAT(std::string(Plain(whole + "x").status().message()), HasSubstr("something follows it"));
  std::string other = whole;
  other[whole.size() / 2] = static_cast<char>(other[whole.size() / 2] ^ 0x55);
  EXPECT_FALSE(Plain(other).ok());
  EXPECT_THAT(std::string(Plain("plain").status().message()), HasSubstr("the body is not "));
}

TEST(Encodings, AreReadAsHttpHasThem) {
  EXPECT_EQ(ParseEncoding("GZip "), Encoding::kGzip);
  EXPECT_EQ(ParseEncoding("deflate"), Encoding::kDeflate);
  EXPECT_EQ(ParseEncoding("identity"), Encoding::kIdentity);
  EXPECT_EQ(ParseEncoding("br"), std::nullopt);
  EXPECT_EQ(ParseEncoding("gzip, deflate"), std::nullopt);
}

TEST(Encodings, AreChosenFromWhatAClientTakes) {
  for (const char* accept : {"gzip", "br, GZIP;q=0.5", "deflate, gzip", "deflate,gzip;q=1.0"}) {
    EXPECT_EQ(ChooseEncoding(accept), Encoding::kGzip) << accept;
  }
  for (const char* accept : {"deflate", "gzip;q=0, deflate", "br,deflate;q=0.1"}) {
    EXPECT_EQ(ChooseEncoding(accept), Encoding::kDeflate) << accept;
  }
  for (const char* accept : {"", "br", "gzip;q=0", "gzip; q=0.00", ",,", "identity"}) {
    EXPECT_EQ(ChooseEncoding(accept), Encoding::kIdentity) << accept;
  }
}

}  // namespace
}  // namespace hearth
