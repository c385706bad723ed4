#include "server/residency/model_state.h"

#include <gtest/gtest.h>

#include <set>
#include <utility>

namespace hearth {
namespace {

using enum ModelState;

// The diagram in model_state.h, written down a second time.
const std::set<std::pair<ModelState, ModelState>> kArrows = {
    {kAbsent, kQueued},  {kQueued, kLoading},    {kQueued, kFailed},     {kLoading, kReady},
    {kLoading, kFailed}, {kReady, kDraining},    {kReady, kUnloading},   {kDraining, kUnloading},
    {kFailed, kQueued},  {kUnloading, kAbsent},  {kFailed, kAbsent}};

TEST(ModelState, FollowsTheArrowsOfTheDiagramAndNoOthers) {
  for (std::size_t from = 0; from < kModelStateCount; ++from) {
    for (std::size_t to = 0; to < kModelStateCount; ++to) {
      const auto a = static_cast<ModelState>(from);
      const auto b = static_cast<ModelState>(to);
      EXPECT_EQ(CanFollow(a, b), kArrows.contains({a, b})) << ToString(a) << " -> " << ToString(b);
    }
  }
}

TEST(ModelState, EveryStateCanGetBackToAbsentAndHasAWordOfItsOwn) {
  std::set<std::string_view> words;
  for (std::size_t i = 0; i < kModelStateCount; ++i) {
    words.insert(ToString(static_cast<ModelState>(i)));
    std::set<ModelState> reached = {static_cast<ModelState>(i)};
    for (std::size_t step = 0; step < kModelStateCount; ++step) {
      for (const auto& [from, to] : kArrows) {
        if (reached.contains(from)) reached.insert(to);
      }
    }
    EXPECT_TRUE(reached.contains(kAbsent)) << ToString(static_cast<ModelState>(i));
  }
  EXPECT_EQ(words.size(), kModelStateCount);
}

TEST(ModelState, AModelIsNeverFreedStraightFromLoadingNorLoadedTwice) {
  static_assert(!CanFollow(kLoading, kUnloading));
  static_assert(!CanFollow(kReady, kLoading));
  static_assert(!CanFollow(kDraining, kReady));
  static_assert(!CanFollow(kUnloading, kReady));
}

}  // namespace
}  // namespace hearth
