#include "server/frontend/json_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

#include "server/frontend/json_writer.h"
#include "server/frontend/utf8.h"

namespace hearth {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// What is wrong with a whole text; empty: nothing.
std::string Mistake(std::string_view text) {
  JsonReader json(text);
  absl::Status status = json.Skip();
  if (status.ok()) status = json.End();
  return std::string(status.message());
}

std::string Text(std::string_view json) {
  const auto text = JsonReader(json).String();
  return text.ok() ? *text : std::string(text.status().message());
}

TEST(JsonReader, TakesWhatJsonHas) {
  for (const char* text : {"null", " true\n", "false", "0", "-0.5e+3", "12E9", "\"\"", "[]", "{}", "[1,[2,{\"a\":null}]]",
                           "{\"a\" : [ ] , \"b\":{}}", "NaN", "[-Infinity,Infinity]"}) {
    EXPECT_EQ(Mistake(text), "") << text;
  }
}

TEST(JsonReader, RefusesWhatJsonHasNotAndSaysWhere) {
  for (const char* text : {"", " ", "nul", "True", "01", "-", "1.", ".5", "+1", "1e", "[1,]", "[1 2]", "[", "{\"a\"}", "{\"a\":}",
                           "{a:1}", "{\"a\":1,}", "\"", "\"\\x\"", "\"\\u12\"", "\"a\nb\"", "1 2", "]", "Nan", "infinity",
                           "\"\\ud800\"", "\"\\ud800\\u0041\"", "\"\\udc00\"", "\"\xff\"", "\"\xc0\xaf\"", "\"\xed\xa0\x80\""}) {
    EXPECT_THAT(Mistake(text), HasSubstr("at byte ")) << text;
  }
}

TEST(JsonReader, ReadsStringsWithTheirEscapes) {
  EXPECT_EQ(Text(R"("plain")"), "plain");
  EXPECT_EQ(Text(R"("\"\\\/\b\f\n\r\t")"), "\"\\/\b\f\n\r\t");
  EXPECT_EQ(Text(R"("\u0041\u00e9\u20ac\ud83d\ude00")"), "Aé€😀");
  EXPECT_EQ(Text("\"zażółć\""), "zażółć");
}

TEST(JsonReader, ReadsWholeNumbersInRangeOnly) {
  EXPECT_EQ(JsonReader("-9223372036854775808").Int64().value(), std::numeric_limits<std::int64_t>::min());
  EXPECT_EQ(JsonReader("18446744073709551615").UInt64().value(), std::numeric_limits<std::uint64_t>::max());
  for (const char* text : {"9223372036854775808", "1.0", "1e3", "NaN"}) EXPECT_FALSE(JsonReader(text).Int64().ok()) << text;
  EXPECT_FALSE(JsonReader("-1").UInt64().ok());
}

TEST(JsonReader, GoesNoDeeperThanItsLimit) {
  const auto nested = [](int depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_EQ(Mistake(nested(JsonReader::kMaxDepth)), "");
  EXPECT_THAT(Mistake(nested(JsonReader::kMaxDepth + 1)), HasSubstr("more than 64 levels"));
  EXPECT_THAT(Mistake(std::string(1 << 20, '[')), HasSubstr("more than 64 levels"));
}

TEST(JsonReader, HandsOverMembersAndElementsAsTheyCome) {
  JsonReader json(R"({"a": [1, 2], "b": "x"})");
  std::vector<std::string> seen;
  ASSERT_TRUE(json.Object([&](const std::string& key) -> absl::Status {
                    seen.push_back(key);
                    if (key == "b") return json.Skip();
                    return json.Array([&]() -> absl::Status {
                      HEARTH_ASSIGN_OR_RETURN(const std::string_view number, json.Number());
                      seen.emplace_back(number);
                      return absl::OkStatus();
                    });
                  }).ok());
  EXPECT_THAT(seen, ElementsAre("a", "1", "2", "b"));
}

TEST(JsonWriter, WhatItWritesIsReadBackTheSame) {
  for (const std::string& text : {std::string("plain"), std::string("\"\\\n\x01\x1f\0", 7), std::string("zażółć 😀")}) {
    std::string json;
    AppendJsonString(text, json);
    EXPECT_EQ(Text(json), text);
  }
}

TEST(JsonWriter, BytesThatAreNoTextBecomeReplacementCharacters) {
  std::string json;
  AppendJsonString("a\xff\xc3\xa9\xe2\x82", json);
  EXPECT_EQ(json, "\"a\xEF\xBF\xBD\xc3\xa9\xEF\xBF\xBD\xEF\xBF\xBD\"");
}

TEST(JsonWriter, NumbersHaveAsFewDigitsAsReadBackTheSame) {
  std::string json;
  AppendJsonNumber(0.1f, json);
  AppendJsonString("", json);
  AppendJsonNumber(0.1, json);
  AppendJsonString("", json);
  AppendJsonNumber(-std::numeric_limits<float>::infinity(), json);
  EXPECT_EQ(json, "0.1\"\"0.1\"\"-Infinity");
}

TEST(Utf8, KnowsWhatIsWellFormed) {
  for (const char* text : {"", "a", "é", "€", "😀", "\xf4\x8f\xbf\xbf", "\xed\x9f\xbf"}) EXPECT_TRUE(IsUtf8(text)) << text;
  for (const char* text : {"\x80", "\xc3", "\xc0\x80", "\xe0\x80\x80", "\xed\xa0\x80", "\xf0\x80\x80\x80", "\xf4\x90\x80\x80",
                           "\xf5\x80\x80\x80", "\xe2\x82", "a\xff"}) {
    EXPECT_FALSE(IsUtf8(text));
  }
}

}  // namespace
}  // namespace hearth
