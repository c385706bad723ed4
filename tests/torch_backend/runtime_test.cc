// Threads inside an operator: as many as its model says, on whichever thread it runs.
#include "server/torch_backend/runtime.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <future>
#include <memory>
#include <string>
#include <thread>

#include "server/torch_backend/tensor_bridge.h"
#include "server/torch_backend/torchscript_loader.h"
#include "tests/torch_backend/script_models.h"

#include <torch/library.h>

namespace hearth {
namespace {

using testing_models::Define;
using testing_models::TempDir;

// What a program finds that it may use. Among LibTorch's own, since a program made here knows no others.
TORCH_LIBRARY_FRAGMENT(aten, library) {
  library.def("hearth_runtime_test(Tensor x) -> Tensor", [](const at::Tensor& x) { return x + at::get_num_threads(); });
}

void OnAnotherThread(const std::function<void()>& work) { std::thread(work).join(); }

class RuntimeTest : public testing::Test {
 protected:
  RuntimeTest() { InitialiseTorch(); }

  std::unique_ptr<Model> Load(const std::string& code, int threads) {
    torch::jit::Module module = Define("Threads" + std::to_string(++models_));
    module.define(code);
    const std::filesystem::path file = dir_ / std::to_string(models_);
    module.save(file.string());
    ModelOptions options;
    options.intra_op_threads = threads;
    auto loaded = loader_->Load({{"m", 1}, "torchscript", file, std::move(options)}, {});
    EXPECT_TRUE(loaded.ok()) << loaded.status();
    return loaded.ok() ? *std::move(loaded) : nullptr;
  }
  std::unique_ptr<Model> TellsThreads(int threads) {
    return Load("def forward(self, x: Tensor) -> Tensor:\n    return torch.hearth_runtime_test(x)\n", threads);
  }
  static at::Tensor Run(const Model& model, const at::Tensor& x) {
    auto outputs = model.Run({{"x", *UnwrapTensor(x.clone(), "x")}}, nullptr);
    EXPECT_TRUE(outputs.ok()) << outputs.status();
    return outputs.ok() ? WrapTensor(outputs->front().tensor).clone() : at::Tensor();
  }
  static int ThreadsOf(const Model& model) { return static_cast<int>(Run(model, at::zeros({1})).item<float>()); }

  TempDir dir_;
  std::unique_ptr<Loader> loader_ = MakeTorchScriptLoader({});
  int models_ = 0;
};

TEST_F(RuntimeTest, ARunHasTheThreadsOfItsModelWhateverRanBefore) {
  const auto two = TellsThreads(2), three = TellsThreads(3), usual = TellsThreads(0);
  OnAnotherThread([&] {
    ConfigureTorchThread(/*usual=*/1, /*most=*/8);
    EXPECT_EQ(ThreadsOf(*usual), 1);
    EXPECT_EQ(ThreadsOf(*two), 2);
    EXPECT_EQ(ThreadsOf(*three), 3);
    EXPECT_EQ(ThreadsOf(*usual), 1);
    EXPECT_EQ(ThreadsOf(*two), 2);
  });
}

TEST_F(RuntimeTest, AndNeverMoreThanItsThreadMayHave) {
  const auto wide = TellsThreads(64), usual = TellsThreads(0);
  OnAnotherThread([&] {
    ConfigureTorchThread(2, 4);
    EXPECT_EQ(ThreadsOf(*wide), 4);
    EXPECT_EQ(ThreadsOf(*usual), 2);
  });
  OnAnotherThread([&] {  // as one that loads
    ConfigureTorchThread(1, 1);
    EXPECT_EQ(ThreadsOf(*wide), 1);
  });
}

TEST_F(RuntimeTest, WhatOneThreadIsSetToIsNotWhatAnotherBeginsWith) {
  const auto wide = TellsThreads(5), usual = TellsThreads(0);
  OnAnotherThread([&] {
    ConfigureTorchThread(1, 8);
    OnAnotherThread([&] {
      ConfigureTorchThread(3, 8);
      EXPECT_EQ(ThreadsOf(*wide), 5);
      EXPECT_EQ(ThreadsOf(*usual), 3);
      EXPECT_EQ(ThreadsOf(*wide), 5);
    });
    at::parallel_for(0, 1 << 16, 1, [](std::int64_t, std::int64_t) {});  // the first that torch does here in parallel
    EXPECT_EQ(ThreadsOf(*usual), 1);
  });
}

TEST_F(RuntimeTest, WhatAProgramForksComputesAlone) {
  const auto wide = TellsThreads(4);
  OnAnotherThread([&] {
    ConfigureTorchThread(1, 4);
    EXPECT_EQ(ThreadsOf(*wide), 4);
  });
  std::promise<int> threads;
  at::launch([&] { threads.set_value(at::get_num_threads()); });  // as torch.jit.fork does
  EXPECT_EQ(threads.get_future().get(), 1);
}

// oneDNN and MKL keep what they have prepared: for another number of threads that would be wrong.
TEST_F(RuntimeTest, AnswersAreTheSameForAnyNumberOfThreadsInAnyOrder) {
  const at::Tensor x = at::randn({4, 3, 32, 32});
  const std::string code =
      "def forward(self, x: Tensor) -> Tensor:\n"
      "    w = torch.full([16, 3, 3, 3], 0.25)\n"
      "    y = torch.relu(torch.conv2d(x, w, padding=1)).flatten(1)\n"
      "    return torch.softmax(torch.matmul(y, y.t()) * 0.001, 1)\n";
  const auto one = Load(code, 1), two = Load(code, 2), four = Load(code, 4);
  OnAnotherThread([&] {
    ConfigureTorchThread(1, 4);
    const at::Tensor expected = Run(*one, x);
    for (int round = 0; round < 4; ++round) {
      for (const Model* model : {two.get(), one.get(), four.get()}) {
        EXPECT_TRUE(at::allclose(Run(*model, x), expected, 1e-4, 1e-5));
      }
    }
  });
}

}  // namespace
}  // namespace hearth
