#include "server/serving/repository_service.h"

#include "tests/serving/serving_fixture.h"

namespace hearth {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class RepositoryServiceTest : public ServingTest {
 protected:
  using Loaded = std::shared_ptr<std::optional<absl::StatusOr<LoadReport>>>;
  Loaded Load(const std::string& model, Deadline deadline = kNoDeadline) {
    auto result = std::make_shared<std::optional<absl::StatusOr<LoadReport>>>();
    repository_->Load(model, deadline,
                      [result](auto report) { result->emplace(std::move(report)); });
    return result;
  }
  Loaded LoadWith(const std::string& model, const std::string& instances) {
    auto result = std::make_shared<std::optional<absl::StatusOr<LoadReport>>>();
    repository_->Load(model,
                      std::make_shared<const TritonConfig>(TritonConfig{TritonConfig::Form::kJson, instances, "config"}),
                      kNoDeadline, [result](auto report) { result->emplace(std::move(report)); });
    return result;
  }
  int Instances(const std::string& model) const { return catalog_->Spec({model, 1})->options.instances; }
  using Described = std::shared_ptr<std::optional<absl::StatusOr<ModelMetadata>>>;
  Described Metadata(const std::string& model, const std::string& version = "",
                     Deadline deadline = kNoDeadline) {
    auto result = std::make_shared<std::optional<absl::StatusOr<ModelMetadata>>>();
    repository_->Metadata(model, version, deadline,
                          [result](auto metadata) { result->emplace(std::move(metadata)); });
    return result;
  }
  std::shared_ptr<std::optional<absl::Status>> Unload(const std::string& model) {
    auto result = std::make_shared<std::optional<absl::Status>>();
    repository_->Unload(model,
                        [result](absl::Status status) { result->emplace(std::move(status)); });
    return result;
  }
  // "m:1 READY (reason)" for every row.
  std::vector<std::string> Index(bool ready_only = false) const {
    std::vector<std::string> rows;
    for (const IndexRow& row : repository_->Index(ready_only)) {
      rows.push_back(StrCat(row.model, ":", row.version, " ", row.state, " (", row.reason, ")"));
    }
    return rows;
  }
};

TEST_F(RepositoryServiceTest, ALoadLooksAtFilesOnItsExecutorAndNotOnTheThreadThatAsks) {
  fakes::ManualExecutor files;
  repository_.emplace(RepositoryService::Deps{.catalog = *catalog_,
                                              .manager = *manager_,
                                              .clock = clock_,
                                              .versions = *versions_,
                                              .executor = &files});
  const Loaded good = Load("m");
  const Loaded bad = Load("nobody");
  const Loaded nameless = Load("");
  AddModel("m");  // after it was asked for, before anybody looked
  EXPECT_FALSE(*good || *bad || *nameless);
  EXPECT_EQ(load_.queued(), 0u);
  files.RunAll();
  ASSERT_TRUE(*bad && *nameless);
  EXPECT_EQ(Text((*bad)->status()), "failed to load 'nobody', failed to poll from model repository");
  EXPECT_EQ((*nameless)->status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(*good);
  load_.RunAll();
  ASSERT_TRUE(*good);
  EXPECT_TRUE((*good)->ok()) << (*good)->status();
}

TEST_F(RepositoryServiceTest, ALoadThatNobodyComesToIsAnsweredThatTheServerStops) {
  AddModel("m");
  fakes::ManualExecutor files;
  repository_.emplace(RepositoryService::Deps{.catalog = *catalog_,
                                              .manager = *manager_,
                                              .clock = clock_,
                                              .versions = *versions_,
                                              .executor = &files});
  const Loaded queued = Load("m");
  files.ShutDown();
  const Loaded late = Load("m");
  for (const Loaded& load : {queued, late}) {
    ASSERT_TRUE(*load);
    EXPECT_EQ((*load)->status().code(), absl::StatusCode::kUnavailable);
    EXPECT_TRUE(RetryAfter((*load)->status()));
  }
}

TEST_F(RepositoryServiceTest, ReadyIsWhatItWasTold) {
  EXPECT_TRUE(repository_->live());
  EXPECT_EQ(repository_->why_not_ready(), "starting");
  EXPECT_FALSE(repository_->ready());
  repository_->SetWhyNotReady("waiting for 'vad'");
  EXPECT_EQ(repository_->why_not_ready(), "waiting for 'vad'");
  EXPECT_FALSE(repository_->ready());
  repository_->SetWhyNotReady("");
  EXPECT_TRUE(repository_->ready());
}

TEST_F(RepositoryServiceTest, AModelIsReadyWhileItIsResident) {
  AddModel("m");
  EXPECT_FALSE(repository_->ModelReady("m", ""));
  MakeResident("m");
  EXPECT_TRUE(repository_->ModelReady("m", ""));
  EXPECT_TRUE(repository_->ModelReady("m", "1"));
  EXPECT_FALSE(repository_->ModelReady("m", "2"));
  EXPECT_FALSE(repository_->ModelReady("m", "x"));
  EXPECT_FALSE(repository_->ModelReady("nobody", ""));
  EXPECT_EQ(Row("m")->hits, 0u);
}

TEST_F(RepositoryServiceTest, AModelMayBeReadyWhereTheNextRequestWouldLoadIt) {
  RepositoryService repository({*catalog_, *manager_, clock_, *versions_, {}, nullptr, nullptr, /*loadable_is_ready=*/true});
  AddModel("m");
  EXPECT_TRUE(repository.ModelReady("m", ""));
  EXPECT_TRUE(repository.ModelReady("m", "1"));
  EXPECT_FALSE(repository.ModelReady("m", "2"));
  EXPECT_FALSE(repository.ModelReady("nobody", ""));
  EXPECT_FALSE(Row("m").has_value()) << "to be asked loads nothing";
  fakes::FakeLoader::Script broken;
  broken.load_error = absl::InvalidArgumentError("broken");
  loader_.Set("m", std::move(broken));
  Infer(Request("m"));
  RunAll();
  EXPECT_FALSE(repository.ModelReady("m", "")) << "it did not load";
  clock_.Advance(std::chrono::minutes(10));
  EXPECT_FALSE(repository.ModelReady("m", "")) << "nor would it";
  SetModel("m", EchoModel());
  MakeResident("m");
  EXPECT_TRUE(repository.ModelReady("m", ""));
  catalog_->SetUnloaded("m", true);
  EXPECT_FALSE(repository.ModelReady("m", ""));
}

TEST_F(RepositoryServiceTest, AModelIsReadyAgainOnceALoadThatFailedForNothingOfItsOwnWouldBeTriedAgain) {
  RepositoryService repository({*catalog_, *manager_, clock_, *versions_, {}, nullptr, nullptr, /*loadable_is_ready=*/true});
  AddModel("m");
  fakes::FakeLoader::Script unlucky;
  unlucky.load_error = absl::UnavailableError("the disk is away");
  loader_.Set("m", std::move(unlucky));
  Infer(Request("m"));
  RunAll();
  EXPECT_FALSE(repository.ModelReady("m", ""));
  clock_.Advance(std::chrono::minutes(10));
  EXPECT_TRUE(repository.ModelReady("m", ""));
}

TEST_F(RepositoryServiceTest, DescribesAResidentModelWithoutATrace) {
  auto model = EchoModel();
  model.signature.platform = "pytorch_libtorch";
  model.footprint.host_bytes = 12;
  model.footprint.extents = {{{}, 0, 30}};
  model.report[LoadPhase::kBind].wall = milliseconds(4);
  AddModel("m", model);
  AddModel("m", model, "", 3);
  MakeResident("m");
  const TimePoint used = Row("m")->last_used;
  clock_.Advance(seconds(5));
  const Described answer = Metadata("m", "1");
  ASSERT_TRUE(answer->has_value());
  ASSERT_TRUE((*answer)->ok()) << (*answer)->status();
  const ModelMetadata& metadata = ***answer;
  EXPECT_EQ(metadata.id, (ModelId{"m", 1}));
  EXPECT_EQ(metadata.versions, (std::vector<std::int64_t>{1, 3}));
  EXPECT_EQ(metadata.signature.platform, "pytorch_libtorch");
  EXPECT_EQ(metadata.signature.inputs.size(), 1u);
  EXPECT_EQ(metadata.properties.at("hearth_residency"), "resident");
  EXPECT_EQ(metadata.properties.at("hearth_host_bytes"), "12");
  EXPECT_EQ(metadata.properties.at("hearth_mapped_bytes"), "30");
  EXPECT_EQ(metadata.properties.at("hearth_load_ms"), "4");
  EXPECT_EQ(Row("m")->last_used, used);
  EXPECT_EQ(Row("m")->hits, 0u);
}

TEST_F(RepositoryServiceTest, LoadsAColdModelToDescribeIt) {
  AddModel("m");
  const Described answer = Metadata("m");
  EXPECT_FALSE(answer->has_value());
  load_.RunAll();
  ASSERT_TRUE(answer->has_value());
  EXPECT_TRUE((*answer)->ok());
  EXPECT_TRUE(Exposes(R"(hearth_cache_misses_total{kind="load",model="m",version="1"} 0)"));
  EXPECT_TRUE(Exposes(R"(hearth_cache_hits_total{model="m",version="1"} 0)"));
}

TEST_F(RepositoryServiceTest, DescribingABrokenModelDoesNotLoadItAgainAndAgain) {
  AddModel("m");
  loader_.FailLoad(1, absl::InvalidArgumentError("not a zip archive"));
  const Described first = Metadata("m");
  load_.RunAll();
  EXPECT_EQ((*first)->status().code(), absl::StatusCode::kInvalidArgument);
  const Described second = Metadata("m");
  ASSERT_TRUE(second->has_value());
  EXPECT_THAT(Text((*second)->status()), HasSubstr("not a zip archive"));
  EXPECT_EQ(RetryAfter((*second)->status()), seconds(5));
  EXPECT_EQ(loader_.loads("m"), 1);
  clock_.Advance(seconds(5));
  const Described third = Metadata("m");
  load_.RunAll();
  EXPECT_TRUE((*third)->ok());
}

TEST_F(RepositoryServiceTest, MetadataRefusesWhatIsNotThere) {
  AddModel("m");
  EXPECT_EQ(Text((*Metadata("nobody"))->status()),
            "Request for unknown model: 'nobody' is not found");
  EXPECT_EQ((*Metadata("m", "7"))->status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ((*Metadata("m", "x"))->status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(RepositoryServiceTest, TheIndexTellsEveryState) {
  AddModel("cold");
  AddModel("failed");
  AddModel("loading");
  AddModel("ready");
  AddModel("unloaded");
  AddModel("unloading");
  AddModel("unwell", EchoModel(), "no_such_key: 1\n");
  MakeResident("ready");
  MakeResident("unloading");
  loader_.FailLoad(1, absl::InvalidArgumentError("not a zip archive"));
  Load("failed");
  load_.RunAll();
  Unload("unloaded");
  Unload("unloading");
  Load("loading");
  const auto rows = Index();
  ASSERT_EQ(rows.size(), 7u);
  EXPECT_EQ(rows[0], "cold:1  (not resident; loads on the first request)");
  EXPECT_THAT(rows[1], AllOf(StartsWith("failed:1 UNAVAILABLE ("), HasSubstr("not a zip archive")));
  EXPECT_EQ(rows[2], "loading:1 LOADING ()");
  EXPECT_EQ(rows[3], "ready:1 READY ()");
  EXPECT_EQ(rows[4], "unloaded:1 UNAVAILABLE (unloaded)");
  EXPECT_EQ(rows[5], "unloading:1 UNLOADING ()");
  EXPECT_THAT(rows[6], AllOf(StartsWith("unwell: UNAVAILABLE ("), HasSubstr("no_such_key")));
  EXPECT_EQ(Index(/*ready_only=*/true), (std::vector<std::string>{"ready:1 READY ()"}));
  load_.RunAll();
  EXPECT_EQ(Index()[5], "unloading:1 UNAVAILABLE (unloaded)");
}

TEST_F(RepositoryServiceTest, AReloadKeepsTheIndexReady) {
  AddModel("m");
  MakeResident("m");
  manager_->Load({"m", 1}, {.reload = true}, kNoDeadline, [](auto) {});
  EXPECT_EQ(Index(), (std::vector<std::string>{"m:1 READY ()"}));
}

TEST_F(RepositoryServiceTest, LoadsTheHighestVersionThatIsThereNow) {
  AddModel("m");
  WriteFile(root_ / "m" / "2" / "model.pt", "program");  // not scanned yet
  const Loaded loaded = Load("m");
  load_.RunAll();
  EXPECT_TRUE((*loaded)->ok()) << (*loaded)->status();
  EXPECT_TRUE(repository_->ModelReady("m", "2"));
  EXPECT_FALSE(repository_->ModelReady("m", "1"));
}

TEST_F(RepositoryServiceTest, TellsThatItHasReadTheRepositoryAgain) {
  int rescans = 0;
  RepositoryService repository({*catalog_, *manager_, clock_, *versions_, [&] { ++rescans; }});
  repository.Load("nobody", kNoDeadline, [](const auto&) {});
  EXPECT_EQ(rescans, 1);
}

TEST_F(RepositoryServiceTest, LeavesAResidentModelThatDidNotChangeAlone) {
  AddModel("m");
  MakeResident("m");
  const Loaded loaded = Load("m");
  EXPECT_TRUE(loaded->has_value() && (*loaded)->ok());
  load_.RunAll();
  EXPECT_EQ(loader_.loads("m"), 1);
}

TEST_F(RepositoryServiceTest, LoadsAnewWhenAFileChangedSince) {
  AddModel("m");
  MakeResident("m");
  WriteFile(root_ / "m/1/model.pt", "another program");
  const Loaded loaded = Load("m");
  load_.RunAll();
  EXPECT_TRUE(loaded->has_value() && (*loaded)->ok());
  EXPECT_EQ(loader_.loads("m"), 2);
}

TEST_F(RepositoryServiceTest, LoadErrorsAreTritons) {
  AddModel("m");
  EXPECT_EQ((*Load(""))->status(), absl::InvalidArgumentError("Model name cannot be empty"));
  EXPECT_THAT(Text((*Load("../m"))->status()),
              HasSubstr("must not contain path traversal characters"));
  EXPECT_EQ((*Load("nobody"))->status(),
            absl::InternalError("failed to load 'nobody', failed to poll from model repository"));
  loader_.FailLoad(1, absl::InternalError("not a zip archive"));
  const Loaded bad = Load("m");
  load_.RunAll();
  EXPECT_EQ((*bad)->status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Text((*bad)->status()),
              AllOf(StartsWith("load failed for model 'm': version 1 is at UNAVAILABLE state: "),
                    HasSubstr("not a zip archive")));
  const Loaded late = Load("m", clock_.Now() + seconds(1));
  clock_.Advance(seconds(1));
  timer_.RunDue();
  EXPECT_EQ((*late)->status().code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(RepositoryServiceTest, AModelThatCannotBeUnderstoodIsRefusedWithTheReason) {
  AddModel("m", EchoModel(), "no_such_key: 1\n");
  const Loaded loaded = Load("m");
  EXPECT_EQ((*loaded)->status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Text((*loaded)->status()),
              AllOf(StartsWith("failed to load 'm', "), HasSubstr("no_such_key")));
}

TEST_F(RepositoryServiceTest, ABadModelYamlTakesNoModelDown) {
  AddModel("m", EchoModel(), "instances: 2\n");
  MakeResident("m");
  WriteFile(root_ / "m/model.yaml", "metod: x\n");
  ASSERT_TRUE(catalog_->Scan().ok());
  const Answer answer = Infer(Request("m"));
  RunAll();
  EXPECT_TRUE((*answer)->ok());
  EXPECT_THAT(Index(true), ElementsAre(AllOf(StartsWith("m:1 READY (served as before"),
                                             HasSubstr("metod"))));

  const Loaded loaded = Load("m");
  EXPECT_EQ((*loaded)->status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Text((*loaded)->status()), HasSubstr("metod"));
  RunAll();
  EXPECT_EQ(loader_.loads("m"), 1);
  EXPECT_TRUE(repository_->ModelReady("m", ""));

  WriteFile(root_ / "m/model.yaml", "instances: 1\n");
  const Loaded mended = Load("m");
  RunAll();
  EXPECT_TRUE((*mended)->ok());
  EXPECT_EQ(loader_.loads("m"), 2) << "its model.yaml is another one";
}

TEST_F(RepositoryServiceTest, AnotherConfigThanTheResidentOnesIsAnotherLoad) {
  AddModel("m");
  MakeResident("m");
  for (const auto& [instances, loads] : {std::pair("2", 2), std::pair("2", 2), std::pair("3", 3)}) {
    const Loaded loaded = LoadWith("m", instances);
    RunAll();
    EXPECT_TRUE((*loaded)->ok());
    EXPECT_EQ(loader_.loads("m"), loads);
    EXPECT_EQ(Instances("m"), std::stoi(instances));
  }
  const Loaded plain = Load("m");
  RunAll();
  EXPECT_TRUE((*plain)->ok());
  EXPECT_EQ(loader_.loads("m"), 4) << "without one, it is as the repository says again";
  EXPECT_EQ(Instances("m"), 0);
}

TEST_F(RepositoryServiceTest, AConfigThatCannotBeReadChangesNothing) {
  AddModel("m");
  MakeResident("m");
  const Loaded loaded = LoadWith("m", "many");
  EXPECT_EQ((*loaded)->status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Text((*loaded)->status()), "failed to load 'm', config: no number of instances");
  RunAll();
  EXPECT_EQ(loader_.loads("m"), 1);
  EXPECT_TRUE(repository_->ModelReady("m", ""));
}

TEST_F(RepositoryServiceTest, AConfigThatTheModelDoesNotLoadWithIsPutBack) {
  AddModel("m");
  const Loaded first = LoadWith("m", "2");
  RunAll();
  ASSERT_TRUE((*first)->ok());
  fakes::FakeLoader::Script broken;
  broken.load_error = absl::InvalidArgumentError("no such input");
  loader_.Set("m", std::move(broken));
  const Loaded second = LoadWith("m", "3");
  RunAll();
  EXPECT_EQ((*second)->status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Text((*second)->status()), HasSubstr("no such input"));
  EXPECT_EQ(Instances("m"), 2);
  EXPECT_TRUE(repository_->ModelReady("m", "")) << "the one before goes on";
  SetModel("m", EchoModel());
  const Loaded third = LoadWith("m", "2");
  RunAll();
  EXPECT_TRUE((*third)->ok());
  EXPECT_EQ(loader_.loads("m"), 2) << "it is what is resident";
}

TEST_F(RepositoryServiceTest, AnUnloadLiftsAConfig) {
  AddModel("m");
  const Loaded first = LoadWith("m", "2");
  RunAll();
  ASSERT_TRUE((*first)->ok());
  Unload("m");
  RunAll();
  const Loaded second = Load("m");
  RunAll();
  EXPECT_TRUE((*second)->ok());
  EXPECT_EQ(Instances("m"), 0);
}

TEST_F(RepositoryServiceTest, ALoadThatIsRefusedForItsModelYamlLiftsNoUnload) {
  AddModel("m", EchoModel(), "instances: 2\n");
  Unload("m");
  WriteFile(root_ / "m/model.yaml", "metod: x\n");
  EXPECT_FALSE((*Load("m"))->ok());
  EXPECT_TRUE(catalog_->IsUnloaded("m"));
}

TEST_F(RepositoryServiceTest, UnloadIsDoneWhenTheBytesAreBack) {
  auto model = EchoModel();
  model.footprint.host_bytes = 40;
  AddModel("m", std::move(model));
  MakeResident("m");
  const Answer running = Infer(Request("m"));
  const auto unloaded = Unload("m");
  load_.RunAll();
  EXPECT_FALSE(unloaded->has_value());
  EXPECT_EQ(repository_->usage().used().host_bytes, 40u);
  RunAll();
  EXPECT_TRUE((*running)->ok());
  ASSERT_TRUE(unloaded->has_value());
  EXPECT_TRUE((*unloaded)->ok());
  EXPECT_EQ(repository_->usage().used().host_bytes, 0u);
  EXPECT_TRUE(repository_->Resident().empty());
}

TEST_F(RepositoryServiceTest, AnUnloadWhoseDestructorHangsIsAnsweredAndSaysSo) {
  auto model = EchoModel();
  std::shared_ptr<std::optional<absl::Status>> unloaded;
  model.on_destroy = [&] {
    EXPECT_FALSE(unloaded->has_value());
    clock_.Advance(kLoadTimeout);
    timer_.RunDue();
    ASSERT_TRUE(unloaded->has_value());
    EXPECT_EQ((*unloaded)->code(), absl::StatusCode::kDeadlineExceeded);
    EXPECT_TRUE(catalog_->IsUnloaded("m"));
  };
  AddModel("m", std::move(model));
  MakeResident("m");
  unloaded = Unload("m");
  load_.RunAll();
  EXPECT_EQ(*Unload("m"), std::optional(absl::OkStatus())) << "it has come back";
}

TEST_F(RepositoryServiceTest, AnUnloadOfAModelWhoseLoadHangsIsAnsweredAtOnce) {
  AddModel("m");
  fakes::FakeLoader::Script script;
  script.model = EchoModel();
  script.on_load = [&](const ModelSpec&, const std::stop_token&) {
    clock_.Advance(kLoadTimeout);
    timer_.RunDue();
    const auto unloaded = Unload("m");
    ASSERT_TRUE(unloaded->has_value());
    EXPECT_TRUE((*unloaded)->ok());
    EXPECT_EQ(repository_->Index(false).at(0).state, "LOADING") << "which is what its thread is stuck in";
  };
  loader_.Set("m", std::move(script));
  const Loaded loaded = Load("m");
  load_.RunAll();
  EXPECT_EQ((*loaded)->status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(repository_->Index(false).at(0).reason, "unloaded");
}

TEST_F(RepositoryServiceTest, UnloadStaysInForceUntilLoad) {
  AddModel("m");
  MakeResident("m");
  Unload("m");
  load_.RunAll();
  const Answer refused = Infer(Request("m"));
  ASSERT_TRUE(refused->has_value());
  EXPECT_EQ((*refused)->status().code(), absl::StatusCode::kNotFound);
  EXPECT_FALSE(repository_->ModelReady("m", ""));
  const Loaded loaded = Load("m");
  load_.RunAll();
  EXPECT_TRUE((*loaded)->ok());
  const Answer served = Infer(Request("m"));
  RunAll();
  EXPECT_TRUE((*served)->ok());
}

TEST_F(RepositoryServiceTest, UnloadsEveryVersionEvenOnesThatLeftTheRepository) {
  AddModel("m");
  MakeResident("m");
  WriteFile(root_ / "m" / "2" / "model.pt", "program");
  const Loaded loaded = Load("m");
  load_.RunAll();
  ASSERT_TRUE((*loaded)->ok());
  std::filesystem::remove_all(root_ / "m" / "1");
  ASSERT_TRUE(catalog_->Scan().ok());
  EXPECT_EQ(repository_->Resident().size(), 2u);
  const auto unloaded = Unload("m");
  load_.RunAll();
  EXPECT_TRUE(unloaded->has_value());
  EXPECT_TRUE(repository_->Resident().empty());
}

TEST_F(RepositoryServiceTest, UnloadOfAnUnknownModelIsNotFound) {
  EXPECT_EQ(*Unload("nobody"),
            std::optional(absl::NotFoundError("Request for unknown model: 'nobody' is not found")));
  AddModel("cold");
  EXPECT_EQ(*Unload("cold"), std::optional(absl::OkStatus()));
}

}  // namespace
}  // namespace hearth
