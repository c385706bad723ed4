#include "server/storage/range_uses.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace hearth {
namespace {

using Ranges = std::vector<ByteRange>;

Ranges Add(RangeUses& uses, ByteRange range) {
  Ranges first;
  uses.Add(range, first);
  return first;
}
Ranges Remove(RangeUses& uses, ByteRange range) {
  Ranges last;
  uses.Remove(range, last);
  return last;
}

TEST(RangeUses, TheFirstUseAndTheLastOneAreTold) {
  RangeUses uses;
  EXPECT_EQ(Add(uses, {10, 20}), (Ranges{{10, 20}}));
  EXPECT_EQ(Add(uses, {10, 20}), Ranges{});
  EXPECT_EQ(Remove(uses, {10, 20}), Ranges{});
  EXPECT_EQ(Remove(uses, {10, 20}), (Ranges{{10, 20}}));
  EXPECT_EQ(Add(uses, {10, 20}), (Ranges{{10, 20}})) << "and nothing is left of earlier ones";
}

TEST(RangeUses, RangesMayOverlapInAnyWay) {
  RangeUses uses;
  Add(uses, {10, 20});
  Add(uses, {40, 50});
  EXPECT_EQ(Add(uses, {0, 60}), (Ranges{{0, 10}, {20, 40}, {50, 60}}));
  EXPECT_EQ(Remove(uses, {10, 20}), Ranges{});
  EXPECT_EQ(Add(uses, {15, 45}), Ranges{});
  EXPECT_EQ(Remove(uses, {0, 60}), (Ranges{{0, 15}, {50, 60}}));
  EXPECT_EQ(Remove(uses, {15, 45}), (Ranges{{15, 40}}));
  EXPECT_EQ(Remove(uses, {40, 50}), (Ranges{{40, 50}}));
}

TEST(RangeUses, AnEmptyRangeIsNoUse) {
  RangeUses uses;
  EXPECT_EQ(Add(uses, {5, 5}), Ranges{});
  EXPECT_EQ(Remove(uses, {5, 5}), Ranges{});
}

}  // namespace
}  // namespace hearth
