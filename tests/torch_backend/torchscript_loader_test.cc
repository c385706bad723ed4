// The mapped loader against torch::jit::load: same files, same answers, to the bit.
#include "server/torch_backend/torchscript_loader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <thread>

#include "server/torch_backend/tensor_bridge.h"
#include "tests/torch_backend/script_models.h"

namespace hearth {
namespace {

using testing::HasSubstr;
using testing_models::Define;
using testing_models::Linear;
using testing_models::TempDir;

class TorchScriptLoaderTest : public testing::Test {
 protected:
  std::unique_ptr<Model> Load(const torch::jit::Module& module, ModelOptions options = {}) {
    module.save(file_.string());
    auto loaded = TryLoad(std::move(options));
    EXPECT_TRUE(loaded.ok()) << loaded.status();
    return loaded.ok() ? *std::move(loaded) : nullptr;
  }

  absl::StatusOr<std::unique_ptr<Model>> TryLoad(ModelOptions options = {}) {
    return loader_->Load({{"m", 1}, "torchscript", file_, std::move(options)}, {});
  }

  static Tensor Input(const at::Tensor& tensor) { return *UnwrapTensor(tensor.clone(), "input"); }

  static at::Tensor RunOne(const Model& model, const std::string& name, const at::Tensor& input) {
    auto outputs = model.Run({{name, Input(input)}}, nullptr);
    EXPECT_TRUE(outputs.ok()) << outputs.status();
    if (!outputs.ok() || outputs->empty()) return {};
    return WrapTensor(outputs->front().tensor).clone();
  }

  // The same bits: NaNs and signed zeros included.
  static void ExpectSameBits(const at::Tensor& actual, const at::Tensor& expected) {
    ASSERT_TRUE(actual.defined());
    ASSERT_EQ(actual.scalar_type(), expected.scalar_type());
    ASSERT_EQ(actual.sizes(), expected.sizes());
    const at::Tensor a = actual.contiguous(), b = expected.contiguous();
    EXPECT_EQ(std::memcmp(a.const_data_ptr(), b.const_data_ptr(), a.nbytes()), 0);
  }

  // What torch::jit::load makes of the same file.
  at::Tensor Reference(const at::Tensor& input, const std::string& method = "forward") {
    const c10::InferenceMode guard;
    torch::jit::Module module = torch::jit::load(file_.string());
    return module.get_method(method)({input}).toTensor();
  }

