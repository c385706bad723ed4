// Files that Python's PyTorch wrote (tests/data/make_torchscript.py), against torch::jit::load.
#include <gtest/gtest.h>

#include <cstring>

#include "server/torch_backend/script_program.h"
#include "server/torch_backend/state_analysis.h"
#include "server/torch_backend/tensor_bridge.h"
#include "server/torch_backend/torchscript_loader.h"
#include "tests/torch_backend/script_models.h"

namespace hearth {
namespace {

struct Fixture {
  const char* name;
  std::int64_t width;  // of the last dimension of forward's x
};

std::filesystem::path PathOf(const Fixture& fixture) {
  return std::filesystem::path(HEARTH_SOURCE_DIR) / "tests/data/torchscript" / (std::string(fixture.name) + ".pt");
}

class FixtureTest : public testing::TestWithParam<Fixture> {};

bool SameBits(at::Tensor a, at::Tensor b) {
  if (a.scalar_type() != b.scalar_type() || a.sizes() != b.sizes()) return false;
  if (a.is_quantized()) return at::equal(a.int_repr(), b.int_repr()) && at::equal(a.dequantize(), b.dequantize());
  a = a.resolve_conj().contiguous();
  b = b.resolve_conj().contiguous();
  return a.nbytes() == 0 || std::memcmp(a.const_data_ptr(), b.const_data_ptr(), a.nbytes()) == 0;
}

TEST_P(FixtureTest, EveryAttributeEqualsWhatTorchLoads) {
  const auto archive = OpenScriptArchive(PathOf(GetParam()));
  ASSERT_TRUE(archive.ok()) << archive.status();
  LoadReport report;
  const auto program = std::make_shared<ScriptProgram>(archive->contents.version, false);
  const auto bound = program->Bind(*archive, testing_models::Host(), report);
  ASSERT_TRUE(bound.ok()) << bound.status();
  const torch::jit::Module reference = torch::jit::load(PathOf(GetParam()).string());
  const auto ours = AttributeTensors(bound->module), theirs = AttributeTensors(reference);
  ASSERT_EQ(ours.size(), theirs.size());
  for (std::size_t i = 0; i < ours.size(); ++i) {
    EXPECT_TRUE(SameBits(ours[i].tensor, theirs[i].tensor)) << "attribute " << i;
    EXPECT_EQ(ours[i].tensor.strides(), theirs[i].tensor.strides()) << "attribute " << i;
  }
}

TEST_P(FixtureTest, AnswersEqualTorchsToTheBit) {
  const auto loader = MakeTorchScriptLoader({});
  const auto model = loader->Load({{"m", 1}, "torchscript", PathOf(GetParam()), {}}, {});
  ASSERT_TRUE(model.ok()) << model.status();
  torch::jit::Module reference = torch::jit::load(PathOf(GetParam()).string());
  for (std::int64_t batch = 1; batch <= 16; ++batch) {
    const at::Tensor x = at::randn({batch, GetParam().width});
    const c10::InferenceMode guard;
    const at::Tensor expected = reference.forward({x}).toTensor();
    const auto outputs = (*model)->Run({{"x", *UnwrapTensor(x.clone(), "x")}}, nullptr);
    ASSERT_TRUE(outputs.ok()) << outputs.status();
    EXPECT_TRUE(SameBits(WrapTensor(outputs->front().tensor), expected)) << "batch " << batch;
  }
}

INSTANTIATE_TEST_SUITE_P(Files, FixtureTest,
                         testing::Values(Fixture{"linear", 4}, Fixture{"views", 4}, Fixture{"dtypes", 3},
                                         Fixture{"attributes", 3}, Fixture{"own_state", 3},
                                         Fixture{"quantized", 4}, Fixture{"recompressed", 4},
                                         Fixture{"frozen", 4}),
                         [](const auto& param_info) { return std::string(param_info.param.name); });

TEST(TruncatedFile, IsAnsweredWithDataLossAndTheProcessLives) {
  testing_models::TempDir dir;
  const auto file = dir / "model.pt";
  testing_models::Linear(512, 512, 1).save(file.string());
  const auto loader = MakeTorchScriptLoader({});
  const auto model = *loader->Load({{"m", 1}, "torchscript", file, {}}, {});
  const Tensor input = *UnwrapTensor(at::ones({1, 512}), "x");
  ASSERT_TRUE(model->Run({{"x", input}}, nullptr).ok());
  std::filesystem::resize_file(file, 4096);
  EXPECT_EQ(model->Run({{"x", input}}, nullptr).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_FALSE(loader->Load({{"m", 1}, "torchscript", file, {}}, {}).ok());
}

}  // namespace
}  // namespace hearth
