#include "server/serving/preloader.h"

#include "tests/serving/serving_fixture.h"

namespace hearth {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

class PreloaderTest : public ServingTest {
 protected:
  ~PreloaderTest() override { preloader_.Stop(); }

  Preloader preloader_{{*catalog_, *manager_, timer_, clock_},
                       {.backoff = std::chrono::seconds(5), .max_backoff = std::chrono::seconds(8)},
                       [this] { ++changes_; }};
  int changes_ = 0;
};

TEST_F(PreloaderTest, IsReadyAtOnceWhenNothingIsRequired) {
  AddModel("a");
  preloader_.Apply({{"a", std::nullopt, /*required=*/false, /*pin=*/false}});
  EXPECT_TRUE(preloader_.all_required_ready());
  EXPECT_EQ(changes_, 1);
  RunAll();
  EXPECT_TRUE(manager_->TryAcquire({"a", 1}));
}

TEST_F(PreloaderTest, IsReadyWhenEveryRequiredModelIsResident) {
  AddModel("a");
  AddModel("b");
  preloader_.Apply({{"a", std::nullopt, true, false}, {"b", std::nullopt, true, false}});
  EXPECT_THAT(preloader_.waiting_for(), ElementsAre("a", "b"));
  RunAll();
  EXPECT_TRUE(preloader_.all_required_ready());
  EXPECT_GE(changes_, 2);
}

TEST_F(PreloaderTest, APinnedModelIsPinned) {
  AddModel("a");
  preloader_.Apply({{"a", std::nullopt, true, /*pin=*/true}});
  RunAll();
  EXPECT_TRUE(Row("a")->pinned);
}

TEST_F(PreloaderTest, APinBelongsToTheModelForAsLongAsTheListSaysSo) {
  AddModel("a");
  preloader_.Apply({{"a", std::nullopt, true, /*pin=*/true}});
  RunAll();
  manager_->Unload({"a", 1}, [] {});
  RunAll();
  MakeResident("a");
  EXPECT_TRUE(Row("a")->pinned);
  preloader_.Apply({{"a", std::nullopt, true, /*pin=*/false}});
  EXPECT_FALSE(Row("a")->pinned);
  EXPECT_TRUE(preloader_.all_required_ready()) << "it has been loaded";
  preloader_.Apply({{"a", std::nullopt, true, /*pin=*/true}});
  EXPECT_TRUE(Row("a")->pinned);
  preloader_.Apply({});
  EXPECT_FALSE(Row("a")->pinned);
}

TEST_F(PreloaderTest, AModelThatIsNewlyPinnedIsLoadedAgainIfItHadLeft) {
  AddModel("a");
  preloader_.Apply({{"a", std::nullopt, true, false}});
  RunAll();
  manager_->Unload({"a", 1}, [] {});
  RunAll();
  preloader_.Apply({{"a", std::nullopt, true, /*pin=*/true}});
  EXPECT_TRUE(preloader_.all_required_ready());
  RunAll();
  EXPECT_TRUE(Row("a")->pinned);
}

TEST_F(PreloaderTest, APinWithoutAVersionIsTheHighestOnes) {
  AddModel("a");
  preloader_.Apply({{"a", std::nullopt, true, /*pin=*/true}});
  RunAll();
  WriteFile(root_ / "a/2/model.pt", "program");
  ASSERT_TRUE(catalog_->Rescan("a").ok());
  preloader_.RenewPins();
  manager_->Load({"a", 2}, {}, kNoDeadline, [](const auto&) {});
  RunAll();
  for (const ModelCache::Row& row : manager_->Snapshot()) {
    EXPECT_EQ(row.pinned, row.id.version == 2) << row.id.version;
  }
}

TEST_F(PreloaderTest, APinnedModelThatAppearsLaterIsPinned) {
  preloader_.Apply({{"late", std::nullopt, true, /*pin=*/true}});
  WriteFile(root_ / "late/1/model.pt", "program");
  clock_.Advance(std::chrono::seconds(5));
  timer_.RunDue();
  RunAll();
  EXPECT_TRUE(Row("late")->pinned);
}

TEST_F(PreloaderTest, ARequiredModelThatLeftLaterDoesNotMakeTheServerUnready) {
  AddModel("a");
  preloader_.Apply({{"a", std::nullopt, true, false}});
  RunAll();
  manager_->Unload({"a", 1}, [] {});
  RunAll();
  EXPECT_TRUE(preloader_.all_required_ready());
  preloader_.Apply({{"a", std::nullopt, true, false}});
  EXPECT_TRUE(preloader_.all_required_ready());
}

TEST_F(PreloaderTest, ARequiredModelThatFailsIsTriedAgainWithABackOff) {
  AddModel("a");
  loader_.FailLoad(1, absl::InvalidArgumentError("half a file"));
  loader_.FailLoad(2, absl::InvalidArgumentError("half a file"));
  preloader_.Apply({{"a", std::nullopt, true, false}});
  RunAll();
  EXPECT_THAT(preloader_.waiting_for(), ElementsAre("a"));
  clock_.Advance(std::chrono::seconds(5));
  timer_.RunDue();
  RunAll();
  EXPECT_FALSE(preloader_.all_required_ready()) << "the second try failed too";
  clock_.Advance(std::chrono::seconds(7));
  timer_.RunDue();
  RunAll();
  EXPECT_FALSE(preloader_.all_required_ready()) << "twice the back-off, at most max_backoff";
  clock_.Advance(std::chrono::seconds(1));
  timer_.RunDue();
  RunAll();
  EXPECT_TRUE(preloader_.all_required_ready());
}

TEST_F(PreloaderTest, ARequiredModelThatAppearsLaterIsFound) {
  preloader_.Apply({{"late", std::nullopt, true, false}});
  EXPECT_THAT(preloader_.waiting_for(), ElementsAre("late"));
  WriteFile(root_ / "late/1/model.pt", "program");
  clock_.Advance(std::chrono::seconds(5));
  timer_.RunDue();
  RunAll();
  EXPECT_THAT(preloader_.waiting_for(), IsEmpty());
}

TEST_F(PreloaderTest, ANewListLoadsOnlyWhatIsNew) {
  AddModel("a");
  AddModel("b");
  preloader_.Apply({{"a", std::nullopt, true, false}});
  RunAll();
  preloader_.Apply({{"a", std::nullopt, true, false}, {"b", std::nullopt, true, false}});
  EXPECT_THAT(preloader_.waiting_for(), ElementsAre("b"));
  RunAll();
  EXPECT_TRUE(preloader_.all_required_ready());
  EXPECT_EQ(loader_.loads("a"), 1);
}

TEST_F(PreloaderTest, StopsTrying) {
  AddModel("a");
  loader_.FailLoad(1, absl::InvalidArgumentError("half a file"));
  preloader_.Apply({{"a", std::nullopt, true, false}});
  RunAll();
  preloader_.Stop();
  clock_.Advance(std::chrono::minutes(1));
  timer_.RunDue();
  RunAll();
  EXPECT_EQ(loader_.loads("a"), 1);
}

TEST_F(PreloaderTest, RequiredModelsThatDoNotFitTogetherDoNotEvictOneAnotherInTurn) {
  for (const char* name : {"a", "b", "c"}) {
    fakes::FakeModel::Options model = EchoModel();
    model.footprint = {0, 600, {}};  // of 1000
    AddModel(name, model);
  }
  const std::vector<PreloadItem> list = {{"a", std::nullopt, true, false},
                                         {"b", std::nullopt, true, false},
                                         {"c", std::nullopt, true, false}};
  preloader_.Apply(list);
  for (int hour = 0; hour < 5; ++hour) {
    RunAll();
    clock_.Advance(std::chrono::hours(1));
    timer_.RunDue();
    preloader_.Apply(list);  // SIGHUP
  }
  RunAll();
  EXPECT_TRUE(preloader_.all_required_ready());
  for (const char* name : {"a", "b", "c"}) EXPECT_EQ(loader_.loads(name), 1) << name;
}

TEST_F(PreloaderTest, AnOptionalModelTakesNobodysPlaceARequiredOrPinnedOneDoes) {
  for (const char* name : {"hot", "optional", "required", "pinned"}) {
    fakes::FakeModel::Options model = EchoModel();
    model.footprint = {0, 600, {}};
    AddModel(name, model);
  }
  const auto answer = Infer(Request("hot"));
  RunAll();
  ASSERT_TRUE(answer->has_value() && (*answer)->ok());
  preloader_.Apply({{"optional", std::nullopt, /*required=*/false, /*pin=*/false}});
  RunAll();
  EXPECT_TRUE(Row("hot"));
  EXPECT_FALSE(Row("optional"));
  preloader_.Apply({{"required", std::nullopt, /*required=*/true, /*pin=*/false}});
  RunAll();
  EXPECT_TRUE(Row("required"));
  preloader_.Apply({{"pinned", std::nullopt, /*required=*/false, /*pin=*/true}});
  RunAll();
  EXPECT_TRUE(Row("pinned"));
}

}  // namespace
}  // namespace hearth
