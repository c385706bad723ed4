// Where model.yaml wants a model's weights, and what their files state about them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>

#include "server/storage/archive.h"
#include "server/torch_backend/tensor_bridge.h"
#include "server/torch_backend/torchscript_loader.h"
#include "tests/torch_backend/script_models.h"

namespace hearth {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::IsEmpty;
using testing_models::Linear;
using testing_models::TempDir;

constexpr std::uint64_t kWeightBytes = (256 * 256 + 256) * sizeof(float);

class ResidencyTest : public testing::Test {
 protected:
  void SetUp() override {
    Linear(256, 256, 1).save(file_.string());
    const c10::InferenceMode guard;
    torch::jit::Module module = torch::jit::load(file_.string());
    expected_ = module.forward({x_}).toTensor().clone();
  }

  ModelSpec Spec(std::optional<Residency> residency, Integrity integrity = Integrity::kOff) const {
    ModelSpec spec{{"m", 1}, "torchscript", file_, {}};
    spec.options.residency = residency;
    spec.options.integrity = integrity;
    return spec;
  }

  std::unique_ptr<Model> Load(const ModelSpec& spec) const {
    auto loaded = loader_->Load(spec, {});
    EXPECT_TRUE(loaded.ok()) << loaded.status();
    return loaded.ok() ? *std::move(loaded) : nullptr;
  }

  void ExpectRightAnswer(const Model& model) const {
    const auto outputs = model.Run({{"x", *UnwrapTensor(x_.clone(), "x")}}, nullptr);
    ASSERT_TRUE(outputs.ok()) << outputs.status();
    const at::Tensor answer = WrapTensor(outputs->front().tensor).contiguous();
    ASSERT_EQ(answer.nbytes(), expected_.nbytes());
    EXPECT_EQ(std::memcmp(answer.const_data_ptr(), expected_.const_data_ptr(), answer.nbytes()), 0);
  }

  // Changes one bit of the largest record, and says which that is.
  std::string FlipABit() const {
    std::string content = [this] {
      std::ifstream in(file_, std::ios::binary);
      return std::string(std::istreambuf_iterator<char>(in), {});
    }();
    const Archive archive = *Archive::Open(std::as_bytes(std::span(content)));
    const Archive::Record* largest = &archive.records().front();
    for (const Archive::Record& record : archive.records()) {
      if (record.size > largest->size) largest = &record;
    }
    content[largest->data_offset + largest->size / 2] ^= 1;
    std::ofstream(file_, std::ios::binary) << content;
    return largest->name;
  }

  TempDir dir_;
  const fs::path file_ = dir_ / "model.pt";
  const at::Tensor x_ = at::randn({3, 256});
  at::Tensor expected_;
  const std::unique_ptr<Loader> loader_ = MakeTorchScriptLoader({});
};

TEST_F(ResidencyTest, ModelYamlIsStrongerThanTheConfiguration) {
  const auto populated = [](const Loader& loader, const ModelSpec& spec) {
    const auto model = loader.Load(spec, {});
    EXPECT_TRUE(model.ok()) << model.status();
    return (**model).load_report()[LoadPhase::kPopulate].bytes;
  };
  EXPECT_GE(populated(*loader_, Spec({})), kWeightBytes);
  EXPECT_EQ(populated(*loader_, Spec(Residency::kMapped)), 0u);
  const auto lazy = MakeTorchScriptLoader({.populate = false});
  EXPECT_EQ(populated(*lazy, Spec({})), 0u);
  EXPECT_GE(populated(*lazy, Spec(Residency::kPopulated)), kWeightBytes);
}

TEST_F(ResidencyTest, MappedAndLockedModelsAnswerRightly) {
  ExpectRightAnswer(*Load(Spec(Residency::kMapped)));
  const auto locked = Load(Spec(Residency::kLocked));
  EXPECT_EQ(locked->load_report().locked_bytes, locked->load_report().mapped_bytes);
  EXPECT_GE(locked->load_report().locked_bytes, kWeightBytes);
  ExpectRightAnswer(*locked);
}

TEST_F(ResidencyTest, ASealedModelIsOutOfReachOfWhatHappensToItsFile) {
  const auto estimate = loader_->Estimate(Spec(Residency::kSealed));
  ASSERT_TRUE(estimate.ok()) << estimate.status();
  const auto size = fs::file_size(file_);
  const auto model = Load(Spec(Residency::kSealed));
  std::ofstream(file_, std::ios::binary | std::ios::in) << std::string(size, '\x55');  // in place
  ExpectRightAnswer(*model);
  fs::resize_file(file_, 4096);
  ExpectRightAnswer(*model);
  EXPECT_THAT(model->footprint().extents, IsEmpty());
  EXPECT_GE(model->footprint().host_bytes, size);
  EXPECT_THAT(estimate->peak.extents, IsEmpty());
  EXPECT_GE(estimate->peak.host_bytes, model->footprint().host_bytes);
  EXPECT_EQ(model->load_report().mapped_bytes, 0u);
  EXPECT_GE(model->load_report()[LoadPhase::kRead].bytes, size);
}

TEST_F(ResidencyTest, ADamagedRecordIsFoundAndNamedWhereAskedFor) {
  ExpectRightAnswer(*Load(Spec({}, Integrity::kOnLoad)));
  const std::string record = FlipABit();
  for (const std::optional<Residency> residency : {std::optional<Residency>(), {Residency::kSealed}}) {
    const auto refused = loader_->Load(Spec(residency, Integrity::kOnLoad), {});
    ASSERT_EQ(refused.status().code(), absl::StatusCode::kDataLoss) << refused.status();
    EXPECT_THAT(std::string(refused.status().message()), HasSubstr(record));
    EXPECT_THAT(std::string(refused.status().message()), HasSubstr("model.pt"));
  }
  Load(Spec({}));
}

}  // namespace
}  // namespace hearth
