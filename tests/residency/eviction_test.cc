#include "server/residency/eviction.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <random>

namespace hearth {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

// Candidates in the order of their last use, oldest first.
class Eviction : public testing::Test {
 protected:
  void Idle(const Footprint& footprint) {
    EvictionCandidate candidate;
    candidate.footprint = std::make_shared<const Footprint>(footprint);
    candidate.last_used = TimePoint(std::chrono::seconds(100 + candidates_.size()));
    settled_.Add(footprint, HoldPhase::kResident);
    candidates_.push_back(std::move(candidate));
  }
  void InUse(const Footprint& footprint) { settled_.Add(footprint, HoldPhase::kResident); }
  std::optional<std::vector<std::size_t>> Choose(const Footprint& need, const Bytes& capacity) {
    return ChooseVictims(candidates_, *policy_, TimePoint(std::chrono::hours(1)), settled_,
                         capacity, need);
  }
  static Footprint Host(std::uint64_t bytes) { return {0, bytes, {}}; }
  static Footprint Mapped(std::uint64_t inode, std::uint64_t bytes) {
    return {0, 0, {{FileId{1, inode, 0, bytes}, 0, bytes}}};
  }

  // Of random models, as many as fit, which `tell` says more about.
  void ExpectEnoughAndNoMore(const std::function<void(EvictionCandidate&, std::mt19937&)>& tell) {
    const auto seed = std::random_device{}();
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937 random(seed);
    for (int round = 0; round < 500; ++round) {
      candidates_.clear();
      settled_ = Ledger();
      const Bytes capacity{{50, 40}, 100, 100};
      for (int i = 0; i < 12; ++i) {
        Footprint f{random() % 15, random() % 30, {}};
        f.device = random() % 2;
        f.extents.push_back({FileId{1, random() % 4, 0, 0}, random() % 20, random() % 30});
        Ledger with = settled_;
        with.Add(f, HoldPhase::kResident);
        if (!(with.used() <= capacity)) continue;
        if (random() % 4 == 0) {
          InUse(f);
        } else {
          Idle(f);
          tell(candidates_.back(), random);
        }
      }
      Footprint need{random() % 40, random() % 100, {{FileId{1, 9, 0, 0}, 0, random() % 100}}};
      need.device = random() % 2;
      ASSERT_NO_FATAL_FAILURE(ExpectEnoughAndNoMore(need, capacity));
    }
  }

  void ExpectEnoughAndNoMore(const Footprint& need, const Bytes& capacity) {
    const auto chosen = Choose(need, capacity);
    Ledger none_left = settled_;
    for (const auto& c : candidates_) none_left.Remove(*c.footprint, HoldPhase::kResident);
    none_left.Add(need, HoldPhase::kLoading);
    ASSERT_EQ(chosen.has_value(), none_left.used() <= capacity);
    if (!chosen) return;
    Ledger after = settled_;
    after.Add(need, HoldPhase::kLoading);
    for (const std::size_t i : *chosen) after.Remove(*candidates_[i].footprint, HoldPhase::kResident);
    ASSERT_TRUE(after.used() <= capacity);
    for (const std::size_t i : *chosen) {
      Ledger one_less = after;
      one_less.Add(*candidates_[i].footprint, HoldPhase::kResident);
      ASSERT_FALSE(one_less.used() <= capacity) << "candidate " << i << " need not have gone";
    }
  }