  TempDir dir_;
  std::filesystem::path file_ = dir_ / "model.pt";
  std::unique_ptr<Loader> loader_ = MakeTorchScriptLoader({});
};

TEST_F(TorchScriptLoaderTest, AnswersLikeTorchJitLoadToTheBitAtEveryBatchSize) {
  const auto model = Load(Linear(33, 17, 1));
  for (std::int64_t batch = 1; batch <= 16; ++batch) {
    const at::Tensor x = at::randn({batch, 33});
    ExpectSameBits(RunOne(*model, "x", x), Reference(x));
  }
}

TEST_F(TorchScriptLoaderTest, WeightsAreMappedAndNotCopied) {
  const auto model = Load(Linear(512, 512, 1));
  EXPECT_EQ(model->load_report().weight_bytes, (512 * 512 + 512) * sizeof(float));
  EXPECT_EQ(model->load_report().copied_bytes, 0u);
  EXPECT_EQ(model->footprint().mapped_bytes(), std::filesystem::file_size(file_));
  EXPECT_LT(model->footprint().host_bytes, 512u * 512u * sizeof(float));
}

TEST_F(TorchScriptLoaderTest, TiedAndViewedWeightsKeepSharingMemory) {
  torch::jit::Module module = Define("Tied");
  const at::Tensor base = at::randn({8, 8});
  module.register_parameter("a", base, false);
  module.register_parameter("b", base, false);
  module.register_buffer("row", base[3]);
  module.register_buffer("transposed", base.t());
  module.define(R"(
def forward(self, x: Tensor) -> Tensor:
    return x @ self.a + x @ self.b.t() + self.row + x @ self.transposed
)");
  const auto model = Load(module);
  const at::Tensor x = at::randn({3, 8});
  ExpectSameBits(RunOne(*model, "x", x), Reference(x));
  EXPECT_EQ(model->load_report().weight_bytes, 64 * sizeof(float)) << "one storage, bound once";
}

TEST_F(TorchScriptLoaderTest, EmptyZeroDimensionalAndOddTypedTensorsLoad) {
  torch::jit::Module module = Define("Odd");
  module.register_buffer("empty", at::empty({0, 4}));
  module.register_buffer("scalar", at::scalar_tensor(2.5));
  module.register_buffer("half", at::randn({4}).to(at::kHalf));
  module.register_buffer("brain", at::randn({4}).to(at::kBFloat16));
  module.register_buffer("whole", at::arange(4, at::kChar));
  module.register_buffer("complex", at::view_as_complex(at::randn({4, 2})));
  module.register_buffer("strided", at::randn({4, 4}).t().slice(1, 1, 4, 2));
  module.define(R"(
def forward(self, x: Tensor) -> Tensor:
    y = x * self.scalar + self.half.float() + self.brain.float() + self.whole.float()
    y = y + torch.real(self.complex) + torch.imag(self.complex) + self.strided.sum()
    return torch.cat([self.empty, y.unsqueeze(0)], 0)
)");
  const auto model = Load(module);
  const at::Tensor x = at::randn({4});
  ExpectSameBits(RunOne(*model, "x", x), Reference(x));
}

TEST_F(TorchScriptLoaderTest, FrozenModelsWithTheSameCodeAndDifferentConstantsStayDifferent) {
  const auto frozen = [](std::uint64_t seed) {
    torch::jit::Module module = Linear(6, 5, seed);
    module.eval();
    return torch::jit::freeze(module);
  };
  const auto first = Load(frozen(1));
  const at::Tensor x = at::randn({2, 6});
  const at::Tensor expected_first = Reference(x);
  file_ = dir_ / "other.pt";
  const auto second = Load(frozen(2));
  ExpectSameBits(RunOne(*second, "x", x), Reference(x));
  ExpectSameBits(RunOne(*first, "x", x), expected_first);
  EXPECT_FALSE(at::equal(expected_first, Reference(x)));
}

TEST_F(TorchScriptLoaderTest, AnInPlaceWriteToAWeightIsNeverSeenByTheNextRequest) {
  torch::jit::Module module = Define("Counter");
  module.register_buffer("w", at::zeros({3}));
  module.register_buffer("other", at::ones({3}));
  module.define("def forward(self, x: Tensor) -> Tensor:\n    self.w.add_(1)\n    return x + self.w * self.other\n");
  const auto model = Load(module);
  for (int i = 0; i < 3; ++i) {
    ExpectSameBits(RunOne(*model, "x", at::zeros({3})), at::ones({3}));
  }
}

TEST_F(TorchScriptLoaderTest, AnAttributeSetByOneRequestIsNeverSeenByTheNext) {
  torch::jit::Module module = Define("Setter");
  module.register_buffer("seen", at::zeros({1}));
  module.register_attribute("calls", c10::IntType::get(), c10::IValue(0));
  module.define(R"(
def forward(self, x: Tensor) -> Tensor:
    self.seen = self.seen + x
    self.calls = self.calls + 1
    return self.seen * self.calls
)");
  const auto model = Load(module);
  for (int i = 0; i < 3; ++i) {
    ExpectSameBits(RunOne(*model, "x", at::full({1}, 4.0)), at::full({1}, 4.0));
  }
}

TEST_F(TorchScriptLoaderTest, AMutableListIsNeverSeenByTheNextRequest) {
  torch::jit::Module module = Define("Memory");
  module.register_attribute("log", c10::ListType::ofTensors(), c10::List<at::Tensor>());
  module.define(R"(
def forward(self, x: Tensor) -> Tensor:
    self.log.append(x)
    return torch.stack(self.log)
)");
  const auto model = Load(module);
  for (int i = 0; i < 3; ++i) {
    ExpectSameBits(RunOne(*model, "x", at::ones({2})), at::ones({1, 2}));
  }
}

TEST_F(TorchScriptLoaderTest, AWriteThatAnalysisCannotFollowIsCaughtAfterTheRun) {
  // `s` is given the weight itself and then written in place: no attribute of its own is.
  torch::jit::Module module = Define("Sneaky");
  module.register_buffer("w", at::zeros({2}));
  module.register_buffer("s", at::zeros({2}));
  module.define(R"(
def forward(self, x: Tensor) -> Tensor:
    self.s = self.w
    self.s.add_(x)
    return self.s + self.w
)");
  const auto model = Load(module);
  for (int i = 0; i < 3; ++i) {
    ExpectSameBits(RunOne(*model, "x", at::ones({2})), at::full({2}, 2.0));
  }
}

TEST_F(TorchScriptLoaderTest, AliasesOfAWrittenAttributeAreCopiedWithIt) {
  torch::jit::Module module = Define("AliasedState");
  const at::Tensor base = at::zeros({4});
  module.register_buffer("whole", base);
  module.register_buffer("tail", base.slice(0, 2));
  module.define(R"(
def forward(self, x: Tensor) -> Tensor:
    self.whole.add_(x)
    return self.tail.clone()
)");
  const auto model = Load(module);
  for (int i = 0; i < 3; ++i) {
    ExpectSameBits(RunOne(*model, "x", at::ones({4})), at::ones({2}));
  }
}

TEST_F(TorchScriptLoaderTest, ASessionCarriesItsStateAndOnlyItsOwn) {
  torch::jit::Module module = Define("Sum");
  module.register_buffer("total", at::zeros({1}));
  module.define("def forward(self, x: Tensor) -> Tensor:\n    self.total.add_(x)\n    return self.total\n");
  const auto model = Load(module);
  const auto one = *model->NewSession(), two = *model->NewSession();
  const auto add = [&](Session* session, double value) {
    const auto outputs = *model->Run({{"x", Input(at::full({1}, value))}}, session);
    return WrapTensor(outputs[0].tensor).item<float>();
  };
  EXPECT_EQ(add(one.get(), 1), 1);
  EXPECT_EQ(add(two.get(), 10), 10);
  EXPECT_EQ(add(one.get(), 2), 3);
  EXPECT_EQ(add(two.get(), 10), 20);
  EXPECT_EQ(add(nullptr, 5), 5);
}

TEST_F(TorchScriptLoaderTest, AnOutputThatIsStateIsNotOverwrittenByTheNextRun) {
  torch::jit::Module module = Define("Sum");
  module.register_buffer("total", at::zeros({1}));
  module.define("def forward(self, x: Tensor) -> Tensor:\n    self.total.add_(x)\n    return self.total\n");
  const auto model = Load(module);
  const auto session = *model->NewSession();
  const auto first = *model->Run({{"x", Input(at::ones({1}))}}, session.get());
  ASSERT_TRUE(model->Run({{"x", Input(at::ones({1}))}}, session.get()).ok());
  EXPECT_EQ(WrapTensor(first[0].tensor).item<float>(), 1);
}

TEST_F(TorchScriptLoaderTest, AnOutputThatIsAWeightIsACopyAndOneThatIsTheInputIsNot) {
  torch::jit::Module module = Define("Echo");
  module.register_buffer("w", at::ones({64}));
  module.define("def forward(self, x: Tensor) -> Tuple[Tensor, Tensor]:\n    return x, self.w\n");
  const auto model = Load(module);
  const Tensor input = Input(at::randn({64}));
  const auto outputs = *model->Run({{"x", input}}, nullptr);
  EXPECT_EQ(outputs[0].tensor.data.data(), input.data.data());
  const auto again = *model->Run({{"x", input}}, nullptr);
  EXPECT_NE(outputs[1].tensor.data.data(), again[1].tensor.data.data());
}

TEST_F(TorchScriptLoaderTest, EightThreadsRunAStatefulModelWithoutMixing) {
  torch::jit::Module module = Define("Mixer");
  module.register_buffer("state", at::zeros({256}));
  module.define(R"(
def forward(self, x: Tensor) -> Tensor:
    for i in range(20):
        self.state.add_(x)
    return self.state
)");
  const auto model = Load(module);
  std::vector<std::thread> threads;
  for (int t = 1; t <= 8; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 20; ++i) {
        ExpectSameBits(RunOne(*model, "x", at::full({256}, t)), at::full({256}, 20.0 * t));
      }
    });
  }
  for (auto& thread : threads) thread.join();
}

