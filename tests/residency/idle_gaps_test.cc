#include "server/residency/idle_gaps.h"

#include <gtest/gtest.h>

#include <random>

namespace hearth {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

IdleGaps Of(std::initializer_list<Duration> gaps) {
  IdleGaps all;
  for (const Duration gap : gaps) all.Add(gap);
  return all;
}

void ExpectNear(Duration actual, Duration expected, Duration by = milliseconds(10)) {
  EXPECT_NEAR(ToSeconds(actual), ToSeconds(expected), ToSeconds(by));
}

TEST(IdleGaps, FewSayNothing) {
  EXPECT_FALSE(IdleGaps().Regular());
  EXPECT_FALSE(Of({minutes(5), minutes(5), minutes(5)}).Regular());
  EXPECT_TRUE(Of({minutes(5), minutes(5), minutes(5), minutes(5)}).Regular());
}

TEST(IdleGaps, AlikeTheyAreATimetableAndTheNextMayComeEarlierByAsMuchAsTheyDiffer) {
  const auto period = Of({seconds(300), seconds(296), seconds(298), seconds(299), seconds(302)}).Regular();
  ASSERT_TRUE(period);
  ExpectNear(period->typical, seconds(299));
  ExpectNear(period->earliest, seconds(296));  // 298 to 300, without the least and the greatest
}

TEST(IdleGaps, OfSixHoursADifferenceOfSecondsIsNotLost) {
  const auto period = Of({hours(6), hours(6) + seconds(1), hours(6) + seconds(2), hours(6) + seconds(1)}).Regular();
  ASSERT_TRUE(period);
  ExpectNear(period->earliest, hours(6) - seconds(2));
}

TEST(IdleGaps, TooDifferentTheySayNothing) {
  EXPECT_FALSE(Of({minutes(5), minutes(6), minutes(8), minutes(20)}).Regular());
  EXPECT_FALSE(Of({minutes(5), minutes(60), minutes(5), minutes(60), minutes(5), minutes(60)}).Regular());
}

TEST(IdleGaps, AFifthOfThemMayBeAnythingAtEitherEnd) {
  EXPECT_TRUE(Of({minutes(5), seconds(3), minutes(5), hours(9), minutes(5)}).Regular());
  EXPECT_FALSE(Of({minutes(5), hours(8), minutes(5), hours(9), minutes(5)}).Regular());
}

TEST(IdleGaps, RequestsAtRandomAreHardlyEverATimetable) {
  std::mt19937_64 random(1);
  std::exponential_distribution<double> gap(1.0 / 600);
  int foretold = 0;
  for (int model = 0; model < 1000; ++model) {
    IdleGaps gaps;
    for (std::size_t i = 0; i < IdleGaps::kKept; ++i) {
      gaps.Add(std::chrono::duration_cast<Duration>(std::chrono::duration<double>(gap(random))));
    }
    foretold += gaps.Regular() ? 1 : 0;
  }
  EXPECT_LE(foretold, 5);
}

TEST(IdleGaps, AnotherTimetableIsLearnedAndTheOneBeforeForgotten) {
  IdleGaps gaps;
  for (int i = 0; i < 100; ++i) gaps.Add(minutes(5));
  for (std::size_t i = 0; i < IdleGaps::kKept / 2; ++i) gaps.Add(hours(1));
  EXPECT_FALSE(gaps.Regular());
  for (std::size_t i = 0; i < IdleGaps::kKept / 2; ++i) gaps.Add(hours(1));
  ASSERT_TRUE(gaps.Regular());
  ExpectNear(gaps.Regular()->typical, hours(1));
}

TEST(IdleGaps, TheEarliestIsNeverNegative) {
  const auto period = Of({Duration{}, Duration{}, Duration{}, Duration{}}).Regular();
  ASSERT_TRUE(period);
  EXPECT_EQ(period->earliest, Duration{});
}

}  // namespace
}  // namespace hearth
