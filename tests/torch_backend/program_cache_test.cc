#include "server/torch_backend/program_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/torch_backend/tensor_bridge.h"
#include "server/torch_backend/torchscript_loader.h"
#include "tests/torch_backend/script_models.h"

namespace hearth {
namespace {

using testing_models::Define;
using testing_models::Host;
using testing_models::Linear;
using testing_models::TempDir;

constexpr std::uint64_t kRoomy = 1 << 20;

// What a loader does with a cache, without the rest of it.
ProgramCache::Found LoadThrough(ProgramCache& cache, const std::filesystem::path& file,
                                std::uint64_t bytes = 100) {
  const auto archive = OpenScriptArchive(file);
  EXPECT_TRUE(archive.ok()) << archive.status();
  ProgramCache::Found found = cache.Find(*archive, Host());
  LoadReport report;
  EXPECT_TRUE(found.program->Bind(*archive, Host(), report).ok());
  cache.Keep(found, bytes);
  return found;
}

std::filesystem::path Data(const std::string& name) {
  return std::filesystem::path(HEARTH_SOURCE_DIR) / "tests/data/torchscript" / name;
}

TEST(ProgramCache, TheSameProgramIsFoundAgain) {
  ProgramCache cache(kRoomy);
  const auto first = LoadThrough(cache, Data("linear.pt"));
  const auto second = LoadThrough(cache, Data("linear.pt"));
  EXPECT_FALSE(first.kept);
  EXPECT_TRUE(second.kept);
  EXPECT_EQ(first.program, second.program);
}

TEST(ProgramCache, AnotherProgramIsNot) {
  ProgramCache cache(kRoomy);
  LoadThrough(cache, Data("linear.pt"));
  EXPECT_FALSE(LoadThrough(cache, Data("views.pt")).kept);
}

TEST(ProgramCache, TheLeastRecentlyUsedLeaves) {
  ProgramCache cache(200);
  LoadThrough(cache, Data("linear.pt"));
  LoadThrough(cache, Data("views.pt"));
  LoadThrough(cache, Data("linear.pt"));
  LoadThrough(cache, Data("frozen.pt"));
  EXPECT_TRUE(LoadThrough(cache, Data("linear.pt")).kept);
  EXPECT_FALSE(LoadThrough(cache, Data("views.pt")).kept);
}

TEST(ProgramCache, WithoutRoomNothingIsKept) {
  ProgramCache none(0);
  LoadThrough(none, Data("linear.pt"));
  EXPECT_FALSE(LoadThrough(none, Data("linear.pt")).kept);
  ProgramCache small(99);
  LoadThrough(small, Data("linear.pt"));
  EXPECT_FALSE(LoadThrough(small, Data("linear.pt")).kept);
}

TEST(ProgramCache, SaysHowManyProgramsItKeepsAndWhatTheyAreCharged) {
  const auto kept = std::make_shared<KeptPrograms>();
  ProgramCache cache(250, kept);
  EXPECT_EQ(kept->count, 0u);
  LoadThrough(cache, Data("linear.pt"));
  LoadThrough(cache, Data("linear.pt"));
  EXPECT_EQ(kept->count, 1u);
  EXPECT_EQ(kept->bytes, 100u);
  LoadThrough(cache, Data("views.pt"), 150);
  EXPECT_EQ(kept->count, 2u);
  EXPECT_EQ(kept->bytes, 250u);
  LoadThrough(cache, Data("frozen.pt"), 50);
  EXPECT_EQ(kept->count, 2u);
  EXPECT_EQ(kept->bytes, 200u) << "linear.pt left";
  LoadThrough(cache, Data("frozen.pt")).program->Spoil();
  cache.Find(*OpenScriptArchive(Data("frozen.pt")), Host());
  EXPECT_EQ(kept->count, 1u);
  EXPECT_EQ(kept->bytes, 150u);
}

TEST(ProgramCache, AProgramWhoseConstantsWereWrittenIsNotHandedOutAgain) {
  ProgramCache cache(kRoomy);
  const auto spoilt = LoadThrough(cache, Data("frozen.pt"));
  spoilt.program->Spoil();
  const auto fresh = LoadThrough(cache, Data("frozen.pt"));
  EXPECT_FALSE(fresh.kept);
  EXPECT_NE(fresh.program, spoilt.program);
  EXPECT_TRUE(LoadThrough(cache, Data("frozen.pt")).kept);
}

TEST(ProgramCache, AKeptProgramPinsNoMapping) {
  ProgramCache cache(kRoomy);
  std::weak_ptr<const MappedFile> mapping;
  {
    const auto archive = OpenScriptArchive(Data("frozen.pt"));
    ASSERT_TRUE(archive.ok());
    ASSERT_GT(archive->contents.constants.storage_bytes(), 0u);
    mapping = archive->file;
    const ProgramCache::Found found = cache.Find(*archive, Host());
    LoadReport report;
    EXPECT_TRUE(found.program->Bind(*archive, Host(), report).ok());
    cache.Keep(found, 100);
  }
  EXPECT_TRUE(mapping.expired());
}

// The loader with kept programs, against torch::jit::load of the same files.
class KeptProgramTest : public testing::Test {
 protected:
  std::unique_ptr<Model> Load(const torch::jit::Module& module, const std::string& name) {
    module.save((dir_ / name).string());
    auto loaded = loader_->Load({{"m", 1}, "torchscript", dir_ / name, options_}, {});
    EXPECT_TRUE(loaded.ok()) << loaded.status();
    return *std::move(loaded);
  }
  void ExpectAnswersAsTorchLoads(const Model& model, const std::string& name) {
    const at::Tensor x = at::randn({3, 4});
    const auto answer = model.Run({{"x", *UnwrapTensor(x.clone(), "x")}}, nullptr);
    ASSERT_TRUE(answer.ok()) << answer.status();
    const c10::InferenceMode guard;
    torch::jit::Module reference = torch::jit::load((dir_ / name).string());
    EXPECT_TRUE(at::equal(WrapTensor(answer->front().tensor), reference.forward({x}).toTensor())) << name;
  }

