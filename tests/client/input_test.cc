// What people type after --input: literals and specifications.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "client/input_spec.h"
#include "client/literal.h"
#include "tests/client/fixtures.h"

namespace hearth::client {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(Literal, GuessesATypeFromWhatIsWritten) {
  EXPECT_EQ(ParseLiteral("3", {})->datatype, DataType::kInt64);
  EXPECT_EQ(ParseLiteral("[1, 2.5]", {})->datatype, DataType::kFp32);
  EXPECT_EQ(ParseLiteral("1e3", {})->datatype, DataType::kFp32);
  EXPECT_EQ(ParseLiteral("true", {})->datatype, DataType::kBool);
  EXPECT_EQ(ParseLiteral("\"a\"", {})->datatype, DataType::kBytes);
  EXPECT_THAT(Message(ParseLiteral("[1, true]", {}).status()), HasSubstr("mixes"));
}

TEST(Literal, TakesItsShapeFromTheNesting) {
  EXPECT_TRUE(ParseLiteral("3", {})->shape.empty());
  EXPECT_THAT(ParseLiteral("[]", {})->shape, ElementsAre(0));
  EXPECT_THAT(ParseLiteral("[[], []]", {})->shape, ElementsAre(2, 0));
  const Tensor tensor = *ParseLiteral(" [[1,2,3] , [4, 5,6]] ", {});
  EXPECT_THAT(tensor.shape, ElementsAre(2, 3));
  EXPECT_THAT(*Values<std::int64_t>(tensor), ElementsAre(1, 2, 3, 4, 5, 6));
}

TEST(Literal, RefusesWhatIsNotARectangle) {
  for (const char* text : {"[[1,2],[3]]", "[1,[2]]", "[[1],2]", "[[],[1]]", "[[],[[]]]", "[[[]],[]]", "[1",
                           "[1,]", "[,1]", "[1 2]", "1]", "", "[", "]", "--1", "+1", "0x10", "tru", "1.5.2",
                           "\"open", "\"bad \\q\"", "1 2", "nope"}) {
    EXPECT_FALSE(ParseLiteral(text, {}).ok()) << text;
    EXPECT_FALSE(ParseLiteral(text, DataType::kFp32).ok()) << text;
  }
}

TEST(Literal, RefusesNestingThatNoTensorHas) {
  EXPECT_THAT(Message(ParseLiteral(std::string(100000, '['), {}).status()), HasSubstr("too deep"));
}

TEST(Literal, ReadsIntegersExactly) {
  EXPECT_THAT(*Values<std::int64_t>(*ParseLiteral("[9223372036854775807, -9223372036854775808]", {})),
              ElementsAre(std::numeric_limits<std::int64_t>::max(),
                          std::numeric_limits<std::int64_t>::min()));
  EXPECT_THAT(*Values<std::uint64_t>(*ParseLiteral("18446744073709551615", DataType::kUInt64)),
              ElementsAre(std::numeric_limits<std::uint64_t>::max()));
  EXPECT_FALSE(ParseLiteral("9223372036854775808", {}).ok());
}

TEST(Literal, FillsTheWantedTypeOrSaysWhatDoesNotFit) {
  EXPECT_THAT(*Values<float>(*ParseLiteral("[1, -2]", DataType::kFp32)), ElementsAre(1, -2));
  EXPECT_THAT(*Values<std::uint8_t>(*ParseLiteral("3.0", DataType::kUInt8)), ElementsAre(3));
  EXPECT_THAT(Message(ParseLiteral("256", DataType::kUInt8).status()), HasSubstr("'256' does not fit UINT8"));
  EXPECT_THAT(Message(ParseLiteral("true", DataType::kInt8).status()), HasSubstr("does not fit INT8"));
  EXPECT_THAT(Message(ParseLiteral("1e39", DataType::kFp32).status()), HasSubstr("does not fit FP32"));
  EXPECT_TRUE(std::isnan((*Values<float>(*ParseLiteral("nan", DataType::kFp32)))[0]));
  EXPECT_THAT(*Values<float>(*ParseLiteral("-inf", DataType::kFp32)),
              ElementsAre(-std::numeric_limits<float>::infinity()));
}

TEST(Literal, UnescapesStringsAndTakesBareTextAsItStands) {
  EXPECT_THAT(*BytesElements(*ParseLiteral(R"(["a\"b", "\u00fc,]"])", {})), ElementsAre("a\"b", "\u00fc,]"));
  EXPECT_THAT(*BytesElements(*ParseLiteral("good morning, you", DataType::kBytes)),
              ElementsAre("good morning, you"));
  EXPECT_THAT(Message(ParseLiteral("[1]", DataType::kBytes).status()), HasSubstr("not a string"));
}

TEST(InputSpec, SeparatesNameTypeAndShape) {
  const InputSpec plain = *ParseInputSpec("x=a=b:c");
  EXPECT_EQ(plain.name, "x");
  EXPECT_EQ(plain.value, "a=b:c");
  EXPECT_FALSE(plain.datatype || plain.shape);
  const InputSpec full = *ParseInputSpec("x:FP32[2, -1]=1");
  EXPECT_EQ(full.name, "x");
  EXPECT_EQ(full.datatype, DataType::kFp32);
  EXPECT_THAT(*full.shape, ElementsAre(2, -1));
  const InputSpec shaped = *ParseInputSpec("x:[1,3]=1");
  EXPECT_FALSE(shaped.datatype);
  EXPECT_THAT(*shaped.shape, ElementsAre(1, 3));
  EXPECT_TRUE(ParseInputSpec("x:INT64[]=1")->shape->empty());
}

TEST(InputSpec, LeavesAColonThatNoTypeFollowsToTheName) {
  EXPECT_EQ(ParseInputSpec("input:0=1")->name, "input:0");
  EXPECT_EQ(ParseInputSpec("input:0:INT8=1")->name, "input:0");
}