TEST_F(TorchScriptLoaderTest, NamesComeFromTheSchema) {
  torch::jit::Module module = Define("Named");
  module.define(R"(
def forward(self, audio: Tensor, rate: int, label: str = "x", gain: Optional[float] = None) -> Tuple[Tensor, int]:
    return audio, rate
)");
  const auto model = Load(module);
  const Signature& signature = model->signature();
  ASSERT_EQ(signature.inputs.size(), 4u);
  EXPECT_EQ(signature.inputs[0].name, "audio");
  EXPECT_EQ(signature.inputs[0].dtype, DType::kUnknown);
  EXPECT_EQ(signature.inputs[1].name, "rate");
  EXPECT_EQ(signature.inputs[1].dtype, DType::kInt64);
  EXPECT_EQ(signature.inputs[2].dtype, DType::kBytes);
  EXPECT_TRUE(signature.inputs[2].optional);
  EXPECT_EQ(signature.inputs[3].dtype, DType::kFp64);
  EXPECT_TRUE(signature.inputs[3].optional);
  ASSERT_EQ(signature.outputs.size(), 2u);
  EXPECT_EQ(signature.outputs[0].name, "OUTPUT__0");
  EXPECT_EQ(signature.outputs[1].dtype, DType::kInt64);
}

TEST_F(TorchScriptLoaderTest, ModelYamlRenamesInputsByOrderAndIsCheckedAgainstTheProgram) {
  ModelOptions options;
  options.inputs = {{"INPUT__0", DType::kFp32, Shape{-1, 4}, false}};
  options.outputs = {{"probabilities", DType::kUnknown, std::nullopt, false}};
  const auto model = Load(Linear(4, 2, 1), options);
  const at::Tensor x = at::randn({3, 4});
  auto outputs = *model->Run({{"INPUT__0", Input(x)}}, nullptr);
  EXPECT_EQ(outputs[0].name, "probabilities");
  EXPECT_EQ(model->signature().outputs[0].dtype, DType::kFp32) << "learnt from the made-up warm-up";

  options.inputs.push_back({"INPUT__1", DType::kFp32, Shape{1}, false});
  const auto refused = TryLoad(options);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("the program has 1 input, counted from 0: 'x'"));
}