  TempDir dir_;
  ModelOptions options_ = {.weights = {},
                           .inputs = {{.name = "x", .dtype = DType::kFp32, .shape = Shape{-1, 4}}},
                           .outputs = {},
                           .warm_up = {}};
  std::unique_ptr<Loader> loader_ = MakeTorchScriptLoader({.kept_program_bytes = 64 << 20});
};

TEST_F(KeptProgramTest, ModelsOfOneProgramHaveWeightsOfTheirOwn) {
  const auto one = Load(Linear(4, 4, 1), "one.pt");
  const auto two = Load(Linear(4, 4, 2), "two.pt");
  for (int i = 0; i < 3; ++i) {
    ExpectAnswersAsTorchLoads(*one, "one.pt");
    ExpectAnswersAsTorchLoads(*two, "two.pt");
  }
}

TEST_F(KeptProgramTest, AReloadNeitherParsesNorWarmsUp) {
  const auto types = [](const Model& model) { return model.signature().outputs.at(0).dtype; };
  const auto first = Load(Linear(4, 4, 1), "one.pt");
  const auto again = Load(Linear(4, 4, 1), "one.pt");
  EXPECT_GT(first->load_report()[LoadPhase::kWarmUp].wall, Duration::zero());
  EXPECT_EQ(again->load_report()[LoadPhase::kWarmUp].wall, Duration::zero());
  EXPECT_EQ(types(*first), DType::kFp32);
  EXPECT_EQ(types(*again), DType::kFp32) << "what the first warm-up learned";
  ExpectAnswersAsTorchLoads(*again, "one.pt");
}

TEST_F(KeptProgramTest, OtherShapesOfWeightsAreWarmedUpThemselves) {
  Load(Linear(4, 4, 1), "one.pt");
  const auto wider = Load(Linear(4, 6, 1), "two.pt");
  EXPECT_GT(wider->load_report()[LoadPhase::kWarmUp].wall, Duration::zero());
  ExpectAnswersAsTorchLoads(*wider, "two.pt");
}

TEST_F(KeptProgramTest, AProgramOutlivesItsModel) {
  Load(Linear(4, 4, 1), "one.pt");
  const auto later = Load(Linear(4, 4, 2), "two.pt");
  ExpectAnswersAsTorchLoads(*later, "two.pt");
}

TEST_F(KeptProgramTest, AModelThatWritesToItselfBeginsAnewInEveryModel) {
  torch::jit::Module counter = Define("Counter");
  counter.register_buffer("w", at::zeros({4}));
  counter.define(R"(
def forward(self, x: Tensor) -> Tensor:
    self.w.add_(1)
    return x + self.w
)");
  for (int i = 0; i < 3; ++i) {
    const auto model = Load(counter, "counter.pt");
    for (int run = 0; run < 3; ++run) ExpectAnswersAsTorchLoads(*model, "counter.pt");
  }
}

}  // namespace
}  // namespace hearth
