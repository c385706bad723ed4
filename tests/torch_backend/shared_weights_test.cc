// Models that share the memory of their weights, against PyTorch's own answers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/jit/frontend/resolver.h>
#include <torch/csrc/jit/frontend/sugared_value.h>
#include <torch/library.h>

#include <algorithm>
#include <atomic>
#include <fstream>
#include <functional>
#include <iomanip>
#include <map>
#include <sstream>
#include <thread>

#include "server/storage/range_uses.h"
#include "server/torch_backend/script_source.h"
#include "server/torch_backend/tensor_bridge.h"
#include "server/torch_backend/torchscript_loader.h"
#include "tests/torch_backend/script_models.h"

namespace hearth {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing_models::Define;
using testing_models::Linear;
using testing_models::TempDir;

constexpr std::int64_t kWidth = 64;
constexpr std::uint64_t kPage = 4096;

// What custom operators may do: write to an argument past the version counter, and say nothing of it.
at::Tensor Scribble(const at::Tensor& x) {
  static_cast<float*>(const_cast<void*>(x.const_data_ptr()))[0] = 1e6F;
  return x.sum();
}
TORCH_LIBRARY(hearth_sharing_test, library) { library.def("scribble(Tensor x) -> Tensor", &Scribble); }

struct ScribbleResolver final : torch::jit::Resolver {
  std::shared_ptr<torch::jit::SugaredValue> resolveValue(const std::string& name, torch::jit::GraphFunction& method,
                                                         const torch::jit::SourceRange& range) override {
    if (name != "scribble") return torch::jit::nativeResolver()->resolveValue(name, method, range);
    return std::make_shared<torch::jit::BuiltinFunction>(
        at::Symbol::fromQualString("hearth_sharing_test::scribble"), std::nullopt);
  }
};

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

// As `hearth pack` writes them, tensors at multiples of 4096 bytes. A checksum is believed: here it is made
// of the first number.
void WriteWeights(const fs::path& path, const NamedTensors& tensors) {
  std::string metadata = R"({"__metadata__":{"by":"test")", header, data;
  const auto pad = [&data, &header](int i) {
    const std::size_t gap = (kPage - data.size() % kPage) % kPage;
    if (gap == 0) return;
    header += StrCat(",\"__padding__", i, R"(":{"dtype":"U8","shape":[)", gap, R"(],"data_offsets":[)", data.size(),
                     ",", data.size() + gap, "]}");
    data.append(gap, '\0');
  };
  int i = 0;
  for (const auto& [name, tensor] : tensors) {
    pad(i++);
    std::ostringstream sum;
    sum << std::hex << std::setfill('0') << std::setw(64)
        << *reinterpret_cast<const std::uint32_t*>(tensor.const_data_ptr());
    metadata += StrCat(",\"sha256.", name, "\":\"", sum.str(), "\"");
    std::string shape;
    for (const std::int64_t size : tensor.sizes()) shape += StrCat(shape.empty() ? "" : ",", size);
    header += StrCat(",\"", name, R"(":{"dtype":"F32","shape":[)", shape, R"(],"data_offsets":[)", data.size(), ",",
                     data.size() + tensor.nbytes(), "]}");
    data.append(static_cast<const char*>(tensor.const_data_ptr()), tensor.nbytes());
  }
  std::string text = metadata + "}" + header + "}";
  text.append((kPage - (8 + text.size()) % kPage) % kPage, ' ');
  const std::uint64_t length = text.size();
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(&length), sizeof length);
  file << text << data;
}

class SharedWeightsTest : public testing::Test {
 protected:
  // `module` with its weights in a file of their own.
  ModelSpec Spec(const std::string& name, const torch::jit::Module& module, const NamedTensors& weights) {
    fs::create_directory(dir_ / name);
    module.save((dir_ / name / "program.pt").string());
    WriteWeights(dir_ / name / "model.safetensors", weights);
    return {{name, 1}, "torchscript", dir_ / name / "program.pt", {}, {dir_ / name / "model.safetensors"}};
  }

  // relu(x @ base) @ head, with the same base whatever the number.
  ModelSpec Head(int number) {
    auto generator = at::make_generator<at::CPUGeneratorImpl>(1);
    const at::Tensor base = at::randn({kWidth, 16 * kWidth}, generator);
    generator.set_current_seed(100 + static_cast<std::uint64_t>(number));
    const at::Tensor head = at::randn({16 * kWidth, 2}, generator);
    torch::jit::Module module = Define("Headed");
    module.register_parameter("base", at::zeros({1}).expand({kWidth, 16 * kWidth}), false);
    module.register_parameter("head", at::zeros({1}).expand({16 * kWidth, 2}), false);
    module.define("def forward(self, x: Tensor) -> Tensor:\n    return torch.relu(x @ self.base) @ self.head\n");
    expected_[number] = [base, head](const at::Tensor& x) { return at::relu(x.matmul(base)).matmul(head); };
    return Spec(StrCat("head", number), module, {{"base", base}, {"head", head}});
  }

  std::unique_ptr<Model> Load(const ModelSpec& spec) {
    auto loaded = loader_->Load(spec, {});
    EXPECT_TRUE(loaded.ok()) << loaded.status();
    return loaded.ok() ? *std::move(loaded) : nullptr;
  }

  static absl::StatusOr<at::Tensor> TryRun(const Model& model, const at::Tensor& x, Session* session = nullptr) {
    HEARTH_ASSIGN_OR_RETURN(const TensorList outputs, model.Run({{"x", *UnwrapTensor(x.clone(), "x")}}, session));
    return WrapTensor(outputs.front().tensor).clone();
  }
  static at::Tensor Run(const Model& model, const at::Tensor& x) {
    auto answer = TryRun(model, x);
    EXPECT_TRUE(answer.ok()) << answer.status();
    return answer.ok() ? *answer : at::Tensor();
  }
  void ExpectAnswersAsHead(const Model& model, int number) {
    const c10::InferenceMode guard;
    const at::Tensor x = at::randn({3, kWidth});
    EXPECT_TRUE(at::equal(Run(model, x), expected_[number](x))) << number;
  }

  // Somebody else writes to all of a mapping that models share.
  void Spoil(const fs::path& path) {
    const auto file = *files_->Open(path);
    std::fill_n(file->mutable_data(), file->size(), std::byte{0x55});
  }

  TempDir dir_;
  std::map<int, std::function<at::Tensor(const at::Tensor&)>> expected_;
  std::shared_ptr<MappedFiles> files_ = std::make_shared<MappedFiles>();
  std::unique_ptr<Loader> loader_ =
      MakeTorchScriptLoader({.kept_program_bytes = 64 << 20, .mapped_files = files_});
};

// Bytes of files that footprints come to, those in several once.
std::uint64_t Union(const std::vector<const Footprint*>& footprints) {
  std::map<FileId, RangeUses> files;
  std::uint64_t sum = 0;
  for (const Footprint* footprint : footprints) {
    for (const Extent& extent : footprint->extents) {
      std::vector<ByteRange> first;
      files[extent.file].Add({extent.offset, extent.offset + extent.length}, first);
      for (const ByteRange& range : first) sum += range.size();
    }
  }
  return sum;
}

TEST_F(SharedWeightsTest, TensorsOfOneFileLieAtOneAddress) {
  Linear(kWidth, kWidth, 1).save((dir_ / "model.pt").string());
  const ModelSpec spec{{"m", 1}, "torchscript", dir_ / "model.pt", {}};
  LoadReport report;
  std::vector<ScriptSource> sources;
  std::vector<BoundModule> bound;
  for (int i = 0; i < 2; ++i) {
    sources.push_back(Shared(*OpenScriptSource(spec, *files_, /*seal=*/true), *files_, MappedFiles::Own::kOffer));
    const auto program = std::make_shared<ScriptProgram>(sources[0].program.contents.version, false);
    bound.push_back(*BindSource(*program, sources.back(), testing_models::Host(), report));
  }
  for (const char* name : {"weight", "bias"}) {
    EXPECT_EQ(bound[0].module.attr(name).toTensor().const_data_ptr(),
              bound[1].module.attr(name).toTensor().const_data_ptr());
  }
}

TEST_F(SharedWeightsTest, ASecondModelOfAFileSharesAllOfItAndSaysSo) {
  Linear(kWidth, kWidth, 1).save((dir_ / "model.pt").string());
  const ModelSpec spec{{"m", 1}, "torchscript", dir_ / "model.pt", {}};
  auto one = Load(spec);
  EXPECT_EQ(one->load_report().shared_bytes, 0u);
  const auto two = Load(spec);
  EXPECT_GT(two->load_report().mapped_bytes, 0u);
  EXPECT_EQ(two->load_report().shared_bytes, two->load_report().mapped_bytes);
  EXPECT_EQ(two->load_report()[LoadPhase::kPopulate].bytes, 0u);
  EXPECT_EQ(Union({&one->footprint(), &two->footprint()}), one->footprint().mapped_bytes());
  const c10::InferenceMode guard;
  const at::Tensor x = at::randn({3, kWidth});
  torch::jit::Module reference = torch::jit::load((dir_ / "model.pt").string());
  one.reset();
  EXPECT_TRUE(at::equal(Run(*two, x), reference.forward({x}).toTensor()));
}

TEST_F(SharedWeightsTest, TenHeadsOnOneBaseTakeTheMemoryOfOneAndTheHeads) {
  std::vector<std::unique_ptr<Model>> models;
  std::vector<const Footprint*> footprints;
  for (int i = 0; i < 10; ++i) {
    models.push_back(Load(Head(i)));
    footprints.push_back(&models.back()->footprint());
  }
  constexpr std::uint64_t kBase = kWidth * 16 * kWidth * sizeof(float), kHead = 16 * kWidth * 2 * sizeof(float);
  std::uint64_t programs = 0;
  for (int i = 0; i < 10; ++i) programs += fs::file_size(dir_ / StrCat("head", i) / "program.pt");
  EXPECT_EQ(Union(footprints), kBase + 10 * kHead + programs);
  EXPECT_EQ(models[0]->load_report().shared_bytes, 0u);
  EXPECT_EQ(models[9]->load_report().shared_bytes, kBase);
  for (int i = 0; i < 10; ++i) ExpectAnswersAsHead(*models[i], i);
  // The one whose file they use leaves, and others, in no order.
  for (const int leaves : {0, 5, 9}) models[leaves].reset();
  for (const int stays : {1, 2, 3, 4, 6, 7, 8}) ExpectAnswersAsHead(*models[stays], stays);
}

TEST_F(SharedWeightsTest, WhatTheLastOneLeavesIsFree) {
  std::weak_ptr<const MappedFile> provider;
  {
    auto first = Load(Head(0));
    provider = *files_->Open(dir_ / "head0/model.safetensors");
    const auto second = Load(Head(1));
    first.reset();
    EXPECT_FALSE(provider.expired());
  }
  EXPECT_TRUE(provider.expired());
}

TEST_F(SharedWeightsTest, AnEstimateCountsWhatOthersHaveAndHoldsWhenTheyLeave) {
  auto first = Load(Head(0));
  const ModelSpec spec = Head(1);
  const auto estimate = loader_->Estimate(spec);
  ASSERT_TRUE(estimate.ok()) << estimate.status();
  constexpr std::uint64_t kHead = 16 * kWidth * 2 * sizeof(float);
  const std::uint64_t alone = first->footprint().mapped_bytes();
  EXPECT_EQ(Union({&first->footprint(), &estimate->peak}), alone + kHead + fs::file_size(spec.file));
  first.reset();
  const auto second = Load(spec);
  EXPECT_EQ(second->footprint().extents, estimate->peak.extents);
  ExpectAnswersAsHead(*second, 1);
}

TEST_F(SharedWeightsTest, AnEstimateMadeAloneIsEnoughForALoadThatShares) {
  const ModelSpec spec = Head(1);
  const auto estimate = loader_->Estimate(spec);
  ASSERT_TRUE(estimate.ok()) << estimate.status();
  const auto first = Load(Head(0));
  const auto second = Load(spec);
  EXPECT_GT(second->load_report().shared_bytes, 0u);
  EXPECT_LE(second->footprint().mapped_bytes(), estimate->peak.mapped_bytes());
}

TEST_F(SharedWeightsTest, AModelNeverAnswersFromWhatOthersWrote) {
  const auto one = Load(Head(0)), two = Load(Head(1));
  for (int i = 0; i < 3; ++i) {
    Spoil(dir_ / "head0/model.safetensors");
    ExpectAnswersAsHead(*one, 0);
    ExpectAnswersAsHead(*two, 1);
  }
  const auto three = Load(Head(2));
  EXPECT_GT(three->load_report().shared_bytes, 0u) << "what they went on with is shared, too";
}

TEST_F(SharedWeightsTest, NorWhileTheyWrite) {
  const auto one = Load(Head(0)), two = Load(Head(1));
  std::atomic<bool> done{false};
  std::jthread writer([&] {
    for (int i = 0; i < 20; ++i) Spoil(dir_ / "head0/model.safetensors");
    done = true;
  });
  std::vector<std::jthread> readers;
  for (int i = 0; i < 2; ++i) {
    readers.emplace_back([&, i] {
      do {
        ExpectAnswersAsHead(i == 0 ? *one : *two, i);
      } while (!done);
    });
  }
}

TEST_F(SharedWeightsTest, ConstantsOfAProgramAreBoundAnewToo) {
  torch::jit::Module module = Linear(kWidth, kWidth, 1);
  module.eval();
  torch::jit::freeze(module).save((dir_ / "model.pt").string());
  const auto loader = MakeTorchScriptLoader({.mapped_files = files_});  // keeps no programs, copies no constants
  const auto model = *loader->Load({{"m", 1}, "torchscript", dir_ / "model.pt", {}}, {});
  torch::jit::Module reference = torch::jit::load((dir_ / "model.pt").string());
  Spoil(dir_ / "model.pt");
  const c10::InferenceMode guard;
  const at::Tensor x = at::randn({3, kWidth});
  EXPECT_TRUE(at::equal(Run(*model, x), reference.forward({x}).toTensor()));
}

TEST_F(SharedWeightsTest, AModelThatWritesUnseenByAnalysisDoesNotDisturbItsSharers) {
  torch::jit::Module module = Define("Sneaky");
  module.register_buffer("w", at::zeros({kWidth}));
  module.register_buffer("s", at::zeros({kWidth}));
  module.define(R"(
def forward(self, x: Tensor) -> Tensor:
    self.s = self.w
    self.s.add_(x)
    return self.s + self.w
)");
  module.save((dir_ / "model.pt").string());
  const ModelSpec spec{{"m", 1}, "torchscript", dir_ / "model.pt", {}};
  const auto one = Load(spec), two = Load(spec);
  std::vector<std::jthread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      for (int run = 0; run < 20; ++run) {
        EXPECT_TRUE(at::equal(Run(i % 2 == 0 ? *one : *two, at::ones({kWidth})), at::full({kWidth}, 2.0)));
      }
    });
  }
}

