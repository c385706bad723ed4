// Weights that are larger than the mapped budget.
#include "tests/residency/manager_fixture.h"

namespace hearth {
namespace {

using testing::ElementsAre;
using enum absl::StatusCode;

// Weights of `bytes` in a file of the model's own.
fakes::FakeLoader::Script MappedScript(std::uint64_t inode, std::uint64_t bytes) {
  fakes::FakeLoader::Script script;
  script.model.footprint.extents = {{FileId{1, inode, 0, bytes}, 0, bytes}};
  return script;
}

class WindowTest : public ManagerTest {
 protected:
  WindowTest() { options_.mapped_window = 40; }

  // Loads, and says what the loader was asked for.
  std::optional<Residency> LoadedAs(const std::string& model, fakes::FakeLoader::Script script) {
    std::optional<Residency> residency;
    script.on_load = [&residency](const ModelSpec& spec, std::stop_token) { residency = spec.options.residency; };
    loader_.Set(model, script);
    Cold cold = Acquire(model);
    executor_.RunAll();
    EXPECT_TRUE(cold.ok()) << cold.status();
    if (cold.ok()) cold.Release();
    return residency;
  }
  std::vector<std::string> ResidentModels() {
    std::vector<std::string> models;
    for (const auto& row : manager().Snapshot()) {
      if (row.state == ModelState::kReady) models.push_back(row.id.name);
    }
    return models;
  }
  std::uint64_t mapped() { return manager().usage().used().mapped_bytes; }
};

TEST_F(WindowTest, WeightsOverTheMappedBudgetAreMappedAndChargedAWindow) {
  EXPECT_EQ(LoadedAs("wide", MappedScript(1, 101)), Residency::kMapped);
  EXPECT_EQ(mapped(), 40u);
  const auto row = manager().Snapshot().at(0);
  EXPECT_EQ(row.mapped_bytes, 40u);
  EXPECT_EQ(row.window_bytes, 40u);
  EXPECT_EQ(Acquire("wide")->handle->footprint().mapped_bytes(), 101u) << "the model itself knows nothing of it";
  manager().Unload(Id("wide"), [] {});
  executor_.RunAll();
  EXPECT_EQ(mapped(), 0u);
}

TEST_F(WindowTest, WhoWaitsForRoomGetsAWindowWhenTheBudgetBecomesTooSmall) {
  loader_.Set("busy", MappedScript(1, 30));
  Cold busy = Acquire("busy");
  executor_.RunAll();
  loader_.Set("wide", MappedScript(2, 80));
  Cold cold = Acquire("wide");
  executor_.RunAll();
  EXPECT_FALSE(cold.done());
  options_.capacity.mapped_bytes = 70;
  manager().Reconfigure(options_, policy_);
  executor_.RunAll();
  EXPECT_TRUE(cold.ok()) << cold.status();
  EXPECT_EQ(mapped(), 70u);
}

TEST_F(WindowTest, WithoutAWindowTheyAreRefusedByName) {
  options_.mapped_window = 0;
  loader_.Set("wide", MappedScript(1, 101));
  Cold cold = Acquire("wide");
  executor_.RunAll();
  EXPECT_THAT(cold.status(), Fails(kFailedPrecondition, "cache.budget.mapped"));
}

TEST_F(WindowTest, WhoeverFitsGetsNoWindow) {
  EXPECT_EQ(LoadedAs("fits", MappedScript(1, 100)), std::nullopt);
  EXPECT_EQ(mapped(), 100u);
  EXPECT_EQ(manager().Snapshot().at(0).window_bytes, 0u);
}

TEST_F(WindowTest, ManyAskForMoreThanThereIsAndTheOldestGoes) {
  options_.mapped_window = 50;
  LoadedAs("a", MappedScript(1, 1000));
  LoadedAs("b", MappedScript(2, 2000));
  EXPECT_THAT(ResidentModels(), ElementsAre("a", "b"));
  LoadedAs("c", MappedScript(3, 3000));
  EXPECT_THAT(ResidentModels(), ElementsAre("b", "c"));
  LoadedAs("small", MappedScript(4, 60));
  EXPECT_THAT(ResidentModels(), ElementsAre("small")) << "c's window alone leaves too little";
}

TEST_F(WindowTest, AWindowIsNeverLargerThanTheBudget) {
  options_.mapped_window = 1000;
  LoadedAs("wide", MappedScript(1, 101));
  EXPECT_EQ(mapped(), 100u);
}

TEST_F(WindowTest, OfWeightsThatEndUpOnADeviceNoWindowStays) {
  auto script = MappedScript(1, 101);
  script.peak = script.model.footprint;
  script.model.footprint.extents.clear();
  LoadedAs("moved", script);
  EXPECT_EQ(mapped(), 0u);
}

TEST_F(WindowTest, WhoeverWantsThemLockedIsRefused) {
  spec_options_.residency = Residency::kLocked;
  loader_.Set("wide", MappedScript(1, 101));
  Cold cold = Acquire("wide");
  executor_.RunAll();
  EXPECT_THAT(cold.status(), Fails(kFailedPrecondition, "cache.budget.mapped"));
}

TEST_F(WindowTest, AnOrdinaryChoiceOfResidencyGivesWay) {
  for (const Residency asked : {Residency::kMapped, Residency::kPopulated}) {
    spec_options_.residency = asked;
    EXPECT_EQ(LoadedAs("wide" + std::to_string(static_cast<int>(asked)), MappedScript(1, 101)), Residency::kMapped);
  }
}

TEST_F(WindowTest, PrivateMemoryHasNoWindow) {
  Exists("huge", 101);
  Cold cold = Acquire("huge");
  executor_.RunAll();
  EXPECT_THAT(cold.status(), Fails(kFailedPrecondition, "cache.budget.host"));
}

}  // namespace
}  // namespace hearth
