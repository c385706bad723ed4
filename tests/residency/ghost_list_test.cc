#include "server/residency/ghost_list.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <list>
#include <random>
#include <set>

namespace hearth {
namespace {

using std::chrono::seconds;
using ::testing::DoubleNear;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr std::uint64_t kMiB = 1 << 20;
const TimePoint kStart = TimePoint{} + std::chrono::hours(1);

ModelId Model(int number) { return {std::to_string(number), 1}; }
Bytes Mapped(std::uint64_t mib) { return {0, 0, mib * kMiB}; }

class GhostListTest : public ::testing::Test {
 protected:
  GhostList::Plan Plan() const { return ghosts_.PlanFor(Dimension::kMapped, kStart); }

  GhostList ghosts_{std::chrono::hours(1)};
};

TEST_F(GhostListTest, AModelThatComesBackLackedItselfAndWhatWasEvictedAfterIt) {
  ghosts_.Evicted(Model(1), Mapped(512), Mapped(1));
  ghosts_.Evicted(Model(2), Mapped(256), Mapped(1));
  ghosts_.Evicted(Model(3), Mapped(256), Mapped(1));
  ghosts_.Loaded(Model(2), seconds(3), kStart);
  ghosts_.Loaded(Model(1), seconds(4), kStart);
  const GhostList::Plan plan = Plan();
  ASSERT_THAT(plan.points, SizeIs(2));
  EXPECT_EQ(plan.points[0].more_bytes, 512 * kMiB) << "the second and the third";
  EXPECT_EQ(plan.points[0].loads, 1);
  EXPECT_EQ(plan.points[0].seconds, 3);
  EXPECT_EQ(plan.points[1].more_bytes, 768 * kMiB) << "the second is no ghost any more";
  EXPECT_EQ(plan.points[1].loads, 2);
  EXPECT_EQ(plan.points[1].seconds, 7);
  EXPECT_EQ(plan.returns, 2);
}

TEST_F(GhostListTest, WhoGoesForAModelThatReturnsWasNotLackingBefore) {
  ghosts_.Evicted(Model(1), Mapped(4), Mapped(1));
  ghosts_.Returning(Model(1));
  ghosts_.Evicted(Model(2), Mapped(4), Mapped(1));
  ghosts_.Loaded(Model(1), seconds(1), kStart);
  EXPECT_EQ(Plan().points.at(0).more_bytes, 4 * kMiB);
}

TEST_F(GhostListTest, TheFirstLoadOfAModelIsSparedByNoMemory) {
  ghosts_.Loaded(Model(1), seconds(2), kStart);
  const GhostList::Plan plan = Plan();
  EXPECT_EQ(plan.loads, 1);
  EXPECT_EQ(plan.seconds, 2);
  EXPECT_EQ(plan.returns, 0);
  EXPECT_THAT(plan.points, IsEmpty());
}

TEST_F(GhostListTest, OnlyTheMemoryThatWasLackingWouldHaveHelped) {
  ghosts_.Evicted(Model(1), {0, 7 * kMiB, 5 * kMiB}, {0, 1, 0});
  ghosts_.Loaded(Model(1), seconds(1), kStart);
  EXPECT_THAT(Plan().points, IsEmpty());
  const GhostList::Plan plan = ghosts_.PlanFor(Dimension::kHost, kStart);
  ASSERT_THAT(plan.points, SizeIs(1));
  EXPECT_EQ(plan.points[0].more_bytes, 7 * kMiB);
}

TEST_F(GhostListTest, WhoWasUnloadedOnPurposeIsNoGhost) {
  ghosts_.Evicted(Model(1), Mapped(10), Mapped(1));
  ghosts_.Forget(Model(1));
  ghosts_.Loaded(Model(1), seconds(1), kStart);
  EXPECT_EQ(Plan().returns, 0);
}

TEST_F(GhostListTest, CountsFade) {
  ghosts_.Evicted(Model(1), Mapped(10), Mapped(1));
  ghosts_.Loaded(Model(1), seconds(2), kStart);
  const GhostList::Plan later = ghosts_.PlanFor(Dimension::kMapped, kStart + std::chrono::hours(1));
  EXPECT_THAT(later.loads, DoubleNear(0.5, 1e-9));
  EXPECT_THAT(later.points.at(0).seconds, DoubleNear(1, 1e-9));
  ghosts_.Loaded(Model(2), seconds(2), kStart + std::chrono::hours(100));
  EXPECT_THAT(ghosts_.PlanFor(Dimension::kMapped, kStart + std::chrono::hours(100)).points, IsEmpty())
      << "nothing of it is left, not even a step";
}

TEST_F(GhostListTest, TheOldestGhostsAreForgotten) {
  GhostList two(std::chrono::hours(1), 2);
  for (int i = 1; i <= 3; ++i) two.Evicted(Model(i), Mapped(10), Mapped(1));
  two.Loaded(Model(1), seconds(1), kStart);
  EXPECT_EQ(two.PlanFor(Dimension::kMapped, kStart).returns, 0);
  two.Loaded(Model(2), seconds(1), kStart);
  EXPECT_EQ(two.PlanFor(Dimension::kMapped, kStart).returns, 1);
}

TEST_F(GhostListTest, APromiseIsRoundedUpAndByLessThanAnEighth) {
  for (const std::uint64_t bytes : {1, 1000, 1'500'000, 123'456'789}) {
    GhostList ghosts(std::chrono::hours(1));
    ghosts.Evicted(Model(1), {0, 0, bytes}, {0, 0, 1});
    ghosts.Loaded(Model(1), seconds(1), kStart);
    const std::uint64_t promised = ghosts.PlanFor(Dimension::kMapped, kStart).points.at(0).more_bytes;
    EXPECT_GE(promised, bytes);
    EXPECT_LE(promised, std::max<std::uint64_t>(kMiB, bytes + bytes / 8));
  }
}

// The reference: LRU caches of both sizes, run beside each other.
class LruCache {
 public:
  explicit LruCache(std::size_t models) : models_(models) {}
  // The model that had to go, or -1; `missed`: it was not there.
  int Use(int model, bool& missed) {
    const auto found = std::find(order_.begin(), order_.end(), model);
    missed = found == order_.end();
    if (!missed) order_.erase(found);
    order_.push_front(model);
    if (order_.size() <= models_) return -1;
    const int last = order_.back();
    order_.pop_back();
    return last;
  }

 private:
  const std::size_t models_;
  std::list<int> order_;
};

TEST_F(GhostListTest, WithLruItSaysExactlyWhatALargerCacheWouldHaveSpared) {
  std::mt19937 random(7);
  std::geometric_distribution<int> which(0.08);
  LruCache small(8), large(8 + 6);
  int small_misses = 0, large_misses = 0;
  for (int i = 0; i < 3000; ++i) {
    const int model = which(random);
    bool missed = false;
    const int victim = small.Use(model, missed);
    if (missed) {
      ++small_misses;
      ghosts_.Loaded(Model(model), seconds(1), kStart);
    }
    if (victim >= 0) ghosts_.Evicted(Model(victim), Mapped(1), Mapped(1));
    large.Use(model, missed);
    large_misses += missed ? 1 : 0;
  }
  const GhostList::Plan plan = Plan();
  EXPECT_EQ(plan.loads, small_misses);
  double spared = 0;
  for (const GhostList::Point& point : plan.points) {
    if (point.more_bytes <= 6 * kMiB) spared = point.loads;
  }
  EXPECT_EQ(small_misses - spared, large_misses);
}

}  // namespace
}  // namespace hearth
