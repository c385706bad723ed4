// Models on a device that is not the host, rehearsed on a test device (fake_device.h).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>

#include "server/torch_backend/devices.h"
#include "server/torch_backend/fake_device.h"
#include "server/torch_backend/script_program.h"
#include "server/torch_backend/state_analysis.h"
#include "server/torch_backend/tensor_bridge.h"
#include "server/torch_backend/torchscript_loader.h"
#include "tests/torch_backend/script_models.h"

namespace hearth {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::IsEmpty;
using testing_models::Define;
using testing_models::Linear;
using testing_models::TempDir;

fs::path Data(const std::string& name) { return fs::path(HEARTH_SOURCE_DIR) / "tests/data/torchscript" / name; }

class DeviceTest : public testing::Test {
 protected:
  explicit DeviceTest(std::uint64_t memory_bytes = 16 << 20)
      : devices_(std::make_shared<Devices>(Devices::Fakes{.count = 2, .memory_bytes = memory_bytes})),
        loader_(MakeTorchScriptLoader({.kept_program_bytes = 1 << 20, .devices = devices_})) {}

  static ModelSpec Spec(const fs::path& file, const std::string& device = "fake:0") {
    ModelSpec spec{{"m", 1}, "torchscript", file, {}};
    spec.options.device = device;
    return spec;
  }
  std::unique_ptr<Model> Load(const ModelSpec& spec) const {
    auto loaded = loader_->Load(spec, {});
    EXPECT_TRUE(loaded.ok()) << loaded.status();
    return loaded.ok() ? *std::move(loaded) : nullptr;
  }
  std::uint64_t Used(const std::string& device = "fake:0") const {
    return static_cast<FakeDevice&>(**devices_->Find(device)).used_bytes();
  }
  static void ExpectTorchsAnswer(const Model& model, const fs::path& file, const at::Tensor& x) {
    torch::jit::Module reference = torch::jit::load(file.string());
    const c10::InferenceMode guard;
    const at::Tensor expected = reference.forward({x.clone()}).toTensor().contiguous();
    const auto outputs = model.Run({{"x", *UnwrapTensor(x.clone(), "x")}}, nullptr);
    ASSERT_TRUE(outputs.ok()) << outputs.status();
    const at::Tensor answer = WrapTensor(outputs->front().tensor).contiguous();
    ASSERT_EQ(answer.nbytes(), expected.nbytes());
    EXPECT_EQ(std::memcmp(answer.const_data_ptr(), expected.const_data_ptr(), answer.nbytes()), 0);
  }

  static std::uint64_t SumOf(const Footprint& footprint) {
    EXPECT_EQ(footprint.device_bytes + footprint.host_bytes, 0u);
    return footprint.mapped_bytes();
  }

