#include "server/serving/infer_service.h"

#include <barrier>
#include <thread>

#include "server/base/server_exiting.h"
#include "server/base/thread_pool.h"
#include "tests/serving/serving_fixture.h"

namespace hearth {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::HasSubstr;
using ::testing::StartsWith;

using InferServiceTest = ServingTest;

absl::StatusCode CodeOf(const absl::StatusOr<InferResponse>& answer) {
  return answer.status().code();
}

TEST_F(InferServiceTest, RunsAResidentModelOnAComputeThread) {
  AddModel("m");
  MakeResident("m");
  const Answer answer = Infer(Request("m", {1, 2, 3}));
  EXPECT_FALSE(answer->has_value());
  EXPECT_EQ(infer_->in_flight(), 1);
  EXPECT_EQ(load_.queued(), 0u);
  EXPECT_EQ(compute_.RunAll(), 1u);
  ASSERT_TRUE(answer->has_value());
  ASSERT_TRUE((*answer)->ok()) << (*answer)->status();
  const InferResponse& response = ***answer;
  EXPECT_EQ(response.model, (ModelId{"m", 1}));
  EXPECT_EQ(response.cache, CacheResult::kHit);
  ASSERT_EQ(response.outputs.size(), 1u);
  EXPECT_EQ(response.outputs[0].name, "x");
  EXPECT_EQ(reinterpret_cast<const float*>(response.outputs[0].tensor.data.data())[2], 3);
  EXPECT_EQ(infer_->in_flight(), 0);
}

TEST_F(InferServiceTest, LoadsAColdModelOnceForAllWhoAsk) {
  AddModel("m");
  const Answer first = Infer(Request("m"));
  const Answer second = Infer(Request("m"));
  EXPECT_EQ(infer_->in_flight(), 2);
  clock_.Advance(milliseconds(7));
  RunAll();
  EXPECT_EQ(loader_.loads("m"), 1);
  ASSERT_TRUE((*first)->ok() && (*second)->ok());
  EXPECT_EQ((**first)->cache, CacheResult::kLoad);
  EXPECT_EQ((**second)->cache, CacheResult::kWait);
  EXPECT_EQ((**first)->waited_for_load, milliseconds(7));
}

TEST_F(InferServiceTest, RefusesUnknownModelsAndVersionsAtOnce) {
  AddModel("m");
  InferRequest unknown = Request("nobody");
  const Answer no_model = Infer(std::move(unknown));
  ASSERT_TRUE(no_model->has_value());
  EXPECT_EQ(CodeOf(**no_model), absl::StatusCode::kNotFound);
  EXPECT_EQ(Text((*no_model)->status()), "Request for unknown model: 'nobody' is not found");

  InferRequest version = Request("m");
  version.version = "9";
  EXPECT_EQ(CodeOf(**Infer(version)), absl::StatusCode::kNotFound);
  version.version = "x";
  const Answer bad = Infer(version);
  EXPECT_EQ(CodeOf(**bad), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(
      Text((*bad)->status()),
      StartsWith("failed to get model version from specified version string 'x' (details: "));
  EXPECT_TRUE(Exposes(R"(hearth_requests_refused_total{code="NOT_FOUND"} 2)"));
  EXPECT_TRUE(Exposes(R"(hearth_requests_refused_total{code="INVALID_ARGUMENT"} 1)"));
  EXPECT_EQ(infer_->in_flight(), 0);
}

TEST_F(InferServiceTest, ServesTheVersionAskedForElseTheHighest) {
  AddModel("m");
  AddModel("m", EchoModel(), "", 4);
  InferRequest old = Request("m");
  old.version = "1";
  const Answer one = Infer(std::move(old));
  const Answer highest = Infer(Request("m"));
  RunAll();
  EXPECT_EQ((**one)->model.version, 1);
  EXPECT_EQ((**highest)->model.version, 4);
}

TEST_F(InferServiceTest, ABadRequestCostsNoComputeThread) {
  AddModel("m");
  MakeResident("m");
  InferRequest request = Request("m");
  request.id = "17";
  request.inputs[0].tensor.dtype = DType::kInt32;
  const Answer answer = Infer(std::move(request));
  ASSERT_TRUE(answer->has_value());
  EXPECT_EQ(
      Text((*answer)->status()),
      "[request id: 17] inference input 'x' data-type is 'INT32', but model 'm' expects 'FP32'");
  EXPECT_EQ(compute_.queued(), 0u);
  EXPECT_EQ(Row("m")->pins, 0u);
  EXPECT_TRUE(Exposes(R"(hearth_requests_total{code="INVALID_ARGUMENT",model="m",version="1"} 1)"));
}

TEST_F(InferServiceTest, ARequestThatComesTooLateIsNotRun) {
  int runs = 0;
  auto model = EchoModel();
  model.run = [&](const TensorList& inputs, Session*) { return ++runs, inputs; };
  AddModel("m", std::move(model));
  MakeResident("m");
  InferRequest request = Request("m");
  request.deadline = clock_.Now() + milliseconds(10);
  const Answer late = Infer(request);
  clock_.Advance(milliseconds(10));
  RunAll();
  EXPECT_EQ(CodeOf(**late), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(Text((*late)->status()), "Request timeout expired");
  EXPECT_EQ(runs, 0);
  request.deadline = clock_.Now() + milliseconds(10);
  const Answer in_time = Infer(request);
  clock_.Advance(milliseconds(9));
  RunAll();
  EXPECT_TRUE((*in_time)->ok());
  EXPECT_EQ(runs, 1);
}

TEST_F(InferServiceTest, ARequestCancelledInTheQueueIsNotRun) {
  int runs = 0;
  auto model = EchoModel();
  model.run = [&](const TensorList& inputs, Session*) { return ++runs, inputs; };
  AddModel("m", std::move(model));
  MakeResident("m");
  std::stop_source cancel;
  const Answer answer = Infer(Request("m"), cancel.get_token());
  cancel.request_stop();
  RunAll();
  EXPECT_EQ(CodeOf(**answer), absl::StatusCode::kCancelled);
  EXPECT_EQ(runs, 0);
  EXPECT_EQ(Row("m")->pins, 0u);
}

TEST_F(InferServiceTest, ARequestThatIsCancelledWhileItRunsIsNoSuccess) {
  std::stop_source cancel;
  Duration takes{};
  fakes::FakeModel::Options model = EchoModel();
  model.run = [&](const TensorList& inputs, Session*) -> absl::StatusOr<TensorList> {
    clock_.Advance(takes);
    cancel.request_stop();
    return inputs;
  };
  AddModel("m", std::move(model));
  MakeResident("m");
  const Answer cancelled = Infer(Request("m"), cancel.get_token());
  compute_.RunAll();
  EXPECT_EQ(CodeOf(**cancelled), absl::StatusCode::kCancelled);

  cancel = {};
  takes = std::chrono::seconds(2);
  InferRequest request = Request("m");
  request.deadline = clock_.Now() + std::chrono::seconds(1);
  const Answer late = Infer(std::move(request), cancel.get_token());
  compute_.RunAll();
  EXPECT_EQ(CodeOf(**late), absl::StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(Exposes(R"(hearth_requests_total{code="DEADLINE_EXCEEDED",model="m",version="1"} 1)")) << metrics_.Text();
  EXPECT_EQ(metrics_.Model("m", 1).statistics().success.count, 0u);
}

TEST_F(InferServiceTest, ARequestCancelledWhileItWaitsForALoadIsAnsweredAtOnce) {
  AddModel("m");
  std::stop_source cancel;
  const Answer cancelled = Infer(Request("m"), cancel.get_token());
  const Answer other = Infer(Request("m"));
  cancel.request_stop();
  ASSERT_TRUE(cancelled->has_value());
  EXPECT_EQ(CodeOf(**cancelled), absl::StatusCode::kCancelled);
  RunAll();
  EXPECT_TRUE((*other)->ok());

  std::stop_source already;
  already.request_stop();
  AddModel("n");
  EXPECT_EQ(CodeOf(**Infer(Request("n"), already.get_token())), absl::StatusCode::kCancelled);
}

TEST_F(InferServiceTest, ACancellationAfterTheAnswerDoesNothing) {
  AddModel("m");
  std::stop_source cancel;
  const Answer answer = Infer(Request("m"), cancel.get_token());
  RunAll();
  EXPECT_TRUE((*answer)->ok());
  cancel.request_stop();
  EXPECT_EQ(infer_->in_flight(), 0);
}

TEST_F(InferServiceTest, ADeadlineThatPassesDuringTheLoadIsAnsweredThen) {
  AddModel("m");
  InferRequest request = Request("m");
  request.deadline = clock_.Now() + seconds(1);
  const Answer answer = Infer(std::move(request));
  clock_.Advance(seconds(1));
  timer_.RunDue();
  ASSERT_TRUE(answer->has_value());
  EXPECT_EQ(CodeOf(**answer), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(InferServiceTest, EveryWaiterHearsWhyTheLoadFailed) {
  AddModel("m");
  loader_.FailLoad(1, absl::InvalidArgumentError("not a zip archive"));
  const Answer first = Infer(Request("m"));
  const Answer second = Infer(Request("m"));
  RunAll();
  EXPECT_EQ(CodeOf(**first), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ((*first)->status(), (*second)->status());
  EXPECT_THAT(Text((*first)->status()), HasSubstr("not a zip archive"));
  EXPECT_EQ(infer_->in_flight(), 0);
}

TEST_F(InferServiceTest, GivesTheOutputsAskedForInThatOrder) {
  auto model = EchoModel();
  model.signature.outputs = {{"a", DType::kFp32, std::nullopt, false},
                             {"b", DType::kFp32, std::nullopt, false},
                             {"c", DType::kFp32, std::nullopt, false}};
  model.run = [](const TensorList&, Session*) {
    return TensorList{{"a", {}}, {"b", {}}, {"c", {}}};
  };
  AddModel("m", std::move(model));
  MakeResident("m");
  InferRequest request = Request("m");
  request.outputs = {"c", "a"};
  const Answer answer = Infer(request);
  RunAll();
  ASSERT_TRUE((*answer)->ok());
  ASSERT_EQ((**answer)->outputs.size(), 2u);
  EXPECT_EQ((**answer)->outputs[0].name, "c");
  EXPECT_EQ((**answer)->outputs[1].name, "a");
  request.outputs = {"d"};
  const Answer refused = Infer(request);
  ASSERT_TRUE(refused->has_value());
  EXPECT_EQ(Text((*refused)->status()),
            "[request id: <id_unknown>] unexpected inference output 'd' for model 'm'");
}

TEST_F(InferServiceTest, GivesTheClassesOfOutputsThatAreAskedForThem) {
  WriteFile(root_ / "m/names.txt", "cat\ndog\n");
  AddModel("m", EchoModel(), "outputs: [{name: x, datatype: FP32, class_names: names.txt}]\n");
  MakeResident("m");
  InferRequest request = Request("m", {1, 3});
  request.outputs = {"x"};
  request.top_classes = {1};
  const Answer answer = Infer(std::move(request));
  RunAll();
  ASSERT_TRUE((*answer)->ok()) << (*answer)->status();
  const auto classes = UnpackBytes((**answer)->outputs[0].tensor);
  ASSERT_TRUE(classes.ok()) << classes.status();
  EXPECT_THAT(*classes, testing::ElementsAre("3.000000:1:dog"));
}

TEST_F(InferServiceTest, OutputsThatOnlyARunCanTellAreCheckedAfterIt) {
  auto model = EchoModel();
  model.signature.outputs.clear();
  model.signature.outputs_known = false;
  AddModel("m", std::move(model));
  MakeResident("m");
  InferRequest request = Request("m");
  request.outputs = {"nothing"};
  const Answer refused = Infer(request);
  request.outputs = {"x"};
  const Answer found = Infer(request);
  RunAll();
  EXPECT_EQ(CodeOf(**refused), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Text((*refused)->status()),
            "[request id: <id_unknown>] unexpected inference output 'nothing' for model 'm'");
  EXPECT_TRUE((*found)->ok());
}

TEST_F(InferServiceTest, TheProgramsOwnRefusalReachesTheClient) {
  auto model = EchoModel();
  model.run = [](const TensorList&, Session*) -> absl::StatusOr<TensorList> {
    return absl::InvalidArgumentError("mat1 and mat2 shapes cannot be multiplied");
  };
  AddModel("m", std::move(model));
  MakeResident("m");
  const Answer answer = Infer(Request("m"));
  RunAll();
  EXPECT_EQ(Text((*answer)->status()), "mat1 and mat2 shapes cannot be multiplied");
}

TEST_F(InferServiceTest, AModelThatLostItsFileIsLoadedAnewForTheNextRequest) {
  auto model = EchoModel();
  model.run = [](const TensorList&, Session*) -> absl::StatusOr<TensorList> {
    return absl::DataLossError("the file was cut short");
  };
  AddModel("m", std::move(model));
  MakeResident("m");
  const Answer lost = Infer(Request("m"));
  SetModel("m", EchoModel());
  RunAll();
  EXPECT_EQ(CodeOf(**lost), absl::StatusCode::kDataLoss);
  EXPECT_FALSE(Row("m").has_value());
  const Answer served = Infer(Request("m"));
  RunAll();
  EXPECT_TRUE((*served)->ok());
}

TEST_F(InferServiceTest, LetsGoOfTheModelBeforeTheAnswerIsSent) {
  AddModel("m");
  MakeResident("m");
  std::optional<std::uint64_t> pins;
  infer_->Infer(Request("m"), {}, [&](absl::StatusOr<InferResponse>) { pins = Row("m")->pins; });
  EXPECT_EQ(Row("m")->pins, 1u);
  RunAll();
  EXPECT_EQ(pins, 0u);
}

TEST_F(InferServiceTest, CountsWhereTheTimeWent) {
  auto model = EchoModel();
  model.signature.max_batch_size = 4;
  model.run = [&](const TensorList& inputs, Session*) {
    clock_.Advance(milliseconds(500));
    return inputs;
  };
  AddModel("m", std::move(model));
  MakeResident("m");
  InferRequest request = Request("m", {1, 2, 3});
  request.received = clock_.Now() - milliseconds(1000);
  const Answer answer = Infer(std::move(request));
  clock_.Advance(milliseconds(250));
  RunAll();
  ASSERT_TRUE((*answer)->ok()) << (*answer)->status();
  const std::string labels = R"({model="m",version="1"} )";
  EXPECT_TRUE(Exposes("hearth_request_duration_seconds_sum" + labels + "1.75"));
  EXPECT_TRUE(Exposes("hearth_request_queue_seconds_sum" + labels + "0.25"));
  EXPECT_TRUE(Exposes("hearth_request_infer_seconds_sum" + labels + "0.5"));
  EXPECT_TRUE(Exposes("hearth_inferences_total" + labels + "3"));
  EXPECT_TRUE(Exposes("hearth_cache_hits_total" + labels + "1"));
}

TEST_F(InferServiceTest, AModelWithOneInstanceLeavesTheOtherThreadsAlone) {
  AddModel("slow", EchoModel(), "instances: 1\n");
  AddModel("other");
  MakeResident("slow");
  MakeResident("other");
  std::vector<Answer> slow;
  for (int i = 0; i < 5; ++i) slow.push_back(Infer(Request("slow")));
  const Answer other = Infer(Request("other"));
  EXPECT_EQ(compute_.queued(), 2u);  // one of each
  EXPECT_EQ(Row("slow")->pins, 5u);
  compute_.RunOne();
  EXPECT_TRUE(slow[0]->has_value());
  EXPECT_EQ(compute_.queued(), 2u);  // the next one is behind `other`
  compute_.RunOne();
  EXPECT_TRUE(other->has_value());
  EXPECT_FALSE(slow[1]->has_value());
  for (int i = 1; i < 5; ++i) {
    EXPECT_EQ(compute_.queued(), 1u);
    compute_.RunOne();
    EXPECT_TRUE(slow[static_cast<std::size_t>(i)]->has_value());
  }
  EXPECT_EQ(infer_->in_flight(), 0);
}

TEST_F(InferServiceTest, ANewLoadBringsANewNumberOfInstances) {
  auto model = EchoModel();
  model.report[LoadPhase::kMap].wall = milliseconds(3);
  AddModel("m", model);
  MakeResident("m");
  Infer(Request("m"));
  Infer(Request("m"));
  EXPECT_EQ(compute_.RunAll(), 2u);
  manager_->Unload({"m", 1}, [] {});
  load_.RunAll();
  model.report[LoadPhase::kMap].wall = milliseconds(4);  // even where the allocator repeats the address
  AddModel("m", model, "instances: 1\n");
  MakeResident("m");
  const Answer first = Infer(Request("m"));
  const Answer second = Infer(Request("m"));
  EXPECT_EQ(compute_.queued(), 1u);
  RunAll();
  EXPECT_TRUE((*first)->ok() && (*second)->ok());
}

TEST_F(InferServiceTest, StopAcceptingRefusesNewOnesAndFinishesOthers) {
  AddModel("m");
  MakeResident("m");
  const Answer before = Infer(Request("m"));
  infer_->StopAccepting();
  const Answer after = Infer(Request("m"));
  ASSERT_TRUE(after->has_value());
  EXPECT_EQ((*after)->status(), ServerExiting());
  EXPECT_EQ(infer_->in_flight(), 1);
  RunAll();
  EXPECT_TRUE((*before)->ok());
  EXPECT_EQ(infer_->in_flight(), 0);
}

TEST_F(InferServiceTest, RefusesMoreThanMayBeInFlight) {
  InferService::Options options;
  options.max_in_flight = 2;
  StartInfer(options);
  AddModel("m");
  MakeResident("m");
  const Answer first = Infer(Request("m"));
  const Answer second = Infer(Request("m"));
  const Answer third = Infer(Request("m"));
  ASSERT_TRUE(third->has_value());
  const absl::Status full = absl::UnavailableError("Exceeds maximum queue size: 2 requests of all models are in progress "
                                                   "(grpc.max_in_flight)");
  EXPECT_EQ((*third)->status(), WithRetryAfter(full, std::chrono::milliseconds(100)));
  RunAll();
  EXPECT_TRUE((*first)->ok() && (*second)->ok());
  const Answer again = Infer(Request("m"));
  RunAll();
  EXPECT_TRUE((*again)->ok());
}

TEST_F(InferServiceTest, WhatADyingExecutorDropsIsAnsweredHoweverLongTheQueue) {
  AddModel("m", EchoModel(), "instances: 1\n");
  MakeResident("m");
  std::vector<Answer> answers;
  for (int i = 0; i < 50'000; ++i) answers.push_back(Infer(Request("m")));
  compute_.ShutDown();
  for (const Answer& answer : answers) {
    ASSERT_TRUE(answer->has_value());
    ASSERT_EQ((*answer)->status(), ServerExiting());
  }
  EXPECT_EQ(infer_->in_flight(), 0);
  EXPECT_EQ(Row("m")->pins, 0u);
  const Answer late = Infer(Request("m"));
  ASSERT_TRUE(late->has_value());
  EXPECT_EQ((*late)->status(), ServerExiting());
}

TEST_F(InferServiceTest, AnUnloadDuringTheLoadIsNotUndoneByIt) {
  AddModel("m");
  const Answer answer = Infer(Request("m"));
  catalog_->SetUnloaded("m", true);
  RunAll();
  EXPECT_EQ(CodeOf(**answer), absl::StatusCode::kUnavailable);
  EXPECT_THAT(Text((*answer)->status()), HasSubstr("is not at ready state"));
  EXPECT_FALSE(Row("m").has_value());
  EXPECT_EQ(loader_.alive(), 0);
}

TEST_F(InferServiceTest, ItsLimitsCanBeChangedForRequestsToCome) {
  AddModel("m");
  MakeResident("m");
  InferService::Options options;
  options.limits.max_dims = 0;
  infer_->SetOptions(options);
  const Answer refused = Infer(Request("m"));
  ASSERT_TRUE(refused->has_value());
  EXPECT_EQ((*refused)->status().code(), absl::StatusCode::kInvalidArgument);
  options.limits.max_dims = 1;
  options.max_in_flight = 1;
  infer_->SetOptions(options);
  const Answer served = Infer(Request("m"));
  EXPECT_THAT(Text((**Infer(Request("m"))).status()), HasSubstr("maximum queue size"));
  RunAll();
  EXPECT_TRUE((*served)->ok());
}

TEST_F(InferServiceTest, HoldsItsLimitsUnderRealThreads) {
  constexpr int kClients = 8;
  constexpr int kRequests = 500;
  std::atomic<int> running{0};
  std::atomic<int> most{0};
  auto model = EchoModel();
  model.run = [&](const TensorList& inputs, Session*) {
    const int now = ++running;
    for (int seen = most; seen < now && !most.compare_exchange_weak(seen, now);) {
    }
    std::this_thread::yield();
    --running;
    return inputs;
  };
  AddModel("limited", model, "instances: 2\n");
  AddModel("free");
  MakeResident("limited");
  MakeResident("free");

  std::atomic<int> answered{0};
  {
    ThreadPool pool({.name = "compute", .threads = 4, .on_thread_start = {}});
    InferService service({*catalog_, *manager_, pool, timer_, clock_, metrics_, *versions_, buffers_});
    std::barrier start(kClients);
    std::vector<std::thread> clients;
    for (int c = 0; c < kClients; ++c) {
      clients.emplace_back([&, c] {
        start.arrive_and_wait();
        for (int i = 0; i < kRequests; ++i) {
          std::stop_source cancel;
          service.Infer(Request((c + i) % 2 == 0 ? "limited" : "free"), cancel.get_token(),
                        [&](absl::StatusOr<InferResponse> answer) {
                          if (answer.ok() || absl::IsCancelled(answer.status())) ++answered;
                        });
          if (i % 7 == 0) cancel.request_stop();
        }
      });
    }
    for (std::thread& client : clients) client.join();
    while (service.in_flight() > 0) std::this_thread::yield();
  }
  EXPECT_EQ(answered, kClients * kRequests);
  EXPECT_LE(most, 2);
  EXPECT_EQ(Row("limited")->pins, 0u);
}

TEST(ParseVersion, TakesNoneOrANumberAboveZero) {
  EXPECT_EQ(*ParseVersion(""), std::nullopt);
  EXPECT_EQ(*ParseVersion("3"), 3);
  EXPECT_EQ(*ParseVersion("9223372036854775807"), 9223372036854775807);
  for (const char* bad : {"x", "0", "-1", "+1", " 1", "1 ", "1.0", "0x1", "9223372036854775808"}) {
    const auto version = ParseVersion(bad);
    ASSERT_EQ(version.status().code(), absl::StatusCode::kInvalidArgument) << bad;
    EXPECT_THAT(
        Text(version.status()),
        AllOf(StartsWith(StrCat("failed to get model version from specified version string '", bad,
                                "' (details: ")),
              testing::EndsWith("), version should be an integral value > 0")));
  }
}

}  // namespace
}  // namespace hearth
