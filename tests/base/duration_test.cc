#include "server/base/duration.h"

#include <gtest/gtest.h>

namespace hearth {
namespace {

using namespace std::chrono_literals;

TEST(ParseDuration, KnowsItsUnits) {
  EXPECT_EQ(*ParseDuration("250ms"), 250ms);
  EXPECT_EQ(*ParseDuration("10s"), 10s);
  EXPECT_EQ(*ParseDuration("1.5s"), 1500ms);
  EXPECT_EQ(*ParseDuration("5m"), 5min);
  EXPECT_EQ(*ParseDuration("1h"), 1h);
  EXPECT_EQ(*ParseDuration("1h30m"), 90min);
  EXPECT_EQ(*ParseDuration("3us"), 3us);
  EXPECT_EQ(*ParseDuration("7ns"), 7ns);
  EXPECT_EQ(*ParseDuration("0s"), 0s);
  EXPECT_EQ(*ParseDuration("0"), 0s);
}

TEST(ParseDuration, RefusesEverythingElseAndSaysWhatToWrite) {
  for (const char* text :
       {"", "10", "s", "-1s", "1d", "10 s", "1..5s", "1s ", "inf", "99999999999h", "1e3s", "s1"}) {
    const auto duration = ParseDuration(text);
    ASSERT_FALSE(duration.ok()) << text;
    EXPECT_NE(duration.status().message().find("such as 250ms"), absl::string_view::npos);
  }
}

TEST(FormatDuration, IsReadBackAsTheSameTime) {
  EXPECT_EQ(FormatDuration(0s), "0s");
  EXPECT_EQ(FormatDuration(90s), "90s");
  EXPECT_EQ(FormatDuration(5min), "5m");
  EXPECT_EQ(FormatDuration(2h), "2h");
  EXPECT_EQ(FormatDuration(1500ms), "1500ms");
  EXPECT_EQ(FormatDuration(7ns), "7ns");
  for (const Duration d :
       {Duration(0s), Duration(1ns), Duration(61s), Duration(25h), Duration(1001us)}) {
    EXPECT_EQ(*ParseDuration(FormatDuration(d)), d);
  }
}

TEST(RoughDuration, IsShortAndNeverSaysSixty) {
  const std::pair<Duration, const char*> cases[] = {
      {0s, "0us"},    {850us, "850us"},   {12ms, "12ms"},      {999700us, "1.0s"}, {4600ms, "4.6s"},
      {9960ms, "10s"}, {59600ms, "1m"},   {40min, "40m"},      {3590s, "1h 00m"},  {125min, "2h 05m"},
      {1439min, "23h 59m"}, {24h, "1d 00h"}, {76h, "3d 04h"}, {-5s, "0us"}};
  for (const auto& [duration, text] : cases) EXPECT_EQ(RoughDuration(duration), text);
}

}  // namespace
}  // namespace hearth