TEST_F(TorchScriptLoaderTest, AnotherExportedMethodCanBeServed) {
  torch::jit::Module module = Define("TwoWays");
  module.define("def forward(self, x: Tensor) -> Tensor:\n    return x\n\ndef twice(self, x: Tensor) -> Tensor:\n    return x * 2\n");
  ModelOptions options;
  options.method = "twice";
  const auto model = Load(module, options);
  ExpectSameBits(RunOne(*model, "x", at::ones({2})), at::full({2}, 2.0));

  options.method = "thrice";
  const auto refused = TryLoad(options);
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("no method 'thrice'; it has 'forward', 'twice'"));
}

TEST_F(TorchScriptLoaderTest, StringsNumbersListsAndDictionariesCrossTheBridge) {
  torch::jit::Module module = Define("Values");
  module.define(R"(
def forward(self, words: List[str], n: int, f: float, b: bool) -> Dict[str, Tensor]:
    total = 0
    for w in words:
        total += len(w)
    return {"length": torch.tensor([total]), "scaled": torch.tensor([f * n]), "flag": torch.tensor([b])}
)");
  const auto model = Load(module);
  EXPECT_FALSE(model->signature().outputs_known);
  const std::string_view words[] = {"a", "", "ccc"};
  const auto outputs = model->Run({{"words", PackBytes(words, {3})},
                                   {"n", Input(at::full({1}, 3, at::kLong))},
                                   {"f", Input(at::full({1}, 1.5, at::kDouble))},
                                   {"b", Input(at::full({1}, true, at::kBool))}},
                                  nullptr);
  ASSERT_TRUE(outputs.ok()) << outputs.status();
  EXPECT_EQ(WrapTensor(*Find(*outputs, "length")).item<std::int64_t>(), 4);
  EXPECT_EQ(WrapTensor(*Find(*outputs, "scaled")).item<float>(), 4.5f);
  EXPECT_TRUE(WrapTensor(*Find(*outputs, "flag")).item<bool>());
}

