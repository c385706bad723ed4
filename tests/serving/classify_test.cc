#include "server/serving/classify.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>

namespace hearth {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

template <typename T>
NamedTensor Output(DType dtype, Shape shape, std::vector<T> values) {
  const auto owner = std::make_shared<std::vector<T>>(std::move(values));
  return {"y", {dtype, std::move(shape), std::as_bytes(std::span(*owner)), owner}};
}

std::vector<std::string> Classes(std::size_t top, bool batched, NamedTensor& output,
                                 const std::vector<std::string>* names = nullptr) {
  const absl::Status status = Classify(top, batched, names, output);
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(output.tensor.dtype, DType::kBytes);
  const auto unpacked = UnpackBytes(output.tensor);
  EXPECT_TRUE(unpacked.ok()) << unpacked.status();
  return unpacked.ok() ? std::vector<std::string>(unpacked->begin(), unpacked->end()) : std::vector<std::string>{};
}

TEST(Classify, GivesTheHighestOfEachElementOfABatch) {
  NamedTensor output = Output<float>(DType::kFp32, {2, 3}, {0.25F, 3, -1, 7, 8, 9});
  EXPECT_THAT(Classes(2, true, output), ElementsAre("3.000000:1", "0.250000:0", "9.000000:2", "8.000000:1"));
  EXPECT_THAT(output.tensor.shape, ElementsAre(2, 2));
}

TEST(Classify, GivesTheHighestOfTheWholeTensorWithoutABatch) {
  NamedTensor output = Output<float>(DType::kFp32, {2, 3}, {0.25F, 3, -1, 7, 8, 9});
  EXPECT_THAT(Classes(9, false, output),
              ElementsAre("9.000000:5", "8.000000:4", "7.000000:3", "3.000000:1", "0.250000:0", "-1.000000:2"));
  EXPECT_THAT(output.tensor.shape, ElementsAre(6)) << "no more than there are";
}

TEST(Classify, NamesTheClassesThatHaveNames) {
  const std::vector<std::string> names = {"cat", "", "dog"};
  NamedTensor output = Output<std::int64_t>(DType::kInt64, {4}, {1, 2, 3, 4});
  EXPECT_THAT(Classes(4, false, output, &names), ElementsAre("4:3", "3:2:dog", "2:1", "1:0:cat"));
}

TEST(Classify, OfEqualValuesTheFirstComesFirstAndWhatIsNoNumberLast) {
  NamedTensor output = Output<double>(DType::kFp64, {5}, {NAN, 1, 2, 2, -INFINITY});
  EXPECT_THAT(Classes(5, false, output), ElementsAre("2.000000:2", "2.000000:3", "1.000000:1", "-inf:4", "nan:0"));
}

TEST(Classify, KnowsEveryTypeThatHasAnOrder) {
  NamedTensor u8 = Output<std::uint8_t>(DType::kUInt8, {2}, {7, 200});
  EXPECT_THAT(Classes(1, false, u8), ElementsAre("200:1"));
  NamedTensor i8 = Output<std::int8_t>(DType::kInt8, {2}, {7, -56});
  EXPECT_THAT(Classes(1, false, i8), ElementsAre("7:0"));
  NamedTensor u64 = Output<std::uint64_t>(DType::kUInt64, {2}, {1, std::numeric_limits<std::uint64_t>::max()});
  EXPECT_THAT(Classes(1, false, u64), ElementsAre("18446744073709551615:1"));
  // 1.5, -2, the smallest above 0, infinity
  NamedTensor half = Output<std::uint16_t>(DType::kFp16, {4}, {0x3e00, 0xc000, 0x0001, 0x7c00});
  EXPECT_THAT(Classes(4, false, half), ElementsAre("inf:3", "1.500000:0", "0.000000:2", "-2.000000:1"));
  NamedTensor brain = Output<std::uint16_t>(DType::kBf16, {2}, {0x3fc0, 0xc000});
  EXPECT_THAT(Classes(2, false, brain), ElementsAre("1.500000:0", "-2.000000:1"));
}

TEST(Classify, OfNothingThereIsNothing) {
  NamedTensor none = Output<float>(DType::kFp32, {0, 3}, {});
  EXPECT_THAT(Classes(2, true, none), IsEmpty());
  EXPECT_THAT(none.tensor.shape, ElementsAre(0, 2));
  NamedTensor empty = Output<float>(DType::kFp32, {2, 0}, {});
  EXPECT_THAT(Classes(2, true, empty), IsEmpty());
  EXPECT_THAT(empty.tensor.shape, ElementsAre(2, 0));
}

TEST(Classify, RefusesWhatHasNoOrder) {
  NamedTensor truth = Output<std::uint8_t>(DType::kBool, {2}, {0, 1});
  const absl::Status status = Classify(1, false, nullptr, truth);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("unsupported type 'BOOL'"));
  NamedTensor scalar = Output<float>(DType::kFp32, {}, {1});
  EXPECT_EQ(Classify(1, true, nullptr, scalar).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Classes(1, false, scalar), ElementsAre("1.000000:0"));
}

}  // namespace
}  // namespace hearth