TEST_F(SharedWeightsTest, AModelThatWritesPastTheCountersGetsAMappingOfItsOwn) {
  auto generator = at::make_generator<at::CPUGeneratorImpl>(1);
  const at::Tensor w = at::randn({kWidth, kWidth}, generator);
  torch::jit::Module honest = Define("Honest"), rogue = Define("Rogue");
  for (torch::jit::Module* module : {&honest, &rogue}) {
    module->register_parameter("w", at::zeros({1}).expand({kWidth, kWidth}), false);
  }
  honest.define("def forward(self, x: Tensor) -> Tensor:\n    return x @ self.w\n");
  rogue.define("def forward(self, x: Tensor) -> Tensor:\n    return x + scribble(self.w)\n",
               std::make_shared<ScribbleResolver>());
  const auto one = Load(Spec("honest", honest, {{"w", w}}));
  const auto writer = Load(Spec("rogue", rogue, {{"w", w}}));
  EXPECT_EQ(writer->load_report().shared_bytes, w.nbytes());
  const c10::InferenceMode guard;
  const at::Tensor x = at::randn({3, kWidth});
  EXPECT_TRUE(TryRun(*writer, x).ok());
  const at::Tensor expected = x.matmul(w);
  EXPECT_TRUE(at::equal(Run(*one, x), expected));
  const auto mapping = *files_->Open(dir_ / "honest/model.safetensors");
  for (int i = 0; i < 5; ++i) {
    EXPECT_TRUE(TryRun(*writer, x).ok());
    EXPECT_TRUE(at::equal(Run(*one, x), expected));
  }
  EXPECT_FALSE(mapping->written()) << "it writes elsewhere by now";
}