TEST(InputSpec, TellsATypeMisspeltFromAName) {
  for (const char* text : {"x:FOO=1", "x:FP23[2]=1", "x:fp32=1"}) {
    EXPECT_THAT(Message(ParseInputSpec(text).status()),
                testing::AllOf(HasSubstr(" is not a datatype; they are BOOL, "), HasSubstr("BYTES")))
        << text;
  }
  EXPECT_EQ(ParseInputSpec("serving:default=1")->name, "serving:default");
  EXPECT_EQ(ParseInputSpec("scope:OUT:FP32=1")->name, "scope:OUT");
}

TEST(InputSpec, RefusesWhatNamesNothing) {
  for (const char* text : {"", "x", "=3", ":FP32=3", "x:FP32[a]=1", "x:FP32[-1,-1]=1", "x:FP32[-2]=1",
                           "x:[1=1"}) {
    EXPECT_FALSE(ParseInputSpec(text).ok()) << text;
  }
}

absl::StatusOr<Tensor> Read(const std::string& text, const Expectation& expected = {}) {
  return ReadInput(*ParseInputSpec(text), expected);
}

TEST(ReadInput, GivesALiteralTheModelsTypeAndRank) {
  const Tensor rate = *Read("sr=16000", {DataType::kInt32, {-1, 1}});
  EXPECT_EQ(rate.datatype, DataType::kInt32);
  EXPECT_THAT(rate.shape, ElementsAre(1, 1));
  EXPECT_TRUE(Read("sr=16000", {DataType::kInt64, {}})->shape.empty());
  EXPECT_TRUE(Read("sr=16000", {DataType::kInt64, {3}})->shape.empty()) << "the server shall say why";
}

TEST(ReadInput, ReshapesAndComputesTheOpenDimension) {
  EXPECT_THAT(Read("x:FP32[2,-1]=[1,2,3,4]")->shape, ElementsAre(2, 2));
  EXPECT_THAT(Message(Read("x:[3,-1]=[1,2,3,4]").status()), HasSubstr("4 elements do not fill the shape"));
  EXPECT_FALSE(Read("x:[0,-1]=[1]").ok());
}

TEST(ReadInput, ReadsArraysAndConvertsOnlyWhenTold) {
  const std::string file = "@" + FixturePath("f8.npy");
  EXPECT_EQ(Read("x=" + file)->datatype, DataType::kFp64);
  EXPECT_EQ(Read("x:FP32=" + file)->datatype, DataType::kFp32);
  EXPECT_THAT(Message(Read("x=" + file, {DataType::kFp32, {}}).status()),
              HasSubstr("input 'x': it holds FP64, but the model wants FP32; to convert it write x:FP32="));
  EXPECT_THAT(Message(Read("x:INT8=" + file).status()), HasSubstr("does not fit INT8"));
}

TEST(ReadInput, ReadsSoundResampledAndSliced) {
  const std::string file = "@" + FixturePath("stereo16.wav");
  EXPECT_THAT(Read("x=" + file)->shape, ElementsAre(1, 5));
  EXPECT_THAT(Read("x=" + file, {DataType::kFp32, {-1}})->shape, ElementsAre(5));
  EXPECT_THAT(Read("x=" + file + ":16000")->shape, ElementsAre(1, 2));
  EXPECT_THAT(*Values<float>(*Read("x=" + file + "[1:3]")), ElementsAre(-0.25F, 0));
  EXPECT_THAT(*Values<float>(*Read("x=" + file + ":48000[3:]")), ElementsAre(0.125F, 0.25F));
  EXPECT_THAT(Read("x=" + file + "[7:9]")->shape, ElementsAre(1, 0));
  EXPECT_THAT(Message(Read("x=" + file + ":1").status()), HasSubstr("sample rate of 1 "));
}

TEST(ReadInput, SendsAnyFileWholeAsBytes) {
  const Tensor tensor = *Read("x:BYTES=@" + FixturePath("pcm8.wav"));
  EXPECT_THAT(tensor.shape, ElementsAre(1));
  EXPECT_EQ((*BytesElements(tensor))[0], Fixture("pcm8.wav"));
}

TEST(ReadInput, ReadsRawElementsOfASaidTypeAndShape) {
  const TempDir folder;
  ASSERT_TRUE(WriteFile(folder.Path("raw.bin"), std::string("\1\0\2\0\3\0\4\0", 8)).ok());
  const std::string file = "@" + folder.Path("raw.bin");
  const Tensor tensor = *Read("x:INT16[2,-1]=" + file);
  EXPECT_THAT(tensor.shape, ElementsAre(2, 2));
  EXPECT_THAT(*Values<std::int16_t>(tensor), ElementsAre(1, 2, 3, 4));
  EXPECT_THAT(Message(Read("x=" + file).status()), HasSubstr("say what is in it"));
  ASSERT_TRUE(WriteFile(folder.Path("raw.bin"), "abc").ok());
  EXPECT_THAT(Message(Read("x:INT16[-1]=" + file).status()), HasSubstr("3 bytes, which is no multiple"));
}

TEST(ReadInput, NamesTheFileItCannotRead) {
  const TempDir folder;
  EXPECT_THAT(Message(Read("x=@/no/such.npy").status()),
              HasSubstr("input 'x': cannot read /no/such.npy: No such file"));
  EXPECT_THAT(Message(Read("x:BYTES=@" + folder.Path("")).status()), HasSubstr("Is a directory"));
  EXPECT_THAT(Message(Read("x=@" + FixturePath("complex.npy")).status()), HasSubstr("complex.npy: not a .npy"));
}

}  // namespace
}  // namespace hearth::client
