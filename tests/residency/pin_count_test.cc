#include "server/residency/pin_count.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

namespace hearth {
namespace {

TEST(PinCount, StartsClosedAndIsOpenedWithPinsHeld) {
  PinCount pins;
  EXPECT_FALSE(pins.TryPin());
  pins.Open(2);
  EXPECT_EQ(pins.count(), 2u);
  EXPECT_TRUE(pins.TryPin());
  EXPECT_FALSE(pins.Unpin().last);
  EXPECT_FALSE(pins.Unpin().last);
  EXPECT_TRUE(pins.Unpin().last);
}

TEST(PinCount, IsClosedByAnEvictorOnlyWhenNobodyHoldsIt) {
  PinCount pins;
  pins.Open(1);
  EXPECT_FALSE(pins.TryClose());
  pins.Unpin();
  EXPECT_TRUE(pins.TryClose());
  EXPECT_FALSE(pins.TryPin());
  pins.Reopen();
  EXPECT_TRUE(pins.TryPin());
}

TEST(PinCount, TellsTheLastOneOfAClosedModel) {
  PinCount pins;
  pins.Open(2);
  EXPECT_EQ(pins.Close(), 2u);
  EXPECT_FALSE(pins.TryPin());
  EXPECT_FALSE(pins.Unpin().last);
  const PinCount::Left left = pins.Unpin();
  EXPECT_TRUE(left.last);
  EXPECT_TRUE(left.closed);
}

// What a pin protects is never touched by the one who closes: TSan's and the assertion's business.
TEST(PinCount, NobodyHoldsAPinWhileItIsClosedAndZero) {
  PinCount pins;
  pins.Open(0);
  int value = 1;  // 1 whenever a pin may be held
  std::atomic<bool> stop = false;
  std::atomic<int> seen = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      while (!stop.load()) {
        if (!pins.TryPin()) continue;
        if (value != 1) seen.store(-1'000'000'000);
        seen.fetch_add(1);
        pins.Unpin();
      }
    });
  }
  for (int closed = 0; closed < 2000;) {
    if (!pins.TryClose()) continue;
    value = 0;
    value = 1;
    pins.Reopen();
    ++closed;
  }
  stop.store(true);
  for (std::thread& thread : threads) thread.join();
  EXPECT_GE(seen.load(), 0);
}

}  // namespace
}  // namespace hearth
