#include "server/residency/memory_budget.h"

#include <gtest/gtest.h>

#include <optional>
#include <random>
#include <vector>

namespace hearth {
namespace {

using Reservation = MemoryBudget::Reservation;
using Claim = MemoryBudget::Claim;

Footprint Host(std::uint64_t bytes) { return {0, bytes, {}}; }
Footprint Mapped(std::uint64_t inode, std::uint64_t bytes) {
  return {0, 0, {{FileId{1, inode, 0, bytes}, 0, bytes}}};
}
Reservation Resident(MemoryBudget& budget, const Footprint& footprint) {
  Reservation reservation = *budget.TryReserve(footprint);
  EXPECT_TRUE(reservation.Settle(footprint));
  return reservation;
}

TEST(MemoryBudget, NeverGivesOutMoreThanItHas) {
  MemoryBudget budget({0, 100, 0});
  std::optional<Reservation> a = budget.TryReserve(Host(60));
  ASSERT_TRUE(a);
  EXPECT_FALSE(budget.TryReserve(Host(41)));
  EXPECT_TRUE(budget.TryReserve(Host(40)));
  EXPECT_FALSE(budget.TryReserve({1, 0, {}})) << "there is no device";
}

TEST(MemoryBudget, ShrinksTheReservedPeakToWhatWasMeasured) {
  MemoryBudget budget({0, 100, 0});
  Reservation a = *budget.TryReserve(Host(90));
  EXPECT_EQ(budget.usage().loading.host_bytes, 90u);
  ASSERT_TRUE(a.Settle(Host(50)));
  EXPECT_EQ(budget.usage().loading.host_bytes, 0u);
  EXPECT_EQ(budget.usage().resident.host_bytes, 50u);
  EXPECT_TRUE(budget.TryReserve(Host(50)));
}

TEST(MemoryBudget, ChargesTheTruthWhereItFitsAndRefusesItWhereItDoesNot) {
  MemoryBudget budget({0, 100, 0});
  Reservation a = *budget.TryReserve(Host(10));
  Reservation b = *budget.TryReserve(Host(50));
  EXPECT_FALSE(a.Settle(Host(51)));
  EXPECT_EQ(budget.usage().loading.host_bytes, 60u) << "nothing changed";
  EXPECT_TRUE(a.Settle(Host(50)));
  EXPECT_EQ(budget.usage().used().host_bytes, 100u);
}

TEST(MemoryBudget, WindowsAreGrantedWhileThereIsRoomForThem) {
  MemoryBudget budget({0, 0, 100});
  const Footprint window = Windowed(Mapped(1, 1000), 40);
  const Reservation a = Resident(budget, window);
  std::optional<Reservation> b = budget.TryReserve(window);
  ASSERT_TRUE(b) << "of the same file, and charged again";
  EXPECT_EQ(budget.usage().used().mapped_bytes, 80u);
  EXPECT_FALSE(budget.TryReserve(window));
  EXPECT_FALSE(budget.TryReserve(Windowed(Mapped(2, 1000), ~std::uint64_t{0})));
  b.reset();
  EXPECT_TRUE(budget.TryReserve(Mapped(2, 60)));
}

TEST(MemoryBudget, SharedWeightsFitWhereASecondCopyWouldNot) {
  MemoryBudget budget({0, 0, 100});
  const Reservation a = Resident(budget, Mapped(1, 80));
  EXPECT_FALSE(budget.TryReserve(Mapped(2, 80)));
  EXPECT_TRUE(budget.TryReserve(Mapped(1, 80)));
}

TEST(MemoryBudget, BytesCountUntilTheyAreReleasedNotUntilUnloadingBegins) {
  MemoryBudget budget({0, 100, 0});
  Reservation a = Resident(budget, Host(80));
  a.BeginUnloading();
  EXPECT_EQ(budget.usage().unloading.host_bytes, 80u);
  EXPECT_FALSE(budget.TryReserve(Host(30)));
  a.Release();
  EXPECT_TRUE(budget.TryReserve(Host(30)));
}

TEST(MemoryBudget, FreedBytesGoToTheClaimTheyWereFreedForNotToWhoeverIsQuicker) {
  MemoryBudget budget({0, 100, 0});
  Reservation old = Resident(budget, Host(80));
  Reservation* victims[] = {&old};
  std::optional<Claim> claim = budget.TryClaim(Host(70), victims);
  ASSERT_TRUE(claim);
  EXPECT_FALSE(claim->TryTake()) << "the victim is still there";
  EXPECT_FALSE(budget.TryReserve(Host(20))) << "would fit now, and take what is promised";
  old.Release();
  EXPECT_FALSE(budget.TryReserve(Host(31)));
  std::optional<Reservation> quick = budget.TryReserve(Host(30));
  EXPECT_TRUE(quick);
  EXPECT_TRUE(claim->TryTake());
}

TEST(MemoryBudget, AClaimInOneDimensionDoesNotKeepOutWhoNeedsAnother) {
  MemoryBudget budget({0, 100, 100});
  Reservation old = Resident(budget, Host(80));
  Reservation* victims[] = {&old};
  const std::optional<Claim> claim = budget.TryClaim(Host(100), victims);
  ASSERT_TRUE(claim);
  EXPECT_TRUE(budget.TryReserve(Mapped(1, 100)));
  EXPECT_FALSE(budget.TryReserve(Host(1)));
}

TEST(MemoryBudget, AClaimIsAllOrNothing) {
  MemoryBudget budget({0, 100, 0});
  Reservation a = Resident(budget, Host(50));
  const Reservation b = Resident(budget, Host(50));
  Reservation* victims[] = {&a};
  EXPECT_FALSE(budget.TryClaim(Host(51), victims));
  EXPECT_EQ(a.phase(), HoldPhase::kResident);
}

TEST(MemoryBudget, WhatIsUnloadingAlreadyCountsTowardsAClaim) {
  MemoryBudget budget({0, 100, 0});
  Reservation a = Resident(budget, Host(90));
  a.BeginUnloading();
  std::optional<Claim> claim = budget.TryClaim(Host(100), {});
  ASSERT_TRUE(claim);
  a.Release();
  EXPECT_TRUE(claim->TryTake());
}

TEST(MemoryBudget, SharingWithSomebodyWhoLeavesMayNotBreakAPromise) {
  MemoryBudget budget({0, 0, 100});
  Reservation leaving = Resident(budget, Mapped(1, 60));
  Reservation* victims[] = {&leaving};
  std::optional<Claim> claim = budget.TryClaim(Mapped(2, 90), victims);
  ASSERT_TRUE(claim);
  EXPECT_FALSE(budget.TryReserve(Mapped(1, 60))) << "costs nothing now, but would keep 60 bytes";
  leaving.Release();
  EXPECT_TRUE(claim->TryTake());
}

TEST(MemoryBudget, ACapacityBelowWhatIsHeldTakesNothingAwayAndGivesNothingAgain) {
  MemoryBudget budget({0, 100, 100});
  std::optional<Reservation> a = Resident(budget, Host(50));
  std::optional<Reservation> b = Resident(budget, Host(30));
  budget.SetCapacity({0, 60, 100});
  EXPECT_EQ(budget.usage().used().host_bytes, 80u);
  EXPECT_EQ(budget.usage().ceiling.host_bytes, 80u);
  EXPECT_FALSE(budget.TryReserve(Host(1)));
  EXPECT_TRUE(budget.TryReserve(Mapped(1, 100))) << "enough of another kind is there";
  b.reset();
  EXPECT_EQ(budget.usage().ceiling.host_bytes, 60u);
  EXPECT_FALSE(budget.TryReserve(Host(11)));
  EXPECT_TRUE(budget.TryReserve(Host(10)));
}

TEST(MemoryBudget, NobodyIsPromisedBytesThatTooMuchIsHeldOfEvenIfOthersHoldTheSameOnes) {
  MemoryBudget budget({0, 100, 100});
  const Reservation a = Resident(budget, Mapped(1, 80));
  budget.SetCapacity({0, 100, 60});
  EXPECT_FALSE(budget.TryClaim(Mapped(1, 80), {}));
}

TEST(MemoryBudget, ACapacityThatGrowsIsThereAtOnce) {
  MemoryBudget budget({0, 100, 0});
  const Reservation a = Resident(budget, Host(100));
  EXPECT_FALSE(budget.TryReserve(Host(1)));
  budget.SetCapacity({0, 120, 0});
  EXPECT_TRUE(budget.TryReserve(Host(20)));
}

TEST(MemoryBudget, ADevicesRoomIsForItsOwnModels) {
  MemoryBudget budget({{100, 10}, 0, 0});
  const Reservation a = Resident(budget, {.device_bytes = 10, .device = 1});
  EXPECT_FALSE(budget.TryReserve({.device_bytes = 1, .device = 1}));
  EXPECT_FALSE(budget.TryReserve({.device_bytes = 1, .device = 2})) << "there is no such device";
  EXPECT_TRUE(budget.TryReserve({.device_bytes = 100, .device = 0}));
}

TEST(MemoryBudget, TooMuchOnOneDeviceVoidsNoPromiseOnAnother) {
  MemoryBudget budget({{100, 100}, 0, 0});
  const Reservation other = Resident(budget, {.device_bytes = 100, .device = 1});
  Reservation victim = Resident(budget, {.device_bytes = 100, .device = 0});
  budget.SetCapacity({{100, 50}, 0, 0});
  Reservation* const victims[] = {&victim};
  std::optional<Claim> claim = budget.TryClaim({.device_bytes = 60, .device = 0}, victims);
  ASSERT_TRUE(claim);
  EXPECT_FALSE(budget.TryClaim({.device_bytes = 1, .device = 1}, {}));
  victim.Release();
  EXPECT_TRUE(claim->TryTake());
}

TEST(MemoryBudget, WhatIsLostLeavesTheCapacityOnceAndForGood) {
  MemoryBudget budget({{100, 100}, 50, 0});
  Reservation a = Resident(budget, {.device_bytes = 60, .device = 1});
  a.BeginUnloading();
  budget.SetLost({{0, 60}, 0, 0});
  EXPECT_EQ(budget.capacity(), (Bytes{{100, 40}, 50, 0}));
  EXPECT_EQ(budget.usage().ceiling.device_bytes[1], 60u) << "it is still held";
  EXPECT_FALSE(budget.TryReserve({.device_bytes = 1, .device = 1}));
  a.Release();
  EXPECT_FALSE(budget.TryReserve({.device_bytes = 41, .device = 1})) << "the other 60 have not come back";
  EXPECT_TRUE(budget.TryReserve({.device_bytes = 40, .device = 1}));
  budget.SetLost({{0, 60}, 0, 0});
  EXPECT_EQ(budget.capacity().device_bytes[1], 40u);
  budget.SetCapacity({{100, 200}, 50, 0});
  EXPECT_EQ(budget.capacity().device_bytes[1], 140u);
}

// Random operations; after each, used <= capacity and settled <= capacity, and at the end every
// claim can be taken.
TEST(MemoryBudget, KeepsItsLimitAndEveryPromiseUnderRandomOperations) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  const auto pick = [&](std::uint64_t n) { return random() % n; };
  const MemoryBudget::Capacity capacity{{50, 30}, 100, 100};
  MemoryBudget budget(capacity);
  std::vector<Reservation> held;
  std::vector<Claim> claims;
  const auto any = [&] {
    Footprint f{pick(3) == 0 ? pick(30) : 0, pick(60), {}};
    f.device = static_cast<DeviceNumber>(pick(2));
    for (std::uint64_t n = pick(3); n > 0; --n) {
      f.extents.push_back({FileId{1, pick(3), 0, 0}, 10 * pick(4), 10 * pick(6)});
    }
    return f;
  };
  const auto take_claims = [&] {
    for (auto it = claims.begin(); it != claims.end();) {
      if (std::optional<Reservation> r = it->TryTake()) {
        held.push_back(std::move(*r));
        it = claims.erase(it);
      } else {
        ++it;
      }
    }
  };
  for (int step = 0; step < 5000; ++step) {
    switch (pick(6)) {
      case 0:
        if (auto r = budget.TryReserve(any())) held.push_back(std::move(*r));
        break;
      case 1:
        for (Reservation& r : held) {
          if (r.phase() != HoldPhase::kLoading) continue;
          if (!r.Settle(any())) {
            ASSERT_EQ(r.phase(), HoldPhase::kLoading);
          }
          break;
        }
        break;
      case 2:
        for (Reservation& r : held) {
          if (r.phase() == HoldPhase::kResident && pick(2) == 0) r.BeginUnloading();
        }
        break;
      case 3: {
        std::vector<Reservation*> victims;
        for (Reservation& r : held) {
          if (r.phase() == HoldPhase::kResident && pick(2) == 0) victims.push_back(&r);
        }
        if (auto c = budget.TryClaim(any(), victims)) claims.push_back(std::move(*c));
        break;
      }
      case 4:
        take_claims();
        break;
      default:
        if (held.empty()) break;
        held.erase(held.begin() + static_cast<std::ptrdiff_t>(pick(held.size())));
    }
    ASSERT_TRUE(budget.usage().used() <= capacity) << "step " << step;
    ASSERT_TRUE(budget.Settled().used() <= capacity) << "step " << step;
  }
  std::erase_if(held, [](const Reservation& r) { return r.phase() == HoldPhase::kUnloading; });
  take_claims();
  EXPECT_TRUE(claims.empty());
}

}  // namespace
}  // namespace hearth