TEST_F(TorchScriptLoaderTest, BytesGoInAndComeOut) {
  torch::jit::Module module = Define("Words");
  module.define("def forward(self, words: List[str]) -> List[str]:\n    return words\n");
  const auto model = Load(module);
  const std::string_view words[] = {"one", std::string_view("t\0wo", 4), ""};
  const auto outputs = *model->Run({{"words", PackBytes(words, {3})}}, nullptr);
  EXPECT_THAT(*UnpackBytes(outputs[0].tensor), testing::ElementsAreArray(words));
}

TEST_F(TorchScriptLoaderTest, WhatAProgramRefusesIsAnErrorOfTheRequest) {
  const auto model = Load(Linear(4, 2, 1));
  const auto outputs = model->Run({{"x", Input(at::randn({3, 5}))}}, nullptr);
  EXPECT_EQ(outputs.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(outputs.status().message()), HasSubstr("cannot be multiplied"));
  EXPECT_THAT(std::string(outputs.status().message()), testing::Not(HasSubstr("\n")));
  EXPECT_TRUE(model->Run({{"x", Input(at::randn({3, 4}))}}, nullptr).ok());
}

TEST_F(TorchScriptLoaderTest, ARejectedFileSaysWhatItIs) {
  const auto message = [&](const std::string& content) {
    std::ofstream(file_, std::ios::binary) << content;
    const auto loaded = TryLoad();
    EXPECT_EQ(loaded.status().code(), absl::StatusCode::kInvalidArgument) << loaded.status();
    const auto estimate = loader_->Estimate({{"m", 1}, "torchscript", file_, {}});
    EXPECT_EQ(estimate.status(), loaded.status()) << "found before anything is evicted for it";
    return std::string(loaded.status().message());
  };
  EXPECT_THAT(message("hello, this is no model"), HasSubstr("model.pt' is not a TorchScript archive"));
  EXPECT_NE(message(std::string("\x80\x02}q\x00.", 6)), "");

  file_ = dir_ / "missing.pt";
  EXPECT_EQ(TryLoad().status().code(), absl::StatusCode::kNotFound);
}

TEST_F(TorchScriptLoaderTest, ATruncatedFileIsRefusedAtEveryLength) {
  Linear(8, 8, 1).save(file_.string());
  const auto whole = std::filesystem::file_size(file_);
  for (std::uintmax_t length = 1; length < whole; length += 61) {
    std::filesystem::path cut = dir_ / "cut.pt";
    std::filesystem::copy_file(file_, cut, std::filesystem::copy_options::overwrite_existing);
    std::filesystem::resize_file(cut, length);
    const auto loaded = loader_->Load({{"m", 1}, "torchscript", cut, {}}, {});
    EXPECT_FALSE(loaded.ok()) << "at " << length;
  }
}

