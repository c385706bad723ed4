// Two devices, each with a budget of its own; and memory that does not come back.
#include "tests/residency/manager_fixture.h"

namespace hearth {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;
using enum absl::StatusCode;

// 100 bytes on fake:0 and 40 on fake:1.
class DevicesTest : public ManagerTest {
 protected:
  DevicesTest() : ManagerTest({{100, 40}, 1000, 0}) { devices_ = {"fake:0", "fake:1"}; }

  void Exists(const std::string& model, const Footprint& footprint) {
    fakes::FakeLoader::Script script;
    script.model.footprint = footprint;
    loader_.Set(model, script);
  }
  // Its free fails to give back so much.
  void ExistsAndLoses(const std::string& model, const Footprint& footprint, const Bytes& lost) {
    fakes::FakeLoader::Script script;
    script.model.footprint = footprint;
    script.model.on_destroy = [this, lost] { lost_ += lost; };
    loader_.Set(model, script);
  }
  Cold Ask(const std::string& model) {
    Cold cold = Acquire(model);
    executor_.RunAll();
    return cold;
  }
  void Resident(const std::string& model, const Footprint& footprint) {
    Exists(model, footprint);
    Cold cold = Ask(model);
    ASSERT_TRUE(cold.ok()) << cold.status();
    cold.Release();
  }
  std::vector<std::string> ResidentModels() {
    std::vector<std::string> models;
    for (const auto& row : manager().Snapshot()) {
      if (row.state == ModelState::kReady) models.push_back(row.id.name);
    }
    return models;
  }
  MemoryBudget::Usage usage() { return manager().usage(); }
  double Sample(const std::string& name, const std::string& device) {
    for (const Metrics::Sample& sample : manager().Samples()) {
      if (sample.name != name) continue;
      if (sample.labels == std::vector<std::pair<std::string, std::string>>{{"dimension", "device"}, {"device", device}}) {
        return sample.value;
      }
    }
    return -1;
  }
};

TEST_F(DevicesTest, AModelIsChargedToItsOwnDevice) {
  Resident("a", On(0, 60, 5));
  Resident("b", On(1, 40, 5));
  EXPECT_EQ(usage().resident, (Bytes{{60, 40}, 10, 0}));
  EXPECT_EQ(Sample("hearth_resident_bytes", "fake:0"), 60);
  EXPECT_EQ(Sample("hearth_resident_bytes", "fake:1"), 40);
  EXPECT_EQ(Sample("hearth_budget_bytes", "fake:1"), 40);
  EXPECT_EQ(manager().Snapshot()[1].device, 1u);
}

TEST_F(DevicesTest, AnEvictionOnOneLeavesTheOtherAlone) {
  for (const EvictionPolicy* policy : {static_cast<const EvictionPolicy*>(&lru_), static_cast<const EvictionPolicy*>(nullptr)}) {
    manager().Reconfigure(options_, policy);
    Resident("other", On(1, 40, 5));  // the coldest, and the least
    Resident("a", On(0, 60, 5));
    Resident("b", On(0, 60, 5));
    EXPECT_THAT(ResidentModels(), ElementsAre("b", "other"));
    Resident("tiny", On(1, 1));
    EXPECT_THAT(ResidentModels(), ElementsAre("b", "tiny"));
    for (const char* model : {"b", "tiny"}) manager().Unload(Id(model), [] {});
    RunAll();
  }
  const EventLog::EventPtr eviction = manager().events().Of(Id("a")).last_eviction;
  ASSERT_NE(eviction, nullptr);
  EXPECT_EQ(eviction->bytes, (Bytes{{60}, 5, 0}));
  EXPECT_EQ(eviction->cause->needed, (Bytes{{60}, 0, 0})) << "of the host's memory there was enough";
  EXPECT_EQ(eviction->cause->candidates, 1u) << "who is elsewhere was none";
  EXPECT_THAT(Describe(*eviction, manager().devices()), HasSubstr("60 B of fake:0 memory needed"));
}

TEST_F(DevicesTest, WhoWaitsForOneDeviceIsNotHelpedByRoomOnAnother) {
  Exists("busy", On(1, 30));
  Cold busy = Ask("busy");
  Resident("idle", On(0, 100));
  Exists("new", On(1, 20));
  Cold cold = Ask("new");
  EXPECT_FALSE(cold.done());
  EXPECT_THAT(ResidentModels(), ElementsAre("busy", "idle")) << "nobody was evicted in vain";
  busy.Release();
  executor_.RunAll();
  EXPECT_TRUE(cold.ok()) << cold.status();
  EXPECT_THAT(ResidentModels(), ElementsAre("idle", "new"));
}

TEST_F(DevicesTest, RefusalsNameTheDeviceThatIsShort) {
  Exists("huge", On(1, 41));
  EXPECT_THAT(Ask("huge").status(),
              Fails(kFailedPrecondition, "41 B of fake:1 memory, and 40 B of the 40 B of cache.budget.device are left"));
  manager().SetHardPins({Id("pinned")});
  Resident("pinned", On(1, 30));
  Exists("beside", On(1, 11));
  EXPECT_THAT(Ask("beside").status(),
              Fails(kResourceExhausted, "11 B of fake:1 memory, and 10 B of the 40 B of cache.budget.device are left"));
  Resident("elsewhere", On(0, 100));
}

TEST_F(DevicesTest, ABudgetThatShrinksEvictsOnItsDeviceOnly) {
  Resident("a", On(0, 40));
  Resident("b", On(0, 40));
  Resident("c", On(1, 40));
  options_.capacity.device_bytes = {50, 40};
  EXPECT_EQ(manager().Reconfigure(options_, policy_), Bytes{});
  executor_.RunAll();
  EXPECT_THAT(ResidentModels(), ElementsAre("b", "c"));
}

TEST_F(DevicesTest, TooMuchOnOneDeviceKeepsNobodyOffAnother) {
  manager().SetHardPins({Id("pinned")});
  Resident("pinned", On(1, 40));
  options_.capacity.device_bytes = {100, 10};
  EXPECT_EQ(manager().Reconfigure(options_, policy_), (Bytes{{0, 30}, 0, 0}));
  executor_.RunAll();
  Resident("a", On(0, 60));
  Resident("b", On(0, 60));  // "a" has to go for it
  EXPECT_THAT(ResidentModels(), ElementsAre("b", "pinned"));
  manager().CheckInvariants();
}

TEST_F(DevicesTest, WhatMoreMemoryWouldSpareIsSaidOfTheDeviceThatWasShort) {
  for (const char* model : {"a", "b"}) Exists(model, On(0, 60, 5));
  for (const char* model : {"a", "b", "a"}) Ask(model).Release();
  EXPECT_THAT(manager().PlanFor({Dimension::kDevice, 0}).points, SizeIs(1));
  EXPECT_THAT(manager().PlanFor({Dimension::kDevice, 1}).points, IsEmpty());
  EXPECT_THAT(manager().PlanFor(Dimension::kHost).points, IsEmpty());
}

TEST_F(DevicesTest, WhatCannotBeFreedLeavesTheBudgetOfItsDevice) {
  ExistsAndLoses("leaky", On(0, 50), {{30}, 0, 0});
  Ask("leaky").Release();
  Resident("other", On(1, 40));
  bool gone = false;
  manager().Unload(Id("leaky"), [&] { gone = true; });
  executor_.RunAll();
  EXPECT_TRUE(gone);
  EXPECT_EQ(usage().capacity, (Bytes{{70, 40}, 1000, 0}));
  EXPECT_EQ(usage().lost, (Bytes{{30}, 0, 0}));
  EXPECT_EQ(Sample("hearth_budget_lost_bytes", "fake:0"), 30);
  EXPECT_EQ(Sample("hearth_budget_lost_bytes", "fake:1"), 0);
  const EventLog::History history = manager().events().Of(Id("leaky"));
  ASSERT_NE(history.last_loss, nullptr);
  EXPECT_EQ(history.last_loss->bytes, (Bytes{{30}, 0, 0}));
  EXPECT_EQ(history.last->kind, CacheEventKind::kUnloaded) << "how it left says more";
  Exists("large", On(0, 71));
  EXPECT_THAT(Ask("large").status(), Fails(kFailedPrecondition, "70 B of the 100 B of cache.budget.device"));
  Resident("fits", On(0, 70));
  EXPECT_THAT(ResidentModels(), ElementsAre("fits", "other"));
}

TEST_F(DevicesTest, AVictimThatIsNotFreedIsFollowedByOthers) {
  ExistsAndLoses("leaky", On(0, 50), {{50}, 0, 0});
  Ask("leaky").Release();
  Resident("next", On(0, 50));
  Exists("new", On(0, 50));
  Cold cold = Ask("new");  // for which "leaky" goes, and that was in vain
  ASSERT_TRUE(cold.ok()) << cold.status();
  EXPECT_THAT(ResidentModels(), ElementsAre("new"));
  EXPECT_EQ(usage().capacity.device_bytes, (DeviceBytes{50, 40}));
  EXPECT_LE(usage().used(), usage().capacity);
  manager().CheckInvariants();
}

TEST_F(DevicesTest, WhoWaitsForRoomThatIsLostHearsAtOnceThatItCanNeverFit) {
  ExistsAndLoses("leaky", On(0, 30), {{30}, 0, 0});
  Cold leaky = Ask("leaky");
  Exists("busy", On(0, 60));
  Cold busy = Ask("busy");
  Exists("new", On(0, 80));
  Cold cold = Ask("new");
  EXPECT_FALSE(cold.done());
  manager().Unload(Id("leaky"), [] {});
  leaky.Release();
  executor_.RunAll();
  EXPECT_THAT(cold.status(), Fails(kFailedPrecondition,
                                   "80 B of fake:0 memory, and 70 B of the 100 B of cache.budget.device are left, of "
                                   "which 30 B were lost when the device could not free them"));
  EXPECT_EQ(Ask("new").status(), cold.status()) << "as who asks now";
}

TEST_F(DevicesTest, WhoWaitsForRoomThatItsOwnVictimLosesHearsAtOnceThatItCanNeverFit) {
  ExistsAndLoses("leaky", On(0, 30), {{30}, 0, 0});
  Ask("leaky").Release();
  Exists("busy", On(0, 20));
  Cold busy = Ask("busy");
  Exists("new", On(0, 80));
  Cold cold = Ask("new");
  EXPECT_THAT(cold.status(), Fails(kFailedPrecondition, "of which 30 B were lost"));
}

TEST_F(DevicesTest, SoDoesWhoLosesTheRoomOfOneVictimAfterTheOther) {
  for (const char* model : {"a", "b"}) {
    ExistsAndLoses(model, On(0, 40), {{40}, 0, 0});
    Ask(model).Release();
  }
  Exists("new", On(0, 40));
  Cold cold = Ask("new");
  EXPECT_THAT(cold.status(), Fails(kFailedPrecondition, "of which 80 B were lost"));
}

TEST_F(DevicesTest, WhoWaitsForRoomBesidePinsThatMemoryIsLostToHearsSoAtOnce) {
  manager().SetHardPins({Id("pinned")});
  Resident("pinned", On(0, 40));
  ExistsAndLoses("leaky", On(0, 30), {{20}, 0, 0});
  Cold leaky = Ask("leaky");
  Exists("new", On(0, 50));
  Cold cold = Ask("new");
  EXPECT_FALSE(cold.done());
  manager().Unload(Id("leaky"), [] {});
  leaky.Release();
  executor_.RunAll();
  EXPECT_THAT(cold.status(), Fails(kResourceExhausted, "of which 20 B were lost"));
}

TEST_F(DevicesTest, LostMemoryStaysLostWhenTheBudgetIsSetAnew) {
  ExistsAndLoses("leaky", On(0, 50), {{30}, 0, 0});
  Ask("leaky").Release();
  manager().Unload(Id("leaky"), [] {});
  executor_.RunAll();
  options_.capacity.device_bytes = {200, 40};
  manager().Reconfigure(options_, policy_);
  EXPECT_EQ(usage().capacity.device_bytes, (DeviceBytes{170, 40}));
  EXPECT_EQ(usage().configured.device_bytes, (DeviceBytes{200, 40}));
  options_.capacity.device_bytes = {20, 40};
  manager().Reconfigure(options_, policy_);
  EXPECT_EQ(usage().capacity.device_bytes, (DeviceBytes{0, 40})) << "no less than nothing";
}

TEST_F(DevicesTest, ALoadThatFailsAndLosesMemoryIsNoted) {
  fakes::FakeLoader::Script script;
  script.model.footprint = On(1, 40);
  script.load_error = absl::DataLossError("cut short");
  script.on_load = [this](const ModelSpec&, const std::stop_token&) { lost_ += Bytes{{0, 25}, 0, 0}; };
  loader_.Set("broken", script);
  EXPECT_THAT(Ask("broken").status(), Fails(kDataLoss, "cut short"));
  EXPECT_EQ(usage().capacity.device_bytes, (DeviceBytes{100, 15}));
}

TEST_F(DevicesTest, IdleModelsMakeUpForMemoryThatWasLostElsewhere) {
  Resident("a", On(0, 50));
  ExistsAndLoses("leaky", On(0, 50), {{80}, 0, 0});  // more than its own: what another one left behind is seen now
  Ask("leaky").Release();
  manager().Unload(Id("leaky"), [] {});
  executor_.RunAll();
  EXPECT_THAT(ResidentModels(), IsEmpty());
  EXPECT_LE(usage().used(), usage().capacity);
}

}  // namespace
}  // namespace hearth
