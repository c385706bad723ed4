// What the manager tells the ghost list (ghost_list.h), and what that says of a run.
#include "tests/residency/manager_fixture.h"

namespace hearth {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using testing::DoubleNear;
using testing::IsEmpty;
using testing::SizeIs;

constexpr std::uint64_t kMiB = 1 << 20;

// Room for two models of 4 MiB.
class PlanTest : public ManagerTest {
 protected:
  PlanTest() : ManagerTest({0, 8 * kMiB, 8 * kMiB}) {}

  void Ask(const std::string& model) {
    Cold cold = Acquire(model);
    executor_.RunAll();
    ASSERT_TRUE(cold.ok()) << cold.status();
    cold.Release();
  }
  GhostList::Plan Host() { return manager().PlanFor(Dimension::kHost); }
  void ThreeExist() {
    for (const char* model : {"a", "b", "c"}) Exists(model, 4 * kMiB);
  }
};

TEST_F(PlanTest, AModelThatComesBackSaysHowMuchWasLacking) {
  ThreeExist();
  for (const char* model : {"a", "b", "c", "a"}) Ask(model);
  const GhostList::Plan plan = Host();
  EXPECT_THAT(plan.loads, DoubleNear(4, 1e-3));
  EXPECT_THAT(plan.returns, DoubleNear(1, 1e-3)) << "the others were loaded for the first time";
  ASSERT_THAT(plan.points, SizeIs(1));
  EXPECT_EQ(plan.points[0].more_bytes, 4 * kMiB) << "it alone, for nobody had gone after it";
  EXPECT_THAT(manager().PlanFor(Dimension::kMapped).points, IsEmpty()) << "that was never short";
}

TEST_F(PlanTest, ALoadNobodyAskedForIsNoColdStart) {
  ThreeExist();
  for (const char* model : {"a", "b", "c"}) Ask(model);
  const Answer<LoadReport> load = Load("a");
  executor_.RunAll();
  EXPECT_TRUE(load.ok());
  EXPECT_THAT(Host().loads, DoubleNear(3, 1e-3));
  EXPECT_EQ(Host().returns, 0);
}

TEST_F(PlanTest, AnUnloadedModelIsNotCalledBackByMoreMemory) {
  ThreeExist();
  for (const char* model : {"a", "b", "c"}) Ask(model);
  manager().Unload(Id("a"), [] {});
  executor_.RunAll();
  Ask("a");
  EXPECT_EQ(Host().returns, 0);
}

TEST_F(PlanTest, APlanFadesWithTheHalfLifeOfDemand) {
  options_.demand_half_life = hours(2);
  ThreeExist();
  for (const char* model : {"a", "b", "c", "a"}) Ask(model);
  clock_.Advance(hours(2));
  EXPECT_THAT(Host().returns, DoubleNear(0.5, 1e-3));
}

}  // namespace
}  // namespace hearth
