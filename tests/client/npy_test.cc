#include "client/npy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <numeric>

#include "client/tensor.h"
#include "tests/client/fixtures.h"

namespace hearth::client {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A version 1 file with this header and this data.
std::string Npy(const std::string& header, const std::string& data) {
  std::string out("\x93NUMPY\x01\x00", 8);
  out += static_cast<char>(header.size() & 0xFF);
  out += static_cast<char>(header.size() >> 8);
  return out + header + data;
}

std::string HeaderFor(const std::string& descr, const std::string& shape) {
  return "{'descr': '" + descr + "', 'fortran_order': False, 'shape': " + shape + ", }\n";
}

template <typename T>
void ExpectLimits(const std::string& file) {
  SCOPED_TRACE(file);
  const auto tensor = ParseNpy(Fixture(file));
  ASSERT_TRUE(tensor.ok()) << tensor.status();
  EXPECT_THAT(tensor->shape, ElementsAre(2, 2));
  const auto values = Values<T>(*tensor);
  ASSERT_TRUE(values.ok()) << values.status();
  EXPECT_THAT(*values, ElementsAre(std::numeric_limits<T>::min(), 0, 1, std::numeric_limits<T>::max()));
}

TEST(Npy, ReadsEveryIntegerTypeToItsLimits) {
  ExpectLimits<std::uint8_t>("u1.npy");
  ExpectLimits<std::uint16_t>("u2.npy");
  ExpectLimits<std::uint32_t>("u4.npy");
  ExpectLimits<std::uint64_t>("u8.npy");
  ExpectLimits<std::int8_t>("i1.npy");
  ExpectLimits<std::int16_t>("i2.npy");
  ExpectLimits<std::int32_t>("i4.npy");
  ExpectLimits<std::int64_t>("i8.npy");
}

TEST(Npy, ReadsEveryFloatingPointType) {
  EXPECT_THAT(*Values<float>(*ParseNpy(Fixture("f4.npy"))), ElementsAre(-1.5F, 0, 0.1F, 65504));
  EXPECT_THAT(*Values<double>(*ParseNpy(Fixture("f8.npy"))), ElementsAre(-1.5, 0, 0.1, 65504));
  const Tensor half = *ParseNpy(Fixture("f2.npy"));
  EXPECT_EQ(half.datatype, DataType::kFp16);
  EXPECT_THAT(*Values<float>(*Convert(half, DataType::kFp32)),
              ElementsAre(-1.5F, 0, 0.099975586F, 65504));
}

TEST(Npy, ReadsBooleansAsZeroAndOne) {
  const Tensor tensor = *ParseNpy(Fixture("b1.npy"));
  EXPECT_EQ(tensor.datatype, DataType::kBool);
  EXPECT_EQ(tensor.bytes, std::string("\1\0\1", 3));
  EXPECT_EQ(ParseNpy(Npy(HeaderFor("|b1", "(1,)"), "\xFF"))->bytes, "\1");
}

TEST(Npy, ReadsScalarsAndEmptyArrays) {
  const Tensor scalar = *ParseNpy(Fixture("scalar.npy"));
  EXPECT_TRUE(scalar.shape.empty());
  EXPECT_THAT(*Values<float>(scalar), ElementsAre(2.5F));
  const Tensor empty = *ParseNpy(Fixture("empty.npy"));
  EXPECT_THAT(empty.shape, ElementsAre(0, 3));
  EXPECT_TRUE(empty.bytes.empty());
}

TEST(Npy, TurnsColumnMajorArraysIntoRowMajorOnes) {
  ASSERT_THAT(Fixture("fortran.npy"), HasSubstr("'fortran_order': True"));
  const Tensor tensor = *ParseNpy(Fixture("fortran.npy"));
  EXPECT_THAT(tensor.shape, ElementsAre(2, 3, 4));
  std::vector<std::int32_t> expected(24);
  std::iota(expected.begin(), expected.end(), 0);
  EXPECT_EQ(*Values<std::int32_t>(tensor), expected);
}

TEST(Npy, ReadsFormatVersionsTwoAndThree) {
  EXPECT_THAT(*Values<std::int16_t>(*ParseNpy(Fixture("version2.npy"))), ElementsAre(0, 1, 2));
  EXPECT_THAT(*Values<std::int16_t>(*ParseNpy(Fixture("version3.npy"))), ElementsAre(0, 1, 2));
}

TEST(Npy, ReadsByteStringsWithoutTheirPadding) {
  const Tensor tensor = *ParseNpy(Fixture("bytes.npy"));
  EXPECT_THAT(tensor.shape, ElementsAre(2, 2));
  EXPECT_THAT(*BytesElements(tensor), ElementsAre("a", "bcd", "", std::string_view("x\0y", 3)));
}

TEST(Npy, ReadsUnicodeStringsAsUtf8) {
  EXPECT_THAT(*BytesElements(*ParseNpy(Fixture("unicode.npy"))),
              ElementsAre("gr\u00fcn", "\u65e5\u672c", "", "\U0001F600 ok"));
}

TEST(Npy, SaysWhyItRefusesAnElementType) {
  EXPECT_THAT(Message(ParseNpy(Fixture("big_endian.npy")).status()), HasSubstr("big-endian"));
  EXPECT_THAT(Message(ParseNpy(Fixture("complex.npy")).status()), HasSubstr("'<c16'"));
  EXPECT_THAT(Message(ParseNpy(Fixture("records.npy")).status()), HasSubstr("records"));
  EXPECT_THAT(Message(ParseNpy(Fixture("object.npy")).status()), HasSubstr("Python objects are not read"));
}

TEST(Npy, WritesWhatNumpyWritesToTheByte) {
  for (const std::string name : {"u1", "u8", "i2", "i4", "f2", "f4", "f8", "b1", "scalar", "empty", "bytes"}) {
    SCOPED_TRACE(name);
    const std::string file = Fixture(name + ".npy");
    const auto written = FormatNpy(*ParseNpy(file));
    ASSERT_TRUE(written.ok()) << written.status();
    EXPECT_EQ(*written, file);
  }
}

TEST(Npy, WritesBfloat16AsFloat32) {
  const Tensor tensor = *Convert(MakeTensor<float>({2}, {1.5F, -2}), DataType::kBf16);
  const Tensor back = *ParseNpy(*FormatNpy(tensor));
  EXPECT_EQ(back.datatype, DataType::kFp32);
  EXPECT_THAT(*Values<float>(back), ElementsAre(1.5F, -2));
}

TEST(Npy, RefusesToWriteAStringThatNumpyWouldShorten) {
  const auto written = FormatNpy(MakeBytesTensor({1}, {std::string("x\0", 2)}));
  EXPECT_THAT(Message(written.status()), HasSubstr("ends in a zero byte"));
}

TEST(Npy, RefusesEveryTruncationOfAFile) {
  const std::string file = Fixture("i4.npy");
  for (std::size_t size = 0; size < file.size(); ++size) {
    EXPECT_FALSE(ParseNpy(std::string_view(file).substr(0, size)).ok()) << size;
  }
}

TEST(Npy, SurvivesEveryFlippedBitOfAHeader) {
  const std::string file = Fixture("fortran.npy");
  int refused = 0;
  for (std::size_t bit = 0; bit < 128 * 8; ++bit) {
    std::string changed = file;
    changed[bit / 8] = static_cast<char>(changed[bit / 8] ^ (1 << (bit % 8)));
    const auto tensor = ParseNpy(changed);
    if (tensor.ok()) {
      EXPECT_TRUE(Validate(*tensor).ok()) << bit;
    } else {
      ++refused;
    }
  }
  EXPECT_GT(refused, 500);
}

TEST(Npy, RefusesShapesThatOverflowOrClaimMoreThanThereIs) {
  const std::string data(64, '\0');
  for (const char* shape : {"(4294967296, 4294967296)", "(9223372036854775807, 2)", "(17,)", "(-1,)",
                            "(99999999999999999999,)", "(1, 2", "(,)", "3"}) {
    EXPECT_FALSE(ParseNpy(Npy(HeaderFor("<i4", shape), data)).ok()) << shape;
  }
  EXPECT_TRUE(ParseNpy(Npy(HeaderFor("<i4", "(16,)"), data)).ok());
  EXPECT_TRUE(ParseNpy(Npy(HeaderFor("<i4", "(0, 9223372036854775807)"), "")).ok());
}

TEST(Npy, RefusesStringsOfNoWidthThatCouldBeAnyNumber) {
  EXPECT_FALSE(ParseNpy(Npy(HeaderFor("|S0", "(1000000000000,)"), "")).ok());
  EXPECT_FALSE(ParseNpy(Npy(HeaderFor("<U0", "(1000000000000,)"), "")).ok());
}

TEST(Npy, RefusesStringsThatAreNotUnicode) {
  const std::string surrogate("\x00\xD8\x00\x00", 4);
  EXPECT_THAT(Message(ParseNpy(Npy(HeaderFor("<U1", "(1,)"), surrogate)).status()),
              HasSubstr("not Unicode"));
}

TEST(Npy, RefusesHeadersThatAreNotTheDictOfAnArray) {
  for (const char* header :
       {"", "{", "{}", "[]", "{'descr': '<i4'}", "{'descr': '<i4', 'fortran_order': Maybe, 'shape': ()}",
        "{'descr': '<i4', 'descr': '<i4', 'fortran_order': False, 'shape': ()}",
        "{'descr': '<i4', 'fortran_order': False, 'shape': ()} more",
        "{'descr': '<i4', 'fortran_order': False, 'shape': (), 'extra': 1}",
        "{'descr': '<i4' 'fortran_order': False, 'shape': ()}", "{'descr': '<i4"}) {
    EXPECT_FALSE(ParseNpy(Npy(header, std::string(8, '\0'))).ok()) << header;
  }
}

TEST(Npy, UnderstandsKeysInAnyOrderAndPythonTwosIntegers) {
  const auto tensor =
      ParseNpy(Npy("{\"shape\": (2L,), \"fortran_order\": True, \"descr\": \"|u1\"}", "ab"));
  ASSERT_TRUE(tensor.ok()) << tensor.status();
  EXPECT_THAT(tensor->shape, ElementsAre(2));
  EXPECT_EQ(tensor->bytes, "ab");
}

}  // namespace
}  // namespace hearth::client