  const TempDir dir_;
  const std::shared_ptr<Devices> devices_;
  const std::unique_ptr<Loader> loader_;
};

TEST_F(DeviceTest, EveryKindOfFileAnswersAsOnTheHost) {
  const std::pair<const char*, std::int64_t> files[] = {
      {"linear.pt", 4}, {"views.pt", 4}, {"dtypes.pt", 3}, {"attributes.pt", 3},
      {"own_state.pt", 3}, {"quantized.pt", 4}, {"recompressed.pt", 4}, {"frozen.pt", 4}};
  for (const auto& [name, width] : files) {
    SCOPED_TRACE(name);
    const auto model = Load(Spec(Data(name)));
    ASSERT_NE(model, nullptr);
    for (std::int64_t batch = 1; batch <= 16; ++batch) ExpectTorchsAnswer(*model, Data(name), at::randn({batch, width}));
  }
}

TEST_F(DeviceTest, WeightsAreOnTheDeviceAndNowhereElse) {
  Linear(512, 512, 1).save((dir_ / "model.pt").string());
  const std::uint64_t weights = (512 * 512 + 512) * sizeof(float);
  const auto estimate = loader_->Estimate(Spec(dir_ / "model.pt"));
  ASSERT_TRUE(estimate.ok()) << estimate.status();
  EXPECT_EQ(estimate->steady.device_bytes, weights);
  EXPECT_EQ(estimate->peak.mapped_bytes(), fs::file_size(dir_ / "model.pt")) << "mapped while it is copied";
  auto model = Load(Spec(dir_ / "model.pt"));
  EXPECT_EQ(model->footprint().device_bytes, weights);
  EXPECT_THAT(model->footprint().extents, IsEmpty());
  EXPECT_LT(model->footprint().host_bytes, weights);
  EXPECT_EQ(model->load_report()[LoadPhase::kToDevice].bytes, weights);
  EXPECT_EQ(model->load_report()[LoadPhase::kPopulate].bytes, 0u);
  EXPECT_EQ(Used(), weights);
  model.reset();
  EXPECT_EQ(Used(), 0u);
}

TEST_F(DeviceTest, AFootprintSaysWhichDeviceItIsOn) {
  Linear(8, 8, 1).save((dir_ / "model.pt").string());
  for (const char* name : {"fake:0", "fake:1"}) {
    const DeviceNumber number = (*devices_->Find(name))->number();
    EXPECT_EQ(devices_->list().at(number).name, name);
    EXPECT_EQ(devices_->list().at(number).memory_bytes, std::uint64_t{16} << 20);
    EXPECT_EQ(loader_->Estimate(Spec(dir_ / "model.pt", name))->peak.device, number);
    EXPECT_EQ(Load(Spec(dir_ / "model.pt", name))->footprint().device, number);
  }
}

TEST(Devices, CountWhatTheyCouldNotFreeEachByItself) {
  Devices devices({.count = 2, .memory_bytes = 1000, .failing_frees = 1});
  const std::shared_ptr<Device> second = *devices.Find("fake:1");
  { const auto memory = *second->Allocate(600); }
  std::vector<std::uint64_t> lost(devices.list().size());
  lost.at(second->number()) = 600;
  EXPECT_EQ(devices.LostBytes(), lost);
  EXPECT_EQ(second->Allocate(500).status().code(), absl::StatusCode::kResourceExhausted) << "it is gone";
  { const auto memory = *second->Allocate(400); }
  EXPECT_TRUE(second->Allocate(400).ok()) << "the next free is a good one";
  EXPECT_EQ(devices.LostBytes(), lost);
}

TEST_F(DeviceTest, WhatIsLeftOfAModelIsLoadedAgainWithNothingOpenedOrRead) {
  Linear(512, 512, 1).save((dir_ / "model.pt").string());
  const ModelSpec spec = Spec(dir_ / "model.pt");
  auto model = Load(spec);
  const std::shared_ptr<const Rest> rest = model->rest();
  ASSERT_NE(rest, nullptr);
  model.reset();
  EXPECT_EQ(Used(), 0u) << "nothing of it is on the device";
  EXPECT_EQ(SumOf(rest->footprint()), fs::file_size(dir_ / "model.pt"));
  const auto pages = rest->Hold({});
  ASSERT_TRUE(pages.ok()) << pages.status();

  const std::optional<LoadEstimate> estimate = loader_->EstimateRest(spec, *rest);
  ASSERT_TRUE(estimate);
  EXPECT_EQ(estimate->peak.extents, rest->footprint().extents) << "so that both are charged once";
  auto again = loader_->Load(spec, estimate->opened.get(), {});
  ASSERT_TRUE(again.ok()) << again.status();
  const LoadReport& report = (*again)->load_report();
  EXPECT_EQ(report[LoadPhase::kOpen].wall, Duration{});
  EXPECT_EQ(report.shared_bytes, report.mapped_bytes) << "the pages that were held";
  EXPECT_GT(report.mapped_bytes, 512u * 512u * sizeof(float));
  ExpectTorchsAnswer(**again, dir_ / "model.pt", at::randn({3, 512}));
}

TEST_F(DeviceTest, NothingIsLoadedFromWhatIsLeftWhenItsFileIsAnother) {
  Linear(64, 64, 1).save((dir_ / "model.pt").string());
  const ModelSpec spec = Spec(dir_ / "model.pt");
  const std::shared_ptr<const Rest> rest = Load(spec)->rest();
  ASSERT_TRUE(loader_->EstimateRest(spec, *rest));
  Linear(64, 64, 2).save((dir_ / "other.pt").string());
  fs::rename(dir_ / "other.pt", dir_ / "model.pt");
  EXPECT_FALSE(loader_->EstimateRest(spec, *rest));
}

TEST_F(DeviceTest, NothingIsLeftOfModelsOnTheHostAndOfSealedOnes) {
  EXPECT_EQ(Load(Spec(Data("linear.pt"), "cpu"))->rest(), nullptr);
  ModelSpec sealed = Spec(Data("linear.pt"));
  sealed.options.residency = Residency::kSealed;
  EXPECT_EQ(Load(sealed)->rest(), nullptr);
}

TEST_F(DeviceTest, TiedWeightsAndViewsAreOneStorageThere) {
  torch::jit::Module module = Define("Tied");
  const at::Tensor base = at::randn({64, 64});
  module.register_parameter("a", base, false);
  module.register_parameter("b", base, false);
  module.register_buffer("row", base[3]);
  module.register_buffer("transposed", base.t());
  module.define("def forward(self, x: Tensor) -> Tensor:\n"
                "    return x @ self.a + x @ self.b.t() + self.row + x @ self.transposed\n");
  module.save((dir_ / "model.pt").string());
  const auto model = Load(Spec(dir_ / "model.pt"));
  EXPECT_EQ(Used(), 64u * 64u * sizeof(float));
  ExpectTorchsAnswer(*model, dir_ / "model.pt", at::randn({3, 64}));
}

TEST_F(DeviceTest, WhatHappensToTheFileAfterwardsIsNoMatter) {
  Linear(256, 256, 1).save((dir_ / "model.pt").string());
  fs::copy_file(dir_ / "model.pt", dir_ / "kept.pt");
  const auto model = Load(Spec(dir_ / "model.pt"));
  std::ofstream(dir_ / "model.pt", std::ios::binary | std::ios::in).write("xxxxxxxx", 8);
  fs::resize_file(dir_ / "model.pt", 100);
  ExpectTorchsAnswer(*model, dir_ / "kept.pt", at::randn({2, 256}));
}

TEST_F(DeviceTest, AProgramIsKeptForTheDeviceItsConstantsAreOn) {
  EXPECT_FALSE(Load(Spec(Data("frozen.pt"), "cpu"))->load_report().kept_program);
  EXPECT_FALSE(Load(Spec(Data("frozen.pt"), "fake:0"))->load_report().kept_program);
  EXPECT_FALSE(Load(Spec(Data("frozen.pt"), "fake:1"))->load_report().kept_program);
  for (const char* device : {"cpu", "fake:0", "fake:1"}) {
    const auto again = Load(Spec(Data("frozen.pt"), device));
    EXPECT_TRUE(again->load_report().kept_program) << device;
    ExpectTorchsAnswer(*again, Data("frozen.pt"), at::randn({2, 4}));
  }
}

TEST_F(DeviceTest, StateThatAProgramWritesIsNoOtherRequestsThereEither) {
  torch::jit::Module module = Define("Counter");
  module.register_buffer("count", at::zeros({1}));
  module.define("def forward(self, x: Tensor) -> Tensor:\n    self.count.add_(1)\n    return x + self.count\n");
  module.save((dir_ / "model.pt").string());
  const auto model = Load(Spec(dir_ / "model.pt"));
  for (int run = 0; run < 3; ++run) {
    const auto outputs = model->Run({{"x", *UnwrapTensor(at::zeros({1}), "x")}}, nullptr);
    ASSERT_TRUE(outputs.ok()) << outputs.status();
    EXPECT_EQ(WrapTensor(outputs->front().tensor).item<float>(), 1.0F);
  }
  const auto session = *model->NewSession();
  for (int run = 1; run <= 3; ++run) {
    const auto outputs = model->Run({{"x", *UnwrapTensor(at::zeros({1}), "x")}}, session.get());
    EXPECT_EQ(WrapTensor(outputs->front().tensor).item<float>(), static_cast<float>(run));
  }
}

TEST_F(DeviceTest, ATestDeviceThatIsNotConfiguredNamesTheKey) {
  const auto refused = loader_->Estimate(Spec(Data("linear.pt"), "fake:2")).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("devices.fake.count"));
}

TEST_F(DeviceTest, WhatIsNoDeviceIsRefused) {
  EXPECT_EQ(devices_->Find("toaster").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(devices_->Find("meta").status().code(), absl::StatusCode::kFailedPrecondition);
}

class SmallDeviceTest : public DeviceTest {
 protected:
  SmallDeviceTest() : DeviceTest(100'000) {}
};

TEST_F(SmallDeviceTest, ALoadThatDoesNotFitLeavesNothingThere) {
  Linear(256, 256, 1).save((dir_ / "model.pt").string());
  const auto refused = loader_->Load(Spec(dir_ / "model.pt"), {}).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("'fake:0' has no more memory"));
  EXPECT_EQ(Used(), 0u);
  EXPECT_NE(Load(Spec(Data("linear.pt"))), nullptr);
}

}  // namespace
}  // namespace hearth
