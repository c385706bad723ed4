#include "server/base/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <thread>
#include <vector>

namespace hearth {
namespace {

using ::testing::HasSubstr;
using ::testing::MatchesRegex;

class Log : public ::testing::Test {
 protected:
  void TearDown() override { log::Configure(log::Level::kInfo, log::Format::kText); }

  // What `write` makes of a line, without the time in front.
  template <typename Fn>
  static std::string Logged(log::Format format, Fn write) {
    log::Configure(log::Level::kInfo, format);
    ::testing::internal::CaptureStderr();
    write();
    return ::testing::internal::GetCapturedStderr();
  }
  template <typename Fn>
  static std::string Text(Fn write) {
    return Logged(log::Format::kText, write);
  }
  template <typename Fn>
  static std::string Json(Fn write) {
    return Logged(log::Format::kJson, write);
  }
};

TEST_F(Log, WritesATextLineWithTimeLevelMessageAndFields) {
  const std::string line = Text([] {
    log::Info("model ready", {{"model", "vad"}, {"version", 1}, {"load_ms", 3.75}, {"pin", true}});
  });
  EXPECT_THAT(line, MatchesRegex("....-..-..T..:..:......Z info model ready model=vad version=1 "
                                 "load_ms=3.75 pin=true\n"));
}

TEST_F(Log, WritesAJsonObjectALine) {
  const std::string line = Json([] {
    log::Warning("slow", {{"model", "vad"}, {"version", 1}, {"load_ms", 3.75}, {"pin", false}});
  });
  EXPECT_THAT(line, MatchesRegex("\\{\"ts\":\"....-..-..T..:..:.........Z\",\"level\":\"warning\","
                                 "\"msg\":\"slow\",\"model\":\"vad\",\"version\":1,"
                                 "\"load_ms\":3.75,\"pin\":false\\}\n"));
}

TEST_F(Log, QuotesTextValuesThatWouldRunIntoTheNext) {
  const std::string line = Text(
      [] { log::Info("m", {{"a", "two words"}, {"b", "x=y"}, {"c", ""}, {"d", "say \"hi\""}}); });
  EXPECT_THAT(line, HasSubstr("m a=\"two words\" b=\"x=y\" c=\"\" d=\"say \\\"hi\\\"\"\n"));
}

TEST_F(Log, NeverLetsAValueStartALineOfItsOwn) {
  const std::string forged = "x\n2026-01-01T00:00:00.000Z info forged\r\x1b[31m\x7f";
  for (const log::Format format : {log::Format::kText, log::Format::kJson}) {
    const std::string line = Logged(format, [&] { log::Info(forged, {{"name", forged}}); });
    EXPECT_EQ(line.find('\n'), line.size() - 1);
    EXPECT_EQ(line.find_first_of("\r\x1b\x7f"), std::string::npos);
    EXPECT_THAT(line,
                HasSubstr("x\\n2026-01-01T00:00:00.000Z info forged\\u000d\\u001b[31m\\u007f"));
  }
}

TEST_F(Log, EscapesWhatJsonCannotHold) {
  const std::string line = Json([] {
    log::Info("quote \" and \\ and \t", {{"utf8", "grüße €\xf0\x9f\x94\xa5"},
                                         {"broken", "a\xff\xc3(\xe2\x82"},
                                         {"overlong", "\xc0\xaf\xed\xa0\x80"}});
  });
  EXPECT_THAT(line, HasSubstr("\"msg\":\"quote \\\" and \\\\ and \\t\""));
  EXPECT_THAT(line, HasSubstr("\"utf8\":\"grüße €\xf0\x9f\x94\xa5\""));
  EXPECT_THAT(line, HasSubstr("\"broken\":\"a\\ufffd\\ufffd(\\ufffd\\ufffd\""));
  EXPECT_THAT(line, HasSubstr("\"overlong\":\"\\ufffd\\ufffd\\ufffd\\ufffd\\ufffd\""));
}

TEST_F(Log, KeepsNumbersWholeAndQuotesThoseJsonDoesNotHave) {
  const std::string line = Json([] {
    log::Info("n", {{"max", std::numeric_limits<std::uint64_t>::max()},
                    {"min", std::numeric_limits<std::int64_t>::min()},
                    {"nan", std::numeric_limits<double>::quiet_NaN()},
                    {"inf", std::numeric_limits<float>::infinity()}});
  });
  EXPECT_THAT(line, HasSubstr("\"max\":18446744073709551615,\"min\":-9223372036854775808,"
                              "\"nan\":\"nan\",\"inf\":\"inf\"}"));
}

TEST_F(Log, RoundsNumbersToThreeDecimalsAndWritesNoExponents) {
  for (const log::Format format : {log::Format::kText, log::Format::kJson}) {
    const std::string line = Logged(format, [] {
      log::Info("n", {{"a", 31.9197},
                      {"b", 5.1e-05},
                      {"c", 3.6609369999999997},
                      {"d", 1e21},
                      {"e", -1e-9},
                      {"f", 30.0},
                      {"g", 100.0F}});
    });
    const bool json = format == log::Format::kJson;
    EXPECT_THAT(line, HasSubstr(json ? "\"a\":31.92,\"b\":0,\"c\":3.661,"
                                       "\"d\":1000000000000000000000,\"e\":0,\"f\":30,\"g\":100}"
                                     : "a=31.92 b=0 c=3.661 d=1000000000000000000000 "
                                       "e=0 f=30 g=100\n"));
  }
}

TEST_F(Log, LeavesOutWhatIsBelowItsLevel) {
  log::Configure(log::Level::kWarning, log::Format::kText);
  ::testing::internal::CaptureStderr();
  log::Debug("one");
  log::Info("two");
  log::Warning("three");
  log::Error("four");
  const std::string lines = ::testing::internal::GetCapturedStderr();
  EXPECT_THAT(lines, MatchesRegex(".*Z warning three\n.*Z error four\n"));
  EXPECT_FALSE(log::Enabled(log::Level::kInfo));
  EXPECT_TRUE(log::Enabled(log::Level::kError));
}

TEST_F(Log, KeepsLinesOfSeveralThreadsApart) {
  const std::string lines = Text([] {
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([] {
        for (int j = 0; j < 50; ++j) log::Info("a line", {{"key", "a value of some length"}});
      });
    }
    for (std::thread& thread : threads) thread.join();
  });
  std::size_t count = 0;
  std::size_t start = 0;
  for (std::size_t end; (end = lines.find('\n', start)) != std::string::npos; start = end + 1) {
    EXPECT_TRUE(
        lines.substr(start, end - start).ends_with("Z info a line key=\"a value of some length\""));
    ++count;
  }
  EXPECT_EQ(count, 200u);
}

}  // namespace
}  // namespace hearth
