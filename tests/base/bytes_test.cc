#include "server/base/bytes.h"

#include <gtest/gtest.h>

namespace hearth {
namespace {

TEST(ParseBytes, KnowsBinaryAndDecimalUnits) {
  EXPECT_EQ(*ParseBytes("0"), 0u);
  EXPECT_EQ(*ParseBytes("4096"), 4096u);
  EXPECT_EQ(*ParseBytes("7B"), 7u);
  EXPECT_EQ(*ParseBytes("1KiB"), 1024u);
  EXPECT_EQ(*ParseBytes("512 MiB"), 512u << 20);
  EXPECT_EQ(*ParseBytes("12GiB"), 12ull << 30);
  EXPECT_EQ(*ParseBytes("2TiB"), 2ull << 40);
  EXPECT_EQ(*ParseBytes("1kB"), 1000u);
  EXPECT_EQ(*ParseBytes("1.5GB"), 1'500'000'000u);
  EXPECT_EQ(*ParseBytes("  3 TB "), 3'000'000'000'000u);
}

TEST(ParseBytes, TakesUnitsInAnyCase) {
  EXPECT_EQ(*ParseBytes("12 gib"), 12ull << 30);
  EXPECT_EQ(*ParseBytes("3KB"), 3000u);
  EXPECT_EQ(*ParseBytes("33mb"), 33'000'000u);
  EXPECT_EQ(*ParseBytes("7b"), 7u);
}

TEST(ParseBytes, IsExactForWholeNumbers) {
  EXPECT_EQ(*ParseBytes("9007199254740993"), 9007199254740993u);  // 2^53 + 1
  EXPECT_EQ(*ParseBytes("4503599627370497 KiB"), 4503599627370497u * 1024);
}

TEST(ParseBytes, RefusesEverythingElseAndSaysWhatToWrite) {
  for (const char* text : {"", "GiB", "-1", "1.2.3", "12 gigs", "12GiB!", "1 2", "0x10", "1e3",
                           "nan", "9999999999 GiB", "99999999999999999999999", "."}) {
    const auto bytes = ParseBytes(text);
    ASSERT_FALSE(bytes.ok()) << text << " = " << *bytes;
    EXPECT_NE(bytes.status().message().find("such as 512MiB or 12GiB"), absl::string_view::npos);
  }
}

TEST(FormatBytes, ShowsThreeDigits) {
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(1023), "1023 B");
  EXPECT_EQ(FormatBytes(1024), "1.00 KiB");
  EXPECT_EQ(FormatBytes(10 * 1024 + 512), "10.5 KiB");
  EXPECT_EQ(FormatBytes(412ull << 20), "412 MiB");
  EXPECT_EQ(FormatBytes((1ull << 20) - 1), "1.00 MiB");
  EXPECT_EQ(FormatBytes(12ull << 30), "12.0 GiB");
  EXPECT_EQ(FormatBytes(~0ull), "16384 PiB");
}

TEST(FormatBytesExactly, IsReadBackAsTheSameNumber) {
  EXPECT_EQ(FormatBytesExactly(0), "0");
  EXPECT_EQ(FormatBytesExactly(12ull << 30), "12GiB");
  EXPECT_EQ(FormatBytesExactly(1536ull << 20), "1536MiB");
  EXPECT_EQ(FormatBytesExactly(4ull << 40), "4TiB");
  EXPECT_EQ(FormatBytesExactly(1000), "1000");
  for (const std::uint64_t bytes : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{1025},
                                    std::uint64_t{3} << 33, (std::uint64_t{1} << 62) + 1}) {
    EXPECT_EQ(*ParseBytes(FormatBytesExactly(bytes)), bytes);
  }
}

}  // namespace
}  // namespace hearth