TEST_F(SharedWeightsTest, ASessionWhoseWeightsWereWrittenToIsBegunAnew) {
  const auto model = Load(Head(0));
  const auto session = *model->NewSession();
  const at::Tensor x = at::randn({3, kWidth});
  ASSERT_TRUE(TryRun(*model, x, session.get()).ok());
  Spoil(dir_ / "head0/model.safetensors");
  const auto spoilt = TryRun(*model, x, session.get());
  EXPECT_EQ(spoilt.status().code(), absl::StatusCode::kAborted);
  EXPECT_THAT(std::string(spoilt.status().message()), HasSubstr("begin a new one"));
  const auto fresh = *model->NewSession();
  const auto answer = TryRun(*model, x, fresh.get());
  ASSERT_TRUE(answer.ok()) << answer.status();
  const c10::InferenceMode guard;
  EXPECT_TRUE(at::equal(*answer, expected_[0](x)));
}

TEST_F(SharedWeightsTest, AFileThatIsCutShortIsDataLossForAllWhoUseIt) {
  auto one = Load(Head(0));
  const ModelSpec spec = Head(1);
  const auto two = Load(spec);
  fs::resize_file(dir_ / "head0/model.safetensors", kPage);
  const at::Tensor x = at::randn({3, kWidth});
  EXPECT_EQ(TryRun(*one, x).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(TryRun(*two, x).status().code(), absl::StatusCode::kDataLoss);
  const auto again = Load(spec);  // its own file is whole
  const LoadReport& report = again->load_report();
  EXPECT_EQ(report.mapped_bytes - report.shared_bytes, kWidth * 16 * kWidth * sizeof(float)) << "the base";
  ExpectAnswersAsHead(*again, 1);
}

}  // namespace
}  // namespace hearth
