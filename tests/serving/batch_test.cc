#include "server/serving/batch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <memory>

namespace hearth {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

Tensor Floats(std::vector<float> values, Shape shape) {
  const auto owner = std::make_shared<std::vector<float>>(std::move(values));
  return {DType::kFp32, std::move(shape), std::as_bytes(std::span<const float>(*owner)), owner};
}

std::vector<float> FloatsOf(const Tensor& tensor) {
  std::vector<float> values(tensor.data.size() / sizeof(float));
  if (!values.empty()) std::memcpy(values.data(), tensor.data.data(), tensor.data.size());
  return values;
}

class BatchTest : public testing::Test {
 protected:
  absl::StatusOr<TensorList> JoinAll(const std::vector<TensorList>& requests) {
    std::vector<const TensorList*> pointers;
    for (const TensorList& request : requests) pointers.push_back(&request);
    return Join(pointers, buffers_);
  }
  BufferPool buffers_{1 << 20};
};

TEST_F(BatchTest, JoinsRowsInTheOrderOfTheRequests) {
  const auto joined = JoinAll({{{"x", Floats({1, 2}, {1, 2})}}, {{"x", Floats({3, 4, 5, 6}, {2, 2})}}});
  ASSERT_TRUE(joined.ok());
  EXPECT_EQ(joined->at(0).tensor.shape, (Shape{3, 2}));
  EXPECT_THAT(FloatsOf(joined->at(0).tensor), ElementsAre(1, 2, 3, 4, 5, 6));
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(joined->at(0).tensor.data.data()) % 64, 0u);
}

TEST_F(BatchTest, FindsInputsByNameWhereverTheyStand) {
  const auto joined = JoinAll({{{"a", Floats({1}, {1})}, {"b", Floats({2}, {1})}},
                               {{"b", Floats({4}, {1})}, {"a", Floats({3}, {1})}}});
  ASSERT_TRUE(joined.ok());
  EXPECT_THAT(FloatsOf(*Find(*joined, "a")), ElementsAre(1, 3));
  EXPECT_THAT(FloatsOf(*Find(*joined, "b")), ElementsAre(2, 4));
}

TEST_F(BatchTest, JoinsStringsAndRowsOfNoBytes) {
  const std::vector<std::string_view> first = {"a", ""}, second = {"long"};
  const auto strings = JoinAll({{{"s", PackBytes(first, {2})}}, {{"s", PackBytes(second, {1})}}});
  ASSERT_TRUE(strings.ok());
  EXPECT_THAT(*UnpackBytes(strings->at(0).tensor), ElementsAre("a", "", "long"));
  const auto empty = JoinAll({{{"x", Floats({}, {0, 2})}}, {{"x", Floats({1, 2}, {1, 2})}}});
  ASSERT_TRUE(empty.ok());
  EXPECT_EQ(empty->at(0).tensor.shape, (Shape{1, 2}));
}

TEST_F(BatchTest, FillsUpWhatIsShorterWithZeros) {
  const auto joined =
      JoinAll({{{"x", Floats({1, 2, 3, 4}, {1, 2, 2})}}, {{"x", Floats({5, 6, 7}, {1, 1, 3})}}});
  ASSERT_TRUE(joined.ok());
  EXPECT_EQ(joined->at(0).tensor.shape, (Shape{2, 2, 3}));
  EXPECT_THAT(FloatsOf(joined->at(0).tensor), ElementsAre(1, 2, 0, 3, 4, 0, 5, 6, 7, 0, 0, 0));
  const std::vector<std::string_view> one = {"a"}, two = {"b", "c"};
  EXPECT_TRUE(absl::IsInvalidArgument(
      JoinAll({{{"s", PackBytes(one, {1, 1})}}, {{"s", PackBytes(two, {1, 2})}}}).status()));
}

TEST_F(BatchTest, JoinsOnlyWhatIsAlike) {
  const TensorList one = {{"x", Floats({1, 2}, {1, 2})}};
  EXPECT_TRUE(MayJoin(one, {{"x", Floats({1, 2, 3, 4}, {2, 2})}}, {}));
  EXPECT_FALSE(MayJoin(one, {{"x", Floats({1, 2, 3}, {1, 3})}}, {}));
  EXPECT_TRUE(MayJoin(one, {{"x", Floats({1, 2, 3}, {1, 3})}}, {"x"}));
  EXPECT_FALSE(MayJoin(one, {{"x", Floats({1, 2}, {1, 1, 2})}}, {"x"}));
  EXPECT_FALSE(MayJoin(one, {{"y", Floats({1, 2}, {1, 2})}}, {}));
  EXPECT_FALSE(MayJoin(one, {{"x", Floats({1, 2}, {1, 2})}, {"y", Floats({1}, {1})}}, {}));
  Tensor integers = Floats({1, 2}, {1, 2});
  integers.dtype = DType::kInt32;
  EXPECT_FALSE(MayJoin(one, {{"x", integers}}, {}));
}

TEST_F(BatchTest, SplitsOutputsByRowsWithoutCopyingSmallOnes) {
  const TensorList outputs = {{"x", Floats({1, 2, 3, 4, 5, 6}, {3, 2})}};
  const std::vector<std::int64_t> rows = {1, 2};
  const auto split = Split(outputs, rows);
  ASSERT_TRUE(split.ok());
  EXPECT_EQ((*split)[1][0].tensor.shape, (Shape{2, 2}));
  EXPECT_THAT(FloatsOf((*split)[0][0].tensor), ElementsAre(1, 2));
  EXPECT_THAT(FloatsOf((*split)[1][0].tensor), ElementsAre(3, 4, 5, 6));
  EXPECT_EQ((*split)[0][0].tensor.data.data(), outputs[0].tensor.data.data());
}

// Whoever keeps a part for long keeps no more than that.
TEST_F(BatchTest, LargePartsOfAnOutputStandForThemselves) {
  TensorList outputs = {{"x", Floats(std::vector<float>(4096, 2.5f), {2, 2048})}};
  const std::weak_ptr<const void> whole = outputs[0].tensor.owner;
  const std::vector<std::int64_t> rows = {1, 1};
  const auto split = Split(outputs, rows);
  ASSERT_TRUE(split.ok());
  EXPECT_EQ(FloatsOf((*split)[1][0].tensor), std::vector<float>(2048, 2.5f));
  outputs.clear();
  EXPECT_TRUE(whole.expired());
}

TEST_F(BatchTest, SplitsStringsWhereTheyEnd) {
  const std::vector<std::string_view> strings = {"a", "bb", "", "dddd"};
  const std::vector<std::int64_t> rows = {1, 1};
  const auto split = Split({{"s", PackBytes(strings, {2, 2})}}, rows);
  ASSERT_TRUE(split.ok());
  EXPECT_THAT(*UnpackBytes((*split)[0][0].tensor), ElementsAre("a", "bb"));
  EXPECT_THAT(*UnpackBytes((*split)[1][0].tensor), ElementsAre("", "dddd"));
}

TEST_F(BatchTest, DoesNotGuessWhoseAnOutputIs) {
  const std::vector<std::int64_t> rows = {1, 2};
  EXPECT_THAT(Split({{"mean", Floats({1}, {1})}}, rows).status().ToString(),
              HasSubstr("output 'mean' has shape [1] for a batch of 3"));
  EXPECT_TRUE(absl::IsFailedPrecondition(Split({{"loss", Floats({1}, {})}}, rows).status()));
}

}  // namespace
}  // namespace hearth
