// ModelStreamInfer: order, errors, limits, and how streams end.
#include "server/frontend/stream_rpc.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "tests/frontend/server_stack.h"

namespace hearth {
namespace {

using inference::ModelInferRequest;
using inference::ModelStreamInferResponse;
using testing::HasSubstr;
using testing::StartsWith;

class StreamRpcTest : public testing::Test {
 protected:
  StreamRpcTest() {
    fakes::FakeLoader::Script script;
    script.model.signature = {
        "fake", {{"x", DType::kFp32, Shape{-1}, false}}, {{"x", DType::kFp32, Shape{-1}, false}}, true, {}};
    stack_.AddModel("echo", script);
    script.model.run = [this](const TensorList& inputs, Session*) -> absl::StatusOr<TensorList> {
      running_.fetch_add(1);
      gate_.wait();
      return inputs;
    };
    stack_.AddModel("slow", script);
    script.on_load = [this](const ModelSpec&, std::stop_token) { gate_.wait(); };
    stack_.AddModel("loading", script);
  }
  ~StreamRpcTest() override { Open(); }

  // Lets "slow" run and "loading" load, now and from now on.
  void Open() {
    if (!std::exchange(open_, true)) opener_.set_value();
  }

  struct Client {
    explicit Client(const ServerStack& stack, bool ends_on_error = false,
                    std::chrono::system_clock::time_point deadline = std::chrono::system_clock::time_point::max())
        : stub(stack.Stub()) {
      context.set_deadline(deadline);
      if (ends_on_error) context.AddMetadata("triton_grpc_error", "true");
      stream = stub->ModelStreamInfer(&context);
    }
    bool Send(const std::string& model, const std::string& id, const std::string& data = "\x11\x11\x11\x11") {
      ModelInferRequest request;
      request.set_model_name(model);
      request.set_id(id);
      auto* input = request.add_inputs();
      input->set_name("x");
      input->set_datatype("FP32");
      input->add_shape(static_cast<std::int64_t>(data.size() / 4));
      request.add_raw_input_contents(data);
      return stream->Write(request);
    }
    // The id of the next answer, which must be a good one; empty: the stream has ended.
    std::string Next() {
      if (!stream->Read(&answer)) return "";
      EXPECT_EQ(answer.error_message(), "");
      EXPECT_TRUE(answer.infer_response().parameters().at("triton_final_response").bool_param());
      return answer.infer_response().id();
    }
    grpc::Status Finish() { return stream->Finish(); }

    std::unique_ptr<inference::GRPCInferenceService::Stub> stub;
    grpc::ClientContext context;
    std::unique_ptr<grpc::ClientReaderWriter<ModelInferRequest, ModelStreamInferResponse>> stream;
    ModelStreamInferResponse answer;
  };

  void WaitUntilInFlight(std::int64_t number) {
    while (stack_.infer.in_flight() != number) std::this_thread::yield();
  }