TEST_F(TorchScriptLoaderTest, ADeclaredWarmUpThatFailsFailsTheLoad) {
  ModelOptions options;
  options.warm_up = {{{{"x", DType::kFp32, Shape{1, 5}, WarmUpSample::Fill::kRandom, {}}}, 2}};
  Linear(4, 2, 1).save(file_.string());
  const auto refused = TryLoad(options);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("warm-up"));
  options.warm_up[0].inputs[0].shape = {1, 4};
  options.warm_up[0].inputs[0].name = "y";
  EXPECT_THAT(std::string(TryLoad(options).status().message()), HasSubstr("the sample has an input 'y', and the model has none"));
  options.warm_up[0].inputs[0].name = "x";
  const auto loaded = TryLoad(options);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_GT((*loaded)->load_report()[LoadPhase::kWarmUp].wall.count(), 0);
}

TEST_F(TorchScriptLoaderTest, WithoutAWarmUpTheFirstRequestDoesNotWaitForTheOptimiser) {
  const auto model = Load(Linear(4, 2, 1));
  const auto profiled = [] {
    return torch::jit::lastExecutedOptimizedGraph()->toString().find("prim::profile") != std::string::npos;
  };
  const at::Tensor x = at::randn({3, 4});
  const at::Tensor first = RunOne(*model, "x", x);
  EXPECT_FALSE(profiled());
  RunOne(*model, "x", x);
  EXPECT_TRUE(profiled()) << "the second one is";
  ExpectSameBits(first, Reference(x));
}

TEST_F(TorchScriptLoaderTest, ALoadGoesOnFromWhatItsEstimateOpened) {
  Linear(4, 2, 1).save(file_.string());
  const ModelSpec spec{{"m", 1}, "torchscript", file_, {}};
  const auto estimate = loader_->Estimate(spec);
  ASSERT_TRUE(estimate.ok()) << estimate.status();
  const auto model = loader_->Load(spec, estimate->opened.get(), {});
  ASSERT_TRUE(model.ok()) << model.status();
  const PhaseCost& open = (*model)->load_report()[LoadPhase::kOpen];
  EXPECT_GT(open.wall, Duration::zero()) << "part of what the load took";
  EXPECT_GE((*model)->load_report()[LoadPhase::kMap].start, open.wall);
  EXPECT_EQ((*model)->load_report().parts.front().phase, LoadPhase::kOpen);
  const at::Tensor x = at::randn({3, 4});
  ExpectSameBits(RunOne(**model, "x", x), Reference(x));
}

TEST_F(TorchScriptLoaderTest, ALoadOpensAnewWhatWasReplacedSinceItsEstimate) {
  Linear(4, 2, 1).save(file_.string());
  const ModelSpec spec{{"m", 1}, "torchscript", file_, {}};
  const auto estimate = loader_->Estimate(spec);
  ASSERT_TRUE(estimate.ok()) << estimate.status();
  Linear(4, 2, 2).save((dir_ / "next").string());
  std::filesystem::rename(dir_ / "next", file_);
  const auto model = loader_->Load(spec, estimate->opened.get(), {});
  ASSERT_TRUE(model.ok()) << model.status();
  const at::Tensor x = at::randn({3, 4});
  ExpectSameBits(RunOne(**model, "x", x), Reference(x));
}

TEST_F(TorchScriptLoaderTest, ACancelledLoadStops) {
  Linear(4, 2, 1).save(file_.string());
  std::stop_source stop;
  stop.request_stop();
  const auto loaded = loader_->Load({{"m", 1}, "torchscript", file_, {}}, stop.get_token());
  EXPECT_EQ(loaded.status().code(), absl::StatusCode::kCancelled);
}

TEST_F(TorchScriptLoaderTest, AnUnknownDeviceIsRefusedWithASentence) {
  ModelOptions options;
  options.device = "cuda:0";
  Linear(4, 2, 1).save(file_.string());
  if (at::hasCUDA()) GTEST_SKIP() << "this machine has the device";
  const auto refused = TryLoad(options);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kFailedPrecondition);
  const std::string message(refused.status().message());
  EXPECT_THAT(message, HasSubstr("set `device: cpu`"));
  EXPECT_THAT(message, HasSubstr("'CUDA' backend"));
  EXPECT_LT(message.size(), 400U) << message;  // LibTorch's own has the list of its kernels in it
}

}  // namespace
}  // namespace hearth
