#include "server/tensor/reshape.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace hearth {
namespace {

using ::testing::HasSubstr;
using ::testing::Optional;

TEST(Reshape, KeepsTheElementsBetweenOpenDimensions) {
  for (const auto& [from, to] : std::vector<std::pair<Shape, Shape>>{
           {{4}, {2, 2}}, {{1}, {}}, {{-1, 16}, {-1, 4, 4}}, {{2, 4, -1, 6}, {8, -1, 1, 6}}, {{-1, -1}, {-1, 1, -1}}}) {
    EXPECT_TRUE(CheckReshape(from, to).ok()) << ToString(from) << ToString(to);
  }
  for (const auto& [from, to] : std::vector<std::pair<Shape, Shape>>{
           {{4}, {2, 3}}, {{-1, 16}, {16}}, {{2, -1}, {-1, 2}}, {{}, {2}}, {{1LL << 40, 1LL << 40}, {1}}}) {
    EXPECT_EQ(CheckReshape(from, to).code(), absl::StatusCode::kInvalidArgument) << ToString(from) << ToString(to);
  }
  EXPECT_THAT(std::string(CheckReshape({4}, {-1, 4}).message()), HasSubstr("[4] cannot be reshaped to [-1,4]"));
}

TEST(Reshape, GivesOpenDimensionsTheSizesOfTheTensor) {
  EXPECT_THAT(Reshape({-1, 16}, {-1, 4, 4}, {3, 16}), Optional(Shape{3, 4, 4}));
  EXPECT_THAT(Reshape({2, 4, -1, 6}, {8, -1, 1, 6}, {2, 4, 5, 6}), Optional(Shape{8, 5, 1, 6}));
  EXPECT_THAT(Reshape({-1, 1}, {-1}, {7, 1}), Optional(Shape{7}));
}

TEST(Reshape, KnowsWhatIsNoneOfTheFirstShape) {
  EXPECT_EQ(Reshape({-1, 16}, {-1, 4, 4}, {3, 15}), std::nullopt);
  EXPECT_EQ(Reshape({-1, 16}, {-1, 4, 4}, {3}), std::nullopt);
}

}  // namespace
}  // namespace hearth