  std::atomic<int> running_{0};
  std::promise<void> opener_;
  std::shared_future<void> gate_ = opener_.get_future().share();
  bool open_ = false;
  ServerStack stack_;  // goes first: its threads use the others
};

TEST_F(StreamRpcTest, AnswersEveryRequestAndEndsWithTheClientsLast) {
  Client client(stack_);
  for (int i = 0; i < 200; ++i) ASSERT_TRUE(client.Send("echo", std::to_string(i)));
  ASSERT_TRUE(client.stream->WritesDone());
  for (int i = 0; i < 200; ++i) ASSERT_EQ(client.Next(), std::to_string(i));
  EXPECT_EQ(client.Next(), "");
  EXPECT_TRUE(client.Finish().ok());
}

TEST_F(StreamRpcTest, LargeTensorsComeBackAsTheyWere) {
  Client client(stack_);
  std::string large(1 << 20, '\0');
  for (std::size_t i = 0; i < large.size(); ++i) large[i] = static_cast<char>(i * 7);
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(client.Send("echo", "large", large));
    ASSERT_EQ(client.Next(), "large");
    ASSERT_EQ(client.answer.infer_response().raw_output_contents(0), large);
    ASSERT_EQ(client.answer.infer_response().outputs(0).shape(0), 1 << 18);
  }
}

TEST_F(StreamRpcTest, AnswersComeInTheOrderOfTheRequestsWhicheverIsDoneFirst) {
  Client client(stack_);
  ASSERT_TRUE(client.Send("slow", "first"));
  ASSERT_TRUE(client.Send("echo", "second"));
  while (running_.load() == 0) std::this_thread::yield();
  WaitUntilInFlight(1);  // the second is done
  Open();
  EXPECT_EQ(client.Next(), "first");
  EXPECT_EQ(client.Next(), "second");
}

TEST_F(StreamRpcTest, ARequestThatFailsIsToldInItsPlaceAndTheStreamGoesOn) {
  Client client(stack_);
  ASSERT_TRUE(client.Send("echo", "before"));
  ASSERT_TRUE(client.Send("nobody", "unknown"));
  ASSERT_TRUE(client.Send("echo", "odd", "abc"));
  ASSERT_TRUE(client.Send("echo", "after"));
  EXPECT_EQ(client.Next(), "before");
  for (const auto& [id, text] : {std::pair{"unknown", "nobody"}, std::pair{"odd", "'x'"}}) {
    ASSERT_TRUE(client.stream->Read(&client.answer));
    EXPECT_EQ(client.answer.infer_response().id(), id);
    EXPECT_THAT(client.answer.error_message(), HasSubstr(text));
    EXPECT_EQ(client.answer.infer_response().outputs_size(), 0);
  }
  EXPECT_EQ(client.Next(), "after");
  ASSERT_TRUE(client.stream->WritesDone());
  EXPECT_EQ(client.Next(), "");
  EXPECT_TRUE(client.Finish().ok());
}

TEST_F(StreamRpcTest, AClientThatWantsAStatusGetsItAfterTheAnswersBeforeIt) {
  Client client(stack_, /*ends_on_error=*/true);
  ASSERT_TRUE(client.Send("echo", "before"));
  ASSERT_TRUE(client.Send("nobody", "unknown"));
  (void)client.Send("slow", "after");
  EXPECT_EQ(client.Next(), "before");
  EXPECT_EQ(client.Next(), "");
  const grpc::Status status = client.Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_THAT(status.error_message(), HasSubstr("'nobody'"));
}

TEST_F(StreamRpcTest, WhatIsNoRequestIsToldSo) {
  grpc::GenericStub stub(stack_.Channel());
  grpc::ClientContext context;
  grpc::CompletionQueue queue;
  const auto call = stub.PrepareCall(&context, "/inference.GRPCInferenceService/ModelStreamInfer", &queue);
  const auto next = [&queue] {
    void* tag = nullptr;
    bool ok = false;
    return queue.Next(&tag, &ok) && ok;
  };
  call->StartCall(nullptr);
  ASSERT_TRUE(next());
  grpc::Slice slice("\x07garbage");
  call->Write(grpc::ByteBuffer(&slice, 1), nullptr);
  ASSERT_TRUE(next());
  grpc::ByteBuffer bytes;
  call->Read(&bytes, nullptr);
  ASSERT_TRUE(next());
  grpc::Slice whole;
  ASSERT_TRUE(bytes.DumpToSingleSlice(&whole).ok());
  ModelStreamInferResponse answer;
  ASSERT_TRUE(answer.ParseFromArray(whole.begin(), static_cast<int>(whole.size())));
  EXPECT_THAT(answer.error_message(), StartsWith("the request is not a ModelInferRequest"));
  context.TryCancel();
  grpc::Status status;
  call->Finish(&status, nullptr);
  next();
}

TEST_F(StreamRpcTest, AStreamHasSoManyRequestsInFlightAndTheClientWaits) {
  constexpr int kMany = 3 * static_cast<int>(StreamRpc::kMaxInFlight);
  Client client(stack_);
  for (int i = 0; i < kMany; ++i) ASSERT_TRUE(client.Send("slow", std::to_string(i)));
  while (stack_.infer.in_flight() < static_cast<std::int64_t>(StreamRpc::kMaxInFlight)) std::this_thread::yield();
  // All of them have long arrived when this is answered, on the thread that would have read them.
  for (int i = 0; i < 10; ++i) {
    grpc::ClientContext context;
    inference::ServerLiveResponse live;
    ASSERT_TRUE(client.stub->ServerLive(&context, {}, &live).ok());
  }
  EXPECT_EQ(stack_.infer.in_flight(), static_cast<std::int64_t>(StreamRpc::kMaxInFlight));
  Open();
  for (int i = 0; i < kMany; ++i) ASSERT_EQ(client.Next(), std::to_string(i));
}

TEST_F(StreamRpcTest, WhatWaitsForAClientThatIsGoneIsCancelled) {
  Client client(stack_);
  for (int i = 0; i < 8; ++i) ASSERT_TRUE(client.Send("loading", std::to_string(i)));
  WaitUntilInFlight(8);
  client.context.TryCancel();
  EXPECT_EQ(client.Finish().error_code(), grpc::StatusCode::CANCELLED);
  WaitUntilInFlight(0);  // while the load goes on
  Open();
  EXPECT_EQ(running_.load(), 0);
}

TEST_F(StreamRpcTest, TheDeadlineOfAStreamIsThatOfItsRequests) {
  Client client(stack_, /*ends_on_error=*/false, std::chrono::system_clock::now() + std::chrono::milliseconds(200));
  for (int i = 0; i < 8; ++i) (void)client.Send("loading", std::to_string(i));
  while (client.stream->Read(&client.answer)) EXPECT_NE(client.answer.error_message(), "");
  EXPECT_EQ(client.Finish().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  WaitUntilInFlight(0);
}

TEST_F(StreamRpcTest, AStreamOnWhichNothingIsAskedEndsWithTheServer) {
  Client client(stack_);
  ASSERT_TRUE(client.Send("echo", "a"));
  ASSERT_EQ(client.Next(), "a");
  EXPECT_TRUE(stack_.server->Shutdown(stack_.clock.Now() + std::chrono::hours(1)).ok());
  EXPECT_EQ(client.Next(), "");
  const grpc::Status status = client.Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(status.error_message(), "Server exiting");
}

TEST_F(StreamRpcTest, AShutdownWaitsForWhatAStreamHasAsked) {
  Client client(stack_);
  ASSERT_TRUE(client.Send("slow", "a"));
  while (running_.load() == 0) std::this_thread::yield();
  auto shutdown = std::async(std::launch::async, [this] { return stack_.server->Shutdown(kNoDeadline); });
  const auto refused = [this] {
    grpc::ClientContext context;  // a call that comes while the port closes may never be answered
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(1));
    inference::ServerLiveResponse response;
    return !stack_.Stub()->ServerLive(&context, {}, &response).ok();
  };
  while (!refused()) std::this_thread::yield();
  Open();
  EXPECT_EQ(client.Next(), "a");
  EXPECT_EQ(client.Next(), "");
  EXPECT_EQ(client.Finish().error_message(), "Server exiting");
  EXPECT_TRUE(shutdown.get().ok());
}

TEST_F(StreamRpcTest, AShutdownGivesUpOnWhatHangs) {
  Client client(stack_);
  ASSERT_TRUE(client.Send("slow", "a"));
  while (running_.load() == 0) std::this_thread::yield();
  const absl::Status hung = stack_.server->Shutdown(stack_.clock.Now());
  EXPECT_THAT(hung.ToString(), HasSubstr("nobody has answered: 1"));
  EXPECT_FALSE(client.Finish().ok());
  Open();
  EXPECT_TRUE(stack_.server->Shutdown(kNoDeadline).ok());
}

}  // namespace
}  // namespace hearth
