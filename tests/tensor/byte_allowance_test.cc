#include "server/tensor/byte_allowance.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace hearth {
namespace {

TEST(ByteAllowance, GivesNoMoreThanItHas) {
  ByteAllowance allowance(10);
  EXPECT_TRUE(allowance.Take(6));
  EXPECT_FALSE(allowance.Take(5));
  EXPECT_TRUE(allowance.Take(4));
  EXPECT_FALSE(allowance.Take(1));
  allowance.Give(6);
  EXPECT_TRUE(allowance.Take(6));
  EXPECT_EQ(allowance.held(), 10u);
}

TEST(ByteAllowance, LargeOnesLeaveRoomForSmallOnes) {
  constexpr std::uint64_t kSmall = ByteAllowance::kSmall;
  ByteAllowance allowance(16 * kSmall, /*for_small=*/16);
  EXPECT_FALSE(allowance.Take(15 * kSmall + 1));
  EXPECT_TRUE(allowance.Take(15 * kSmall));
  EXPECT_FALSE(allowance.Take(kSmall + 1));
  EXPECT_TRUE(allowance.Take(kSmall));
  EXPECT_FALSE(allowance.Take(1));
}

TEST(ByteAllowance, WhatIsHeldStaysHeldWhenThereIsToBeLess) {
  ByteAllowance allowance(10);
  EXPECT_TRUE(allowance.Take(8));
  allowance.SetMost(4);
  EXPECT_FALSE(allowance.Take(1));
  allowance.Give(5);
  EXPECT_TRUE(allowance.Take(1));
  EXPECT_FALSE(allowance.Take(1));
  allowance.SetMost(5);
  EXPECT_TRUE(allowance.Take(1));
}

TEST(ByteAllowance, AChargeGrowsAndIsGivenBackOnce) {
  const auto allowance = std::make_shared<ByteAllowance>(10);
  {
    ByteCharge first(allowance);
    EXPECT_TRUE(first.GrowTo(4));
    EXPECT_TRUE(first.GrowTo(3));
    EXPECT_EQ(allowance->held(), 4u);
    EXPECT_FALSE(first.GrowTo(11));
    ByteCharge second(std::move(first));
    EXPECT_TRUE(second.GrowTo(9));
    ByteCharge third(allowance);
    EXPECT_FALSE(third.GrowTo(2));
    third = std::move(second);
    EXPECT_EQ(allowance->held(), 9u);
  }
  EXPECT_EQ(allowance->held(), 0u);
  EXPECT_TRUE(ByteCharge().GrowTo(1'000'000));
}

TEST(ByteAllowance, AChargeCanShrink) {
  const auto allowance = std::make_shared<ByteAllowance>(100);
  ByteCharge charge(allowance);
  ASSERT_TRUE(charge.GrowTo(60));
  charge.ShrinkTo(80);
  EXPECT_EQ(allowance->held(), 60u);
  charge.ShrinkTo(20);
  EXPECT_EQ(allowance->held(), 20u);
  ByteCharge().ShrinkTo(0);
}

TEST(ByteAllowance, HoldsWithManyAtOnce) {
  const auto allowance = std::make_shared<ByteAllowance>(100);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 10'000; ++i) {
        ByteCharge charge(allowance);
        (void)charge.GrowTo(60);
        if (allowance->held() > 100) std::abort();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(allowance->held(), 0u);
}

}  // namespace
}  // namespace hearth