  const LruPolicy lru_;
  const EvictionPolicy* policy_ = &lru_;
  std::vector<EvictionCandidate> candidates_;
  Ledger settled_;
};

class GdsfEviction : public Eviction {
 protected:
  GdsfEviction() { policy_ = &gdsf_; }
  void Idle(const Footprint& footprint, double demand, Duration reload, bool young = false) {
    Eviction::Idle(footprint);
    candidates_.back().demand = demand;
    candidates_.back().reload = reload;
    candidates_.back().young = young;
  }
  const GdsfPolicy gdsf_;
};

TEST_F(Eviction, TakesNobodyWhenThereIsRoom) {
  Idle(Host(10));
  EXPECT_THAT(*Choose(Host(90), {0, 100, 0}), IsEmpty());
}

TEST_F(Eviction, TakesTheLeastRecentlyUsed) {
  Idle(Host(50));
  Idle(Host(50));
  EXPECT_THAT(*Choose(Host(30), {0, 100, 0}), ElementsAre(0));
}

TEST_F(Eviction, SparesWhoTheOthersMakeUnnecessary) {
  Idle(Host(10));
  Idle(Host(10));
  Idle(Host(80));
  EXPECT_THAT(*Choose(Host(75), {0, 100, 0}), ElementsAre(2)) << "one cold model covers it";
}

TEST_F(Eviction, SparesWhoHoldsNothingInTheDimensionThatIsShort) {
  Idle({40, 0, {}});
  Idle(Host(100));
  EXPECT_THAT(*Choose(Host(10), {40, 100, 0}), ElementsAre(1));
}

TEST_F(Eviction, TakesNobodyWhenAllOfThemWouldNotDo) {
  Idle(Host(50));
  InUse(Host(30));
  EXPECT_EQ(Choose(Host(71), {0, 100, 0}), std::nullopt);
  EXPECT_THAT(*Choose(Host(70), {0, 100, 0}), ElementsAre(0));
}

TEST_F(Eviction, KnowsThatSharedBytesDoNotComeBack) {
  Idle(Mapped(1, 60));
  InUse(Mapped(1, 60));
  Idle(Mapped(2, 40));
  EXPECT_THAT(*Choose(Mapped(3, 40), {0, 0, 100}), ElementsAre(1));
  EXPECT_EQ(Choose(Mapped(3, 41), {0, 0, 100}), std::nullopt);
}

TEST_F(Eviction, KnowsThatTheNewcomerMayShareWithTheVictim) {
  Idle(Mapped(1, 60));
  Idle(Mapped(2, 40));
  EXPECT_THAT(*Choose(Mapped(1, 60), {0, 0, 100}), IsEmpty());
}

TEST_F(Eviction, ASmallerBudgetTakesWhoWillDoOrElseWhoeverHelps) {
  InUse(Host(50));
  Idle(Host(20));
  Idle(Mapped(1, 30));
  Idle(Host(20));
  const auto excess = [&](const Bytes& capacity) {
    return ChooseExcess(candidates_, *policy_, TimePoint(std::chrono::hours(1)), settled_, capacity);
  };
  EXPECT_THAT(excess({0, 90, 30}), IsEmpty());
  EXPECT_THAT(excess({0, 70, 30}), ElementsAre(0));
  EXPECT_THAT(excess({0, 40, 30}), ElementsAre(0, 2)) << "not enough, but nobody else would help";
  EXPECT_THAT(excess({0, 90, 0}), ElementsAre(1));
}

TEST_F(Eviction, FreesTwoSharersTogetherWhenNothingLessWillDo) {
  Idle(Mapped(1, 60));
  Idle(Mapped(1, 60));
  Idle(Mapped(2, 40));
  EXPECT_THAT(*Choose(Mapped(3, 50), {0, 0, 100}), ElementsAre(0, 1));
}

using std::chrono::milliseconds;
using std::chrono::seconds;

TEST_F(GdsfEviction, KeepsWhatIsAskedForMost) {
  Idle(Host(50), 9, seconds(1));
  Idle(Host(50), 2, seconds(1));
  EXPECT_THAT(*Choose(Host(30), {0, 100, 0}), ElementsAre(1)) << "though the other was used before it";
}

TEST_F(GdsfEviction, KeepsWhatTakesLongestToComeBack) {
  Idle(Host(50), 2, milliseconds(20));
  Idle(Host(50), 2, seconds(4));
  EXPECT_THAT(*Choose(Host(30), {0, 100, 0}), ElementsAre(0));
}

TEST_F(GdsfEviction, TakesWhatGivesTheMostBytesForItsLoss) {
  Idle(Host(20), 1, seconds(1));
  Idle(Host(60), 2, seconds(1));
  EXPECT_THAT(*Choose(Host(70), {0, 100, 0}), ElementsAre(1)) << "twice the loss, three times the bytes";
}

TEST_F(GdsfEviction, CountsNoBytesThatStayWithSomebodyElse) {
  Idle(Mapped(1, 60), 1, seconds(1));
  InUse({0, 0, {{FileId{1, 1, 0, 60}, 0, 50}}});
  Idle(Mapped(2, 40), 3, seconds(1));
  EXPECT_THAT(*Choose(Mapped(3, 10), {0, 0, 100}), ElementsAre(0)) << "ten bytes do";
  EXPECT_THAT(*Choose(Mapped(3, 20), {0, 0, 100}), ElementsAre(1));
}

TEST_F(GdsfEviction, PrefersOneThatCoversTheNeedToSeveralThatLoseMore) {
  Idle(Host(30), 3, seconds(1));
  Idle(Host(30), 3, seconds(1));
  Idle(Host(40), 5, seconds(1));
  EXPECT_THAT(*Choose(Host(40), {0, 100, 0}), ElementsAre(2));
}

TEST_F(GdsfEviction, TakesTheYoungOnlyWhenNobodyElseCanMakeTheRoom) {
  Idle(Host(50), 0, milliseconds(1), /*young=*/true);
  Idle(Host(50), 99, seconds(9));
  EXPECT_THAT(*Choose(Host(30), {0, 100, 0}), ElementsAre(1));
  EXPECT_THAT(*Choose(Host(70), {0, 100, 0}), ElementsAre(1, 0));
}

TEST_F(GdsfEviction, IsAlwaysEnoughAndNeverMoreThanNeeded) {
  ExpectEnoughAndNoMore([](EvictionCandidate& candidate, std::mt19937& random) {
    candidate.demand = static_cast<double>(random() % 5);
    candidate.reload = milliseconds(random() % 500);
    candidate.young = random() % 3 == 0;
  });
}

TEST_F(Eviction, IsAlwaysEnoughAndNeverMoreThanNeeded) {
  ExpectEnoughAndNoMore([](EvictionCandidate&, std::mt19937&) {});
}

TEST(MayBeDisplaced, OnlyWhoIsNeitherUsedNorWantedNorYoung) {
  const Duration half_life = std::chrono::hours(1);
  const TimePoint now{std::chrono::hours(9)};
  EvictionCandidate candidate;
  candidate.last_used = now - half_life;
  candidate.demand = 0.2;
  EXPECT_TRUE(MayBeDisplaced(candidate, 0, now, half_life));
  EXPECT_FALSE(MayBeDisplaced(candidate, 0, now - std::chrono::nanoseconds(1), half_life));
  candidate.demand = 0.25;
  EXPECT_FALSE(MayBeDisplaced(candidate, 0, now, half_life));
  candidate.demand = 0.2;
  candidate.young = true;
  EXPECT_FALSE(MayBeDisplaced(candidate, 0, now, half_life));
}

TEST(MayBeDisplaced, NeverOneByTheOtherInTurn) {
  const auto may = [](double stays, double comes) {
    EvictionCandidate candidate;
    candidate.demand = stays;
    return MayBeDisplaced(candidate, comes, TimePoint(std::chrono::hours(9)), std::chrono::hours(1));
  };
  EXPECT_TRUE(may(4.9, 10));
  EXPECT_FALSE(may(5, 10));
  EXPECT_FALSE(may(10, 4.9));
}

}  // namespace
}  // namespace hearth
