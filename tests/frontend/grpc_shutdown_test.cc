// How the gRPC front end ends: for whom it waits, and for whom it does not.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <future>
#include <string>
#include <thread>

#include "grpc/health/v1/health.grpc.pb.h"
#include "server/base/unique_fd.h"
#include "tests/frontend/server_stack.h"

namespace hearth {
namespace {

using testing::HasSubstr;

class GrpcShutdownTest : public testing::Test {
 protected:
  // A request that `model` holds on to until the test lets go of it.
  std::future<grpc::Status> Hold(const std::string& model) {
    fakes::FakeLoader::Script script;
    script.model.signature = {
        "fake", {{"x", DType::kFp32, Shape{-1}, false}}, {{"x", DType::kFp32, Shape{-1}, false}}, true, {}};
    script.model.run = [this](const TensorList& inputs, Session*) -> absl::StatusOr<TensorList> {
      running_.set_value();
      go_on_.get_future().wait();
      return inputs;
    };
    stack_.AddModel(model, script);
    auto status = std::async(std::launch::async, [this, model] {
      inference::ModelInferRequest request;
      request.set_model_name(model);
      auto* input = request.add_inputs();
      input->set_name("x");
      input->set_datatype("FP32");
      input->add_shape(1);
      request.add_raw_input_contents(std::string(4, '\x11'));
      grpc::ClientContext context;
      inference::ModelInferResponse response;
      return stack_.Stub()->ModelInfer(&context, request, &response);
    });
    running_.get_future().wait();
    return status;
  }

  std::promise<void> running_;
  std::promise<void> go_on_;
  ServerStack stack_;  // goes first: its threads use the others
};

TEST_F(GrpcShutdownTest, WaitsForWhatRuns) {
  std::future<grpc::Status> status = Hold("slow");
  auto shutdown =
      std::async(std::launch::async, [&] { return stack_.server->Shutdown(kNoDeadline); });
  // A new connection is refused once the shutdown has begun; the call under way is not hurt.
  const auto refused = [this] {
    grpc::ClientContext context;  // a call that comes while the port closes may never be answered
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(1));
    inference::ServerLiveResponse response;
    return !stack_.Stub()->ServerLive(&context, {}, &response).ok();
  };
  while (!refused()) std::this_thread::yield();
  go_on_.set_value();
  EXPECT_TRUE(status.get().ok());
  EXPECT_TRUE(shutdown.get().ok());
}

TEST_F(GrpcShutdownTest, GivesUpOnWhatHangs) {
  std::future<grpc::Status> status = Hold("hanging");
  const absl::Status hung = stack_.server->Shutdown(stack_.clock.Now());
  EXPECT_EQ(hung.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(hung.ToString(), HasSubstr("nobody has answered: 1"));
  EXPECT_FALSE(status.get().ok());  // the client has been told
  go_on_.set_value();
  EXPECT_TRUE(stack_.server->Shutdown(kNoDeadline).ok());
}

TEST_F(GrpcShutdownTest, DoesNotWaitForAConnectionThatNeverSaidAWord) {
  const UniqueFd silent(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<std::uint16_t>(stack_.server->port()));
  ASSERT_EQ(::connect(silent.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  char first = 0;
  ASSERT_EQ(::recv(silent.get(), &first, 1, 0), 1) << "the server has it, and sent its settings";
  EXPECT_TRUE(stack_.server->Shutdown(stack_.clock.Now() + std::chrono::hours(1)).ok());
}

TEST_F(GrpcShutdownTest, DoesNotWaitForAnOpenStreamOfReflection) {
  ReflectionStream stream(stack_);
  ASSERT_TRUE(stream.Next());
  stream.call->Write(grpc::ByteBuffer(&stream.list, 1), nullptr);
  ASSERT_TRUE(stream.Next());
  grpc::ByteBuffer answer;
  stream.call->Read(&answer, nullptr);
  ASSERT_TRUE(stream.Next()) << "the stream is open";
  EXPECT_TRUE(stack_.server->Shutdown(stack_.clock.Now() + std::chrono::hours(1)).ok());
  grpc::Status status;
  stream.call->Finish(&status, nullptr);
  stream.Next();
  EXPECT_FALSE(status.ok());
}

TEST_F(GrpcShutdownTest, EndsWatches) {
  const auto stub = grpc::health::v1::Health::NewStub(stack_.Channel());
  stack_.server->SetServing(true);
  grpc::ClientContext context;
  const auto reader = stub->Watch(&context, {});
  grpc::health::v1::HealthCheckResponse response;
  ASSERT_TRUE(reader->Read(&response));
  EXPECT_EQ(response.status(), grpc::health::v1::HealthCheckResponse::SERVING);
  EXPECT_TRUE(stack_.server->Shutdown(kNoDeadline).ok());
  ASSERT_TRUE(reader->Read(&response));
  EXPECT_EQ(response.status(), grpc::health::v1::HealthCheckResponse::NOT_SERVING);
  EXPECT_FALSE(reader->Read(&response));
}

}  // namespace
}  // namespace hearth
