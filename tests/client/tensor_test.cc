#include "client/tensor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "client/elements.h"
#include "tests/client/fixtures.h"

namespace hearth::client {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(DataType, IsFoundAgainUnderItsName) {
  for (std::size_t i = 0; i < kDataTypeCount; ++i) {
    const auto type = static_cast<DataType>(i);
    EXPECT_EQ(ParseDataType(ToString(type)), type);
  }
  EXPECT_FALSE(ParseDataType(""));
  EXPECT_FALSE(ParseDataType("fp32"));
}

TEST(Shape, CountsElementsWithoutOverflow) {
  EXPECT_EQ(ElementCount({}), 1U);
  EXPECT_EQ(ElementCount({2, 3}), 6U);
  EXPECT_EQ(ElementCount({std::numeric_limits<std::int64_t>::max(), 0, 9}), 0U);
  EXPECT_FALSE(ElementCount({std::int64_t{1} << 32, std::int64_t{1} << 31}));
  EXPECT_FALSE(ElementCount({2, -1}));
}

TEST(Tensor, IsValidOnlyWhenItsBytesFillItsShape) {
  EXPECT_TRUE(Validate(MakeTensor<float>({2}, {1, 2})).ok());
  EXPECT_FALSE(Validate(MakeTensor<float>({3}, {1, 2})).ok());
  EXPECT_FALSE(Validate({DataType::kFp32, {1}, "abc"}).ok());
  EXPECT_TRUE(Validate(MakeBytesTensor({1, 2}, {"a", ""})).ok());
  EXPECT_FALSE(Validate(MakeBytesTensor({1}, {"a", ""})).ok());
  EXPECT_FALSE(Validate({DataType::kBytes, {1}, std::string("\x09\0\0\0abc", 7)}).ok());
  EXPECT_FALSE(Validate({DataType::kBytes, {1}, "abc"}).ok());
}

TEST(Tensor, GivesItsValuesOnlyAsItsOwnType) {
  const Tensor tensor = MakeTensor<std::int32_t>({3}, {1, -2, 3});
  EXPECT_THAT(*Values<std::int32_t>(tensor), ElementsAre(1, -2, 3));
  EXPECT_THAT(Message(Values<float>(tensor).status()), HasSubstr("INT32, not FP32"));
  EXPECT_THAT(Message(BytesElements(tensor).status()), HasSubstr("INT32, not BYTES"));
}

TEST(Convert, KeepsEveryValueThatFits) {
  const Tensor tensor = MakeTensor<double>({3}, {0, 1, -128});
  EXPECT_THAT(*Values<std::int8_t>(*Convert(tensor, DataType::kInt8)), ElementsAre(0, 1, -128));
  EXPECT_THAT(*Values<float>(*Convert(tensor, DataType::kFp32)), ElementsAre(0, 1, -128));
  const Tensor large = MakeTensor<std::uint64_t>({1}, {std::numeric_limits<std::uint64_t>::max()});
  EXPECT_EQ(Convert(large, DataType::kUInt64)->bytes, large.bytes);
}

TEST(Convert, RefusesWhatDoesNotFit) {
  const auto refuses = [](double value, DataType to) {
    return !Convert(MakeTensor<double>({1}, {value}), to).ok();
  };
  EXPECT_TRUE(refuses(128, DataType::kInt8));
  EXPECT_TRUE(refuses(-1, DataType::kUInt8));
  EXPECT_TRUE(refuses(0.5, DataType::kInt32));
  EXPECT_TRUE(refuses(2, DataType::kBool));
  EXPECT_TRUE(refuses(std::nan(""), DataType::kInt64));
  EXPECT_TRUE(refuses(9223372036854775808.0, DataType::kInt64));
  EXPECT_FALSE(refuses(-9223372036854775808.0, DataType::kInt64));
  EXPECT_TRUE(refuses(18446744073709551616.0, DataType::kUInt64));
  EXPECT_TRUE(refuses(1e39, DataType::kFp32));
  EXPECT_TRUE(refuses(65520, DataType::kFp16));
  EXPECT_FALSE(refuses(65519, DataType::kFp16));
  EXPECT_TRUE(refuses(3.4e38 * 1.01, DataType::kBf16));
  EXPECT_FALSE(refuses(std::numeric_limits<double>::infinity(), DataType::kFp16));
  EXPECT_TRUE(refuses(1, DataType::kBytes));
  EXPECT_THAT(Message(Convert(MakeTensor<float>({2}, {1, 0.1F}), DataType::kInt8).status()),
              HasSubstr("element 1, 0.1, does not fit INT8"));
}

TEST(HalfPrecision, SurvivesTheWayToFloatAndBackForEveryBitPattern) {
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    const auto half = static_cast<std::uint16_t>(bits);
    const float value = HalfToFloat(half);
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(HalfToFloat(FloatToHalf(value))));
    } else {
      ASSERT_EQ(FloatToHalf(value), half) << bits;
    }
    const float wide = BfloatToFloat(half);
    if (!std::isnan(wide)) {
      ASSERT_EQ(FloatToBfloat(wide), half) << bits;
    }
  }
}

TEST(HalfPrecision, RoundsToTheNearestAndTiesToEven) {
  for (std::uint32_t bits = 0; bits < 0x7BFF; ++bits) {
    const auto low = static_cast<std::uint16_t>(bits);
    const auto high = static_cast<std::uint16_t>(bits + 1);
    const float middle = (HalfToFloat(low) + HalfToFloat(high)) / 2;  // exact in FP32
    ASSERT_EQ(FloatToHalf(middle), bits % 2 == 0 ? low : high) << bits;
    ASSERT_EQ(FloatToHalf(std::nextafter(middle, 0.0F)), low) << bits;
    ASSERT_EQ(FloatToHalf(std::nextafter(middle, 1e9F)), high) << bits;
  }
  EXPECT_EQ(FloatToBfloat(1.00390625F), 0x3F80);  // halfway between 1 and the next: even wins
  EXPECT_EQ(FloatToBfloat(1.01171875F), 0x3F82);
}

TEST(FormatNumber, GivesTheShortestTextThatReadsBack) {
  EXPECT_EQ(FormatNumber(double{0.1F}, DataType::kFp32), "0.1");
  EXPECT_EQ(FormatNumber(0.1, DataType::kFp64), "0.1");
  EXPECT_EQ(FormatNumber(double{0.1F}, DataType::kFp64), "0.10000000149011612");
  EXPECT_EQ(FormatNumber(std::int64_t{-5}, DataType::kInt8), "-5");
  EXPECT_EQ(FormatNumber(std::uint64_t{1}, DataType::kBool), "true");
  EXPECT_EQ(FormatNumber(-std::nan(""), DataType::kFp32), "nan");
  EXPECT_EQ(FormatNumber(-std::numeric_limits<double>::infinity(), DataType::kFp32), "-inf");
}

}  // namespace
}  // namespace hearth::client
