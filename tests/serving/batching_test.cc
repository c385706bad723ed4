// Requests of one model that are run together.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <thread>

#include "server/base/thread_pool.h"
#include "tests/serving/serving_fixture.h"

namespace hearth {
namespace {

using std::chrono::milliseconds;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr const char* kBatching = "max_batch_size: 4\nbatching: true\n";

class BatchingTest : public ServingTest {
 protected:
  // Doubles its input, and notes the shape it was run with.
  fakes::FakeModel::Options Doubler() {
    fakes::FakeModel::Options model = EchoModel();
    model.signature.inputs = {{"x", DType::kFp32, Shape{-1, -1}, false}};
    model.signature.max_batch_size = 4;
    model.run = [this](const TensorList& inputs, Session*) -> absl::StatusOr<TensorList> {
      const Tensor& x = inputs.at(0).tensor;
      runs_.push_back(ToString(x.shape));
      std::vector<float> values(x.data.size() / sizeof(float));
      std::memcpy(values.data(), x.data.data(), x.data.size());
      for (float& value : values) {
        if (value < 0) return absl::InvalidArgumentError("negative");
        value *= 2;
      }
      clock_.Advance(milliseconds(10));
      return TensorList{{"x", Owned(std::move(values), x.shape)}};
    };
    return model;
  }
  static Tensor Owned(std::vector<float> values, Shape shape) {
    const auto owner = std::make_shared<std::vector<float>>(std::move(values));
    return {DType::kFp32, std::move(shape), std::as_bytes(std::span<const float>(*owner)), owner};
  }
  Answer Ask(std::vector<float> row, int priority = 0) {
    InferRequest request = Request("m", row);
    request.inputs[0].tensor.shape.insert(request.inputs[0].tensor.shape.begin(), 1);
    request.priority = priority;
    return Infer(std::move(request));
  }
  static std::vector<float> Floats(const Answer& answer) {
    const auto& response = answer->value();
    if (!response.ok()) return {};
    const Tensor& tensor = response->outputs.at(0).tensor;
    std::vector<float> values(tensor.data.size() / sizeof(float));
    std::memcpy(values.data(), tensor.data.data(), tensor.data.size());
    return values;
  }
  std::vector<std::string> runs_;
};

TEST_F(BatchingTest, WhatWaitsForTheSameThreadIsOneRunAndEachGetsItsRows) {
  AddModel("m", Doubler(), kBatching);
  MakeResident("m");
  std::vector<Answer> answers;
  for (float i = 0; i < 6; ++i) answers.push_back(Ask({i, i + 1}));
  compute_.RunAll();
  EXPECT_THAT(runs_, ElementsAre("[4,2]", "[2,2]"));
  for (std::size_t i = 0; i < answers.size(); ++i) {
    const auto at = static_cast<float>(i);
    EXPECT_THAT(Floats(answers[i]), ElementsAre(2 * at, 2 * at + 2));
    EXPECT_EQ(answers[i]->value()->outputs[0].tensor.shape, (Shape{1, 2}));
  }
  const std::string labels = R"({model="m",version="1"} )";
  EXPECT_TRUE(Exposes("hearth_inferences_total" + labels + "6"));
  EXPECT_TRUE(Exposes("hearth_runs_total" + labels + "2"));
  const ModelStatistics sums = metrics_.Model("m", 1).statistics();
  EXPECT_EQ(sums.executions, 2u);
  EXPECT_EQ(sums.by_batch_size.at(4).infer.count, 1u);
  EXPECT_EQ(sums.infer.count, 6u);
  EXPECT_EQ(sums.infer.time, milliseconds(60));  // each its own, as Triton counts
}

TEST_F(BatchingTest, TheNextBatchRunsWhileTheAnswersOfTheLastOneAreSent) {
  fakes::ManualExecutor answers;
  StartInfer({}, &answers);
  AddModel("m", Doubler(), kBatching);
  MakeResident("m");
  std::vector<Answer> asked;
  for (float i = 0; i < 8; ++i) asked.push_back(Ask({i}));
  compute_.RunAll();
  EXPECT_THAT(runs_, ElementsAre("[4,1]", "[4,1]"));
  for (const Answer& answer : asked) EXPECT_FALSE(answer->has_value());
  EXPECT_EQ(Row("m")->pins, 0u);  // it may leave: its answers are no part of it
  answers.RunAll();
  for (std::size_t i = 0; i < asked.size(); ++i) EXPECT_THAT(Floats(asked[i]), ElementsAre(2 * static_cast<float>(i)));
}

TEST_F(BatchingTest, AnswersThatAreNotSentBeforeTheServerEndsAreErrors) {
  fakes::ManualExecutor answers;
  StartInfer({}, &answers);
  AddModel("m", Doubler(), kBatching);
  MakeResident("m");
  const Answer first = Ask({1}), second = Ask({2});
  compute_.RunAll();
  answers.ShutDown();
  EXPECT_TRUE(absl::IsUnavailable(first->value().status()));
  EXPECT_TRUE(absl::IsUnavailable(second->value().status()));
}

TEST_F(BatchingTest, WithoutItEachIsARunOfItsOwn) {
  AddModel("m", Doubler(), "max_batch_size: 4\n");
  MakeResident("m");
  for (float i = 0; i < 3; ++i) Ask({i});
  compute_.RunAll();
  EXPECT_THAT(runs_, ElementsAre("[1,1]", "[1,1]", "[1,1]"));
}

TEST_F(BatchingTest, ABadRequestSpoilsNobodyElses) {
  AddModel("m", Doubler(), kBatching);
  MakeResident("m");
  const Answer good = Ask({1}), bad = Ask({-1}), other = Ask({3});
  compute_.RunAll();
  EXPECT_THAT(Floats(good), ElementsAre(2));
  EXPECT_THAT(Floats(other), ElementsAre(6));
  EXPECT_THAT(Text(bad->value().status()), HasSubstr("negative"));
  EXPECT_THAT(runs_, ElementsAre("[3,1]", "[1,1]", "[1,1]", "[1,1]"));
}

TEST_F(BatchingTest, OnlyThoseOfOneShapeGoTogetherUnlessItMayPad) {
  AddModel("m", Doubler(), kBatching);
  MakeResident("m");
  const Answer one = Ask({1}), two = Ask({1, 2}), three = Ask({3});
  compute_.RunAll();
  EXPECT_THAT(runs_, ElementsAre("[2,1]", "[1,2]"));
  AddModel("p", Doubler(), "max_batch_size: 4\nbatching: {pad: [x]}\n");
  MakeResident("p");
  runs_.clear();
  std::vector<Answer> padded;
  for (std::vector<float> row : {std::vector<float>{1}, std::vector<float>{2, 3}}) {
    InferRequest request = Request("p", row);
    request.inputs[0].tensor.shape.insert(request.inputs[0].tensor.shape.begin(), 1);
    padded.push_back(Infer(std::move(request)));
  }
  compute_.RunAll();
  EXPECT_THAT(runs_, ElementsAre("[2,2]"));
  EXPECT_THAT(Floats(padded[0]), ElementsAre(2, 0));
  EXPECT_THAT(Floats(padded[1]), ElementsAre(4, 6));
}

TEST_F(BatchingTest, AModelWhoseOutputsHaveNoRowsIsAnsweredAllTheSame) {
  auto model = Doubler();
  model.run = [this](const TensorList& inputs, Session*) -> absl::StatusOr<TensorList> {
    runs_.push_back(ToString(inputs.at(0).tensor.shape));
    return TensorList{{"x", Owned({7}, {})}};
  };
  AddModel("m", std::move(model), kBatching);
  MakeResident("m");
  const Answer first = Ask({1}), second = Ask({2});
  compute_.RunAll();
  EXPECT_THAT(Floats(first), ElementsAre(7));
  EXPECT_THAT(runs_, ElementsAre("[2,1]", "[1,1]", "[1,1]"));
  Ask({1});
  Ask({2});
  compute_.RunAll();  // it is known now
  EXPECT_EQ(runs_.size(), 5u);
  EXPECT_EQ(runs_.back(), "[1,1]");
}

TEST_F(BatchingTest, OneThatWasCancelledIsLeftOutOfTheBatch) {
  AddModel("m", Doubler(), kBatching);
  MakeResident("m");
  InferRequest request = Request("m", {5});
  request.inputs[0].tensor.shape = {1, 1};
  std::stop_source cancel;
  const Answer cancelled = Infer(std::move(request), cancel.get_token());
  const Answer good = Ask({1});
  cancel.request_stop();
  compute_.RunAll();
  EXPECT_TRUE(absl::IsCancelled(cancelled->value().status()));
  EXPECT_THAT(Floats(good), ElementsAre(2));
  EXPECT_THAT(runs_, ElementsAre("[1,1]"));
}

TEST_F(BatchingTest, ThoseOfAnOldAndANewLoadAreApart) {
  AddModel("m", Doubler(), kBatching);
  MakeResident("m");
  const Answer before = Ask({1});
  SetModel("m", Doubler());
  manager_->Load({"m", 1}, {.reload = true}, kNoDeadline, [](auto) {});
  load_.RunAll();
  const Answer after = Ask({2});
  RunAll();
  EXPECT_THAT(Floats(before), ElementsAre(2));
  EXPECT_THAT(Floats(after), ElementsAre(4));
  EXPECT_THAT(runs_, ElementsAre("[1,1]", "[1,1]"));
}

// With real threads and a real timer: batches that wait, sequences, requests that are cancelled or come too late.
TEST_F(BatchingTest, EveryRequestIsAnsweredOnceWithItsOwnUnderRealThreads) {
  constexpr int kClients = 6;
  constexpr int kRequests = 300;
  auto model = EchoModel();
  model.signature.inputs = {{"x", DType::kFp32, Shape{-1, -1}, false}};
  model.signature.max_batch_size = 8;
  AddModel("batched", model, "max_batch_size: 8\nbatching: {max_delay: 1ms}\nqueue: {timeout: 50ms}\n");
  auto stateful = EchoModel();
  stateful.new_session = [] { return std::make_unique<Session>(); };
  AddModel("stateful", stateful, "sequences: {max: 4}\n");
  MakeResident("batched");
  MakeResident("stateful");
  std::atomic<int> answered{0}, wrong{0};
  {
    SteadyClock clock;
    ThreadPool pool({.name = "compute", .threads = 3, .on_thread_start = {}});
    ThreadPool reserve({.name = "reserve", .threads = 1, .on_thread_start = {}});
    ThreadTimer timer;
    InferService service({*catalog_, *manager_, pool, timer, clock, metrics_, *versions_, buffers_, &reserve});
    std::vector<std::thread> clients;
    for (int c = 0; c < kClients; ++c) {
      clients.emplace_back([&, c] {
        for (int i = 0; i < kRequests; ++i) {
          const auto value = static_cast<float>(c * kRequests + i);
          const bool sequenced = i % 3 == 0;
          InferRequest request = Request(sequenced ? "stateful" : "batched", {value});
          request.inputs[0].tensor.shape = {1, 1};
          if (sequenced) request.sequence = SequenceControl{std::to_string(c), i % 30 == 0, i % 30 == 27};
          if (i % 11 == 0) request.deadline = clock.Now() + milliseconds(1);
          std::stop_source cancel;
          service.Infer(std::move(request), cancel.get_token(), [&, value](absl::StatusOr<InferResponse> answer) {
            ++answered;
            if (!answer.ok()) return;
            float got = 0;
            const Tensor& tensor = answer->outputs.at(0).tensor;
            if (tensor.data.size() == sizeof(got)) std::memcpy(&got, tensor.data.data(), sizeof(got));
            if (got != value || tensor.shape != Shape{1, 1}) ++wrong;
          });
          if (i % 7 == 0) cancel.request_stop();
        }
      });
    }
    for (std::thread& client : clients) client.join();
    while (service.in_flight() > 0) std::this_thread::yield();
    service.StopAccepting();
  }
  EXPECT_EQ(answered, kClients * kRequests);
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(Row("batched")->pins, 0u);
  EXPECT_EQ(Row("stateful")->pins, 0u);
}

TEST_F(BatchingTest, TheSameInputsNeedOneRunWhereTheModelAllowsIt) {
  InferService::Options options;
  options.response_cache_bytes = 1 << 20;
  StartInfer(options);
  AddModel("m", Doubler(), "response_cache: true\n");
  MakeResident("m");
  const Answer first = Ask({1});
  compute_.RunAll();
  const Answer again = Ask({1});
  EXPECT_TRUE(again->has_value());  // at once
  EXPECT_THAT(Floats(again), ElementsAre(2));
  const Answer other = Ask({3});
  EXPECT_FALSE(other->has_value());
  compute_.RunAll();
  EXPECT_EQ(runs_.size(), 2u);
  const ModelStatistics sums = metrics_.Model("m", 1).statistics();
  EXPECT_EQ(sums.success.count, 3u);
  EXPECT_EQ(sums.queue.count, 3u);
  EXPECT_EQ(sums.infer.count, 2u);
  EXPECT_EQ(sums.cache_hit.count, 1u);
  EXPECT_EQ(sums.success.count, sums.inferences + 1) << "a kept answer is no inference";
  EXPECT_EQ(sums.cache_miss.count, 2u);
  SetModel("m", Doubler());
  manager_->Load({"m", 1}, {.reload = true}, kNoDeadline, [](auto) {});
  RunAll();
  Ask({1});
  compute_.RunAll();
  EXPECT_EQ(runs_.size(), 3u);  // another load may answer something else
}

TEST_F(BatchingTest, ClassesOfAnAnswerThatWasKeptAreClasses) {
  InferService::Options options;
  options.response_cache_bytes = 1 << 20;
  StartInfer(options);
  AddModel("m", Doubler(), "response_cache: true\n");
  MakeResident("m");
  Ask({1, 3});
  compute_.RunAll();
  InferRequest request = Request("m", {1, 3});
  request.inputs[0].tensor.shape = {1, 2};
  request.outputs = {"x"};
  request.top_classes = {1};
  const Answer classes = Infer(std::move(request));
  ASSERT_TRUE(classes->has_value()) << "at once";
  ASSERT_TRUE((*classes)->ok()) << (*classes)->status();
  const Tensor& tensor = (**classes)->outputs.at(0).tensor;
  EXPECT_EQ(tensor.shape, (Shape{1, 1}));
  EXPECT_THAT(*UnpackBytes(tensor), ElementsAre("6.000000:1"));
  EXPECT_EQ(runs_.size(), 1u);
  EXPECT_THAT(Floats(Ask({1, 3})), ElementsAre(2, 6)) << "what was kept is as it was";
}

TEST_F(BatchingTest, PrioritiesOfItsQueueAreKept) {
  AddModel("m", Doubler(), "queue: {priorities: 2}\nmax_batch_size: 1\n");
  MakeResident("m");
  const Answer usual = Ask({1, 1}), urgent = Ask({2}, 1);
  compute_.RunOne();
  EXPECT_TRUE(urgent->has_value());
  EXPECT_FALSE(usual->has_value());
  compute_.RunAll();
}

TEST_F(BatchingTest, AFullQueueRefusesAtOnce) {
  AddModel("m", Doubler(), "queue: {max_size: 1}\n");
  MakeResident("m");
  const Answer waits = Ask({1}), refused = Ask({2});
  EXPECT_EQ(refused->value().status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(Text(refused->value().status()), "Exceeds maximum queue size");
  compute_.RunAll();
  EXPECT_THAT(Floats(waits), ElementsAre(2));
}

}  // namespace
}  // namespace hearth
