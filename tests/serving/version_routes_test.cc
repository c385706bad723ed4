#include "server/serving/version_routes.h"

#include "server/serving/keep_alive.h"
#include "tests/serving/serving_fixture.h"

namespace hearth {
namespace {

using std::chrono::minutes;
using std::chrono::seconds;
using testing::HasSubstr;

class VersionRoutesTest : public ServingTest {
 protected:
  void AddVersion(const std::string& model, std::int64_t version, const std::string& yaml = "") {
    AddModel(model, EchoModel(), yaml, version);
  }
  // Writes nothing into the catalog: that is for Rescanned to find.
  void Write(const std::string& model, std::int64_t version) {
    WriteFile(root_ / model / std::to_string(version) / "model.pt", "program");
  }
  void WriteYaml(const std::string& model, const std::string& yaml) { WriteFile(root_ / model / "model.yaml", yaml); }
  void Rescan() {
    ASSERT_TRUE(catalog_->Scan().ok());
    versions_->Rescanned();
  }
  // A version that is found and cannot be loaded.
  void FindBad(const std::string& model, std::int64_t version) {
    Write(model, version);
    loader_.FailLoad(1, absl::InvalidArgumentError("no archive"));
    Rescan();
    load_.RunAll();
  }
  void MakeVersionResident(const std::string& model, std::int64_t version) {
    bool ok = false;
    manager_->Load({model, version}, {}, kNoDeadline, [&](const auto& report) { ok = report.ok(); });
    load_.RunAll();
    ASSERT_TRUE(ok);
  }
  bool IsResident(const std::string& model, std::int64_t version) {
    return static_cast<bool>(manager_->Peek({model, version}));
  }
  // The version that answers, or 0.
  std::int64_t Answers(const std::string& model, const std::string& version = "") {
    const absl::StatusOr<ModelId> id = versions_->Resolve(model, version);
    return id.ok() ? id->version : 0;
  }
  std::int64_t Served(const std::string& model, const std::string& version = "") {
    InferRequest request = Request(model);
    request.version = version;
    const Answer answer = Infer(std::move(request));
    RunAll();
    EXPECT_TRUE(answer->has_value() && (*answer)->ok());
    return (*answer)->value().model.version;
  }
};

TEST_F(VersionRoutesTest, ANewVersionAnswersWhenItIsReadyAndNotBefore) {
  AddVersion("m", 1);
  MakeVersionResident("m", 1);
  Write("m", 2);
  Rescan();
  EXPECT_EQ(Answers("m"), 1);
  EXPECT_EQ(Answers("m", "2"), 2);
  load_.RunAll();  // which the rescan has begun
  EXPECT_TRUE(IsResident("m", 2));
  EXPECT_EQ(Answers("m"), 2);
  EXPECT_EQ(Served("m"), 2);
  EXPECT_EQ(Served("m", "1"), 1);
  EXPECT_TRUE(IsResident("m", 1));  // it is still served, to those who name it
}

TEST_F(VersionRoutesTest, TheFirstRequestFindsOutWhatNobodyTold) {
  AddVersion("m", 1);
  MakeVersionResident("m", 1);
  Write("m", 2);
  ASSERT_TRUE(catalog_->Scan().ok());
  EXPECT_EQ(Answers("m"), 1);
  load_.RunAll();
  EXPECT_EQ(Answers("m"), 2);
}

TEST_F(VersionRoutesTest, AModelThatIsNotResidentMovesAtOnceAndLoadsNothing) {
  AddVersion("m", 1);
  Write("m", 2);
  Rescan();
  EXPECT_EQ(Answers("m"), 2);
  EXPECT_EQ(load_.RunAll(), 0u);
}

TEST_F(VersionRoutesTest, TheVersionBeforeGoesOnWhenTheNewOneIsBroken) {
  AddVersion("m", 1);
  MakeVersionResident("m", 1);
  FindBad("m", 2);
  EXPECT_EQ(Served("m"), 1);
  clock_.Advance(seconds(10));  // the failure is not remembered any longer
  versions_->Rescanned();
  load_.RunAll();
  EXPECT_EQ(Served("m"), 2);
}

TEST_F(VersionRoutesTest, OnceTheVersionBeforeHasLeftTheNewOneIsAskedFor) {
  AddVersion("m", 1);
  MakeVersionResident("m", 1);
  FindBad("m", 2);
  manager_->Evict({"m", 1}, [](const auto&) {});
  load_.RunAll();
  EXPECT_EQ(Answers("m"), 2);
  MakeVersionResident("m", 1);
  EXPECT_EQ(Answers("m"), 2);  // for good
}

TEST_F(VersionRoutesTest, AVersionThatThePolicyLeavesOutLeavesWhenTheNewOneIsReady) {
  AddVersion("m", 1, "versions: {latest: 1}\n");
  MakeVersionResident("m", 1);
  Write("m", 2);
  Rescan();
  EXPECT_EQ(Answers("m"), 1);
  const auto named = versions_->Resolve("m", "1");
  EXPECT_THAT(Text(named.status()), HasSubstr("leaves it out"));
  EXPECT_TRUE(versions_->GoesOn({"m", 1}));
  EXPECT_FALSE(versions_->GoesOn({"m", 2}));
  EXPECT_EQ(Served("m"), 1);
  load_.RunAll();
  EXPECT_EQ(Served("m"), 2);
  EXPECT_FALSE(versions_->GoesOn({"m", 1}));
  EXPECT_FALSE(IsResident("m", 1));
  EXPECT_TRUE(Exposes("hearth_evictions_total{reason=\"replaced\"} 1"));
}

TEST_F(VersionRoutesTest, ANewVersionDisplacesOthersIfItHasTo) {
  auto big = EchoModel();
  big.footprint.host_bytes = 400;
  AddModel("m", big);
  MakeVersionResident("m", 1);
  AddModel("other", big);
  MakeVersionResident("other", 1);
  const Answer used = Infer(Request("other"));
  RunAll();
  const Answer keeps = Infer(Request("m"));
  RunAll();
  Write("m", 2);
  Rescan();
  load_.RunAll();
  EXPECT_EQ(Answers("m"), 2);
}

TEST_F(VersionRoutesTest, WithResourcePreservingTheVersionBeforeLeavesFirstWhereBothDoNotFit) {
  auto big = EchoModel();
  big.footprint.host_bytes = 600;
  AddModel("m", big, "resource_preserving: true\n");
  MakeVersionResident("m", 1);
  Write("m", 2);
  bool together = false;
  fakes::FakeLoader::Script script;
  script.model = big;
  script.on_load = [&](const ModelSpec&, std::stop_token) { together |= IsResident("m", 1); };
  loader_.Set("m", script);
  Rescan();
  EXPECT_EQ(Answers("m"), 1) << "until it is known whether they fit";
  load_.RunAll();
  EXPECT_EQ(Answers("m"), 2);
  EXPECT_FALSE(together);
  EXPECT_FALSE(IsResident("m", 1));
  EXPECT_TRUE(IsResident("m", 2));
}

TEST_F(VersionRoutesTest, ResourcePreservingTakesNothingDownForAVersionThatDoesNotLoad) {
  AddVersion("m", 1, "resource_preserving: true\n");
  MakeVersionResident("m", 1);
  FindBad("m", 2);
  EXPECT_EQ(Answers("m"), 1);
}

TEST_F(VersionRoutesTest, ABadVersionThatIsTakenAwayAgainIsForgotten) {
  AddVersion("m", 1);
  MakeVersionResident("m", 1);
  FindBad("m", 2);
  std::filesystem::remove_all(root_ / "m" / "2");
  Rescan();
  load_.RunAll();
  for (const auto& row : manager_->Snapshot()) EXPECT_EQ(row.id.version, 1) << "no failed row is left of the other";
  EXPECT_FALSE(versions_->GoesOn({"m", 1})) << "it answers for itself";
  EXPECT_EQ(Served("m"), 1);
}

TEST_F(VersionRoutesTest, ResourcePreservingTakesNoVersionFromALabel) {
  AddVersion("m", 1, "resource_preserving: true\nlabels: {stable: 1}\n");
  MakeVersionResident("m", 1);
  Write("m", 2);
  Rescan();
  load_.RunAll();
  EXPECT_TRUE(IsResident("m", 1));
  EXPECT_EQ(Answers("m"), 2);
}

TEST_F(VersionRoutesTest, AVersionThatWasTakenAwayIsNotGoneOnWith) {
  AddVersion("m", 1);
  AddVersion("m", 2);
  MakeVersionResident("m", 2);
  std::filesystem::remove_all(root_ / "m" / "2");
  Rescan();
  EXPECT_EQ(Answers("m"), 1);
}

TEST_F(VersionRoutesTest, ARequestMayNameALabel) {
  AddVersion("m", 1, "labels: {stable: 1, canary: 2}\n");
  AddVersion("m", 2);
  EXPECT_EQ(Served("m", "stable"), 1);
  EXPECT_EQ(Served("m", "canary"), 2);
  EXPECT_EQ(Served("m"), 2);
  EXPECT_TRUE(repository_->ModelReady("m", "stable"));
  EXPECT_FALSE(repository_->ModelReady("m", "other"));
  std::optional<absl::StatusOr<ModelMetadata>> metadata;
  repository_->Metadata("m", "stable", kNoDeadline, [&](auto answer) { metadata = std::move(answer); });
  ASSERT_TRUE(metadata && metadata->ok());
  EXPECT_EQ((*metadata)->id.version, 1);
  EXPECT_EQ((*metadata)->properties.at("hearth_labels"), "canary=2,stable=1");
}

TEST_F(VersionRoutesTest, WhatIsNeitherANumberNorALabelIsRefusedAsTritonDoes) {
  AddVersion("plain", 1);
  const auto plain = versions_->Resolve("plain", "stable");
  EXPECT_EQ(plain.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Text(plain.status()), testing::EndsWith("version should be an integral value > 0"));
  AddVersion("m", 1, "labels: {stable: 1, canary: 1}\n");
  EXPECT_THAT(Text(versions_->Resolve("m", "stabel").status()),
              testing::EndsWith("or one of the model's labels: canary, stable"));
}

TEST_F(VersionRoutesTest, ALabelMovesOnlyOntoAVersionThatIsReady) {
  AddVersion("m", 1, "labels: {stable: 1}\n");
  AddVersion("m", 2);
  MakeVersionResident("m", 1);
  WriteYaml("m", "labels: {stable: 2}\n");
  Rescan();
  EXPECT_EQ(Answers("m", "stable"), 1);
  load_.RunAll();
  EXPECT_EQ(Answers("m", "stable"), 2);
  WriteYaml("m", "labels: {stable: 1}\n");  // it is there still
  Rescan();
  EXPECT_EQ(Answers("m", "stable"), 1);
}

TEST_F(VersionRoutesTest, ALabelThatIsTakenBackBeforeItMovedStaysWhereItWas) {
  AddVersion("m", 1, "labels: {stable: 1}\n");
  AddVersion("m", 2);
  MakeVersionResident("m", 1);
  WriteYaml("m", "labels: {stable: 2}\n");
  Rescan();
  WriteYaml("m", "labels: {stable: 1}\n");
  Rescan();
  load_.RunAll();
  EXPECT_EQ(Answers("m", "stable"), 1);
}

TEST_F(VersionRoutesTest, ALabelOfAVersionThatIsYetToComeWaitsForIt) {
  AddVersion("m", 1, "labels: {stable: 1}\n");
  MakeVersionResident("m", 1);
  WriteYaml("m", "labels: {stable: 2}\n");
  Rescan();
  load_.RunAll();
  EXPECT_EQ(Served("m", "stable"), 1);
  Write("m", 2);
  clock_.Advance(seconds(10));
  Rescan();
  load_.RunAll();
  EXPECT_EQ(Served("m", "stable"), 2);
}

TEST_F(VersionRoutesTest, AnUnloadEndsWhatWasOnTheMove) {
  AddVersion("m", 1);
  MakeVersionResident("m", 1);
  Write("m", 2);
  Rescan();
  repository_->Unload("m", [](const absl::Status&) {});
  load_.RunAll();
  EXPECT_EQ(versions_->Resolve("m", "").status().code(), absl::StatusCode::kNotFound);
  catalog_->SetUnloaded("m", false);
  MakeVersionResident("m", 1);
  EXPECT_EQ(Answers("m"), 2);
}

TEST_F(VersionRoutesTest, AnExplicitLoadIsHowOneLooksAtAModelAgain) {
  AddVersion("m", 1);
  MakeVersionResident("m", 1);
  Write("m", 2);
  bool loaded = false;
  repository_->Load("m", kNoDeadline, [&](const auto& report) { loaded = report.ok(); });
  EXPECT_EQ(Answers("m"), 1);
  load_.RunAll();
  EXPECT_TRUE(loaded);
  EXPECT_EQ(Answers("m"), 2);
}

TEST_F(VersionRoutesTest, AModelThatLeftTheRepositoryIsNotServedBecauseItWasOnTheMove) {
  AddVersion("m", 1);
  MakeVersionResident("m", 1);
  Write("m", 2);
  Rescan();
  std::filesystem::remove_all(root_ / "m");
  Rescan();
  EXPECT_FALSE(versions_->GoesOn({"m", 1}));
  EXPECT_EQ(versions_->Resolve("m", "").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(VersionRoutesTest, ARequestSaysHowLongItsModelStays) {
  AddVersion("m", 1);
  InferRequest request = Request("m");
  request.keep_alive = minutes(5);
  const Answer answer = Infer(std::move(request));
  RunAll();
  ASSERT_TRUE((*answer)->ok());
  const auto pass = [&](Duration time) {
    clock_.Advance(time);
    timer_.RunDue();
    RunAll();
  };
  pass(minutes(5) - seconds(1));
  EXPECT_TRUE(IsResident("m", 1));
  pass(seconds(1));
  EXPECT_FALSE(IsResident("m", 1));
}

TEST(KeepAlive, IsATimeASpanOfSecondsOrForever) {
  EXPECT_EQ(*ParseKeepAlive("5m"), minutes(5));
  EXPECT_EQ(*ParseKeepAlive("0s"), Duration{});
  EXPECT_EQ(*ParseKeepAlive("0"), Duration{});
  EXPECT_EQ(*ParseKeepAlive("-1"), kKeepForever);
  EXPECT_EQ(*KeepAliveSeconds(90), seconds(90));
  EXPECT_EQ(*KeepAliveSeconds(0), Duration{});
  EXPECT_EQ(*KeepAliveSeconds(-1), kKeepForever);
  for (const char* bad : {"", "5", "-5m", "-2", "soon", "1000000h 2"}) {
    const auto refused = ParseKeepAlive(bad);
    EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument) << bad;
    EXPECT_THAT(Text(refused.status()), HasSubstr("\"5m\"")) << bad;
  }
  EXPECT_EQ(KeepAliveSeconds(INT64_MAX).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace hearth
