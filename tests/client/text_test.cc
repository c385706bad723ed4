// What people see: tables, quantities, tensors.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <numeric>

#include "client/render.h"
#include "client/table.h"
#include "client/tensor.h"
#include "client/units.h"
#include "client/utf8.h"

namespace hearth::client {
namespace {

using ::testing::HasSubstr;

TEST(Table, AlignsColumnsByWhatIsSeen) {
  Table table({"NAME", ">BYTES", "STATE"});
  table.Add({std::string("gr\u00fcn"), std::string("5"), std::string("ready")});
  table.Add({std::string("longer name"), std::string("12345"), std::string("")});
  EXPECT_EQ(table.Format(false),
            "NAME         BYTES  STATE\n"
            "gr\u00fcn             5  ready\n"
            "longer name  12345\n");
}

TEST(Table, PaintsWithoutMovingAnything) {
  Table table({"A", "B"});
  table.Add({{"x", Tone::kGood}, std::string("y")});
  EXPECT_EQ(table.Format(true), "\x1b[1mA\x1b[0m  \x1b[1mB\x1b[0m\n\x1b[32mx\x1b[0m  y\n");
}

TEST(Table, DisarmsControlCharacters) {
  Table table({"A"});
  table.Add({std::string("\x1b]0;title\a\n")});
  EXPECT_EQ(table.Format(false), "A\n\\x1b]0;title\\x07\\n\n");
}

TEST(Table, GivesEachLineOfATextARowExceptInTheFirstColumn) {
  Table table({"MODEL", "REASON", ">N"});
  table.Add({std::string("bad\nok"), {"one\ntwo \t\n", Tone::kBad}, std::string("12345")});
  table.Add({std::string("good"), std::string(""), std::string("1")});
  EXPECT_EQ(table.Format(false),
            "MODEL    REASON      N\n"
            "bad\\nok  one     12345\n"
            "         two \\t\n"
            "good                 1\n");
  EXPECT_THAT(table.Format(true), HasSubstr("\n         \x1b[31mtwo \\t\x1b[0m\n"));
}

TEST(Units, FormatsBytesInBinaryUnits) {
  EXPECT_EQ(FormatBytes(0), "0");
  EXPECT_EQ(FormatBytes(1023), "1023 B");
  EXPECT_EQ(FormatBytes(1536), "1.5 KiB");
  EXPECT_EQ(FormatBytes(1048575), "1.0 MiB");
  EXPECT_EQ(FormatBytes(std::uint64_t{2} << 30), "2.0 GiB");
  EXPECT_EQ(FormatBytes(std::numeric_limits<std::uint64_t>::max()), "16.0 EiB");
}

TEST(Units, FormatsDurationsByTheirSize) {
  EXPECT_EQ(FormatSeconds(0.00085), "850 us");
  EXPECT_EQ(FormatSeconds(0.0123), "12.3 ms");
  EXPECT_EQ(FormatSeconds(4.557), "4.56 s");
  EXPECT_EQ(FormatSeconds(59.999), "1m 00s");
  EXPECT_EQ(FormatSeconds(125), "2m 05s");
  EXPECT_EQ(FormatSeconds(11220), "3h 07m");
  EXPECT_EQ(FormatSeconds(187200), "2d 04h");
}

TEST(Units, FormatsAgesRoughly) {
  EXPECT_EQ(FormatAge(-3), "just now");
  EXPECT_EQ(FormatAge(12.9), "12s ago");
  EXPECT_EQ(FormatAge(300), "5m ago");
  EXPECT_EQ(FormatAge(7300), "2h ago");
  EXPECT_EQ(FormatAge(200000), "2d ago");
}

TEST(Units, ParsesDurationsAsPeopleWriteThem) {
  using std::chrono::milliseconds;
  EXPECT_EQ(ParseDuration("30s"), milliseconds(30000));
  EXPECT_EQ(ParseDuration("500ms"), milliseconds(500));
  EXPECT_EQ(ParseDuration("1.5h"), milliseconds(5400000));
  EXPECT_EQ(ParseDuration("2m"), milliseconds(120000));
  EXPECT_EQ(ParseDuration("7"), milliseconds(7000));
  for (const char* text : {"", "s", "-1s", "0", "3 s", "3x", "nan", "inf", "1e300h"}) {
    EXPECT_FALSE(ParseDuration(text)) << text;
  }
}

TEST(Utf8, KnowsWhatIsWellFormed) {
  EXPECT_TRUE(IsUtf8("plain gr\u00fcn \u65e5 \U0001F600"));
  for (const char* text : {"\x80", "\xC0\xAF", "\xE0\x80\x80", "\xED\xA0\x80", "\xF4\x90\x80\x80", "\xF0\x9F",
                           "a\xFF"}) {
    EXPECT_FALSE(IsUtf8(text)) << testing::PrintToString(text);
  }
}

TEST(Utf8, EncodesEveryCodePointAsItIsRecognised) {
  for (char32_t c = 0; c < 0x110010; c += 13) {
    std::string text;
    const bool valid = c <= 0x10FFFF && !(c >= 0xD800 && c <= 0xDFFF);
    ASSERT_EQ(AppendUtf8(c, text), valid) << static_cast<std::uint32_t>(c);
    ASSERT_TRUE(IsUtf8(text));
    ASSERT_EQ(DisplayWidth(text), valid ? 1U : 0U);
  }
}

TEST(RenderTensor, NestsListsLineByLine) {
  EXPECT_EQ(RenderTensor(MakeTensor<float>({}, {0.1F}), false), "0.1");
  EXPECT_EQ(RenderTensor(MakeTensor<std::int32_t>({2, 2}, {1, 2, 3, 4}), false), "[[1, 2],\n [3, 4]]");
  EXPECT_EQ(RenderTensor({DataType::kFp32, {0, 3}, ""}, false), "[]");
  EXPECT_EQ(RenderTensor(MakeBytesTensor({2}, {"a\"b", "\n\xFF"}), false), R"(["a\"b", "\n\xff"])");
}

TEST(RenderTensor, ElidesTheMiddleOfWhatIsLong) {
  std::vector<std::int32_t> values(100);
  std::iota(values.begin(), values.end(), 0);
  EXPECT_EQ(RenderTensor(MakeTensor({1, 100}, values), false), "[[0, 1, 2, ... 94 more ..., 97, 98, 99]]");
  EXPECT_EQ(RenderTensor(MakeTensor({50, 2}, values), false),
            "[[0, 1],\n [2, 3],\n [4, 5],\n ... 44 more ...,\n [94, 95],\n [96, 97],\n [98, 99]]");
  EXPECT_THAT(RenderTensor(MakeTensor({100}, values), true), HasSubstr("49, 50, 51"));
  EXPECT_THAT(RenderTensor(MakeBytesTensor({1}, {std::string(99, 'x')}), false), HasSubstr("... (99 bytes)"));
}

TEST(TensorData, WritesNumbersShortAndNonNumbersAsWords) {
  const float infinity = std::numeric_limits<float>::infinity();
  const Tensor tensor =
      MakeTensor<float>({4}, {0.1F, infinity, -infinity, std::numeric_limits<float>::quiet_NaN()});
  EXPECT_EQ(TensorData(tensor).dump(), R"([0.1,"Infinity","-Infinity","NaN"])");
  EXPECT_EQ(TensorData({DataType::kBool, {2}, std::string("\1\0", 2)}).dump(), "[true,false]");
  EXPECT_EQ(TensorData(MakeTensor<std::uint64_t>({1}, {18446744073709551615U})).dump(),
            "[18446744073709551615]");
  EXPECT_EQ(TensorData(MakeBytesTensor({2}, {"text", "\xFF\xFE"})).dump(), R"(["text",{"b64":"//4="}])");
}

TEST(DumpJson, KeepsListsOfPlainValuesOnOneLine) {
  EXPECT_EQ(DumpJson({{"a", {1, 2}}, {"b", {{{"c", "\xFF"}}}}, {"d", nlohmann::ordered_json::object()}}),
            "{\n  \"a\": [1,2],\n  \"b\": [\n    {\n      \"c\": \"\ufffd\"\n    }\n  ],\n  \"d\": {}\n}");
}

}  // namespace
}  // namespace hearth::client
