#include "server/frontend/unary_call.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <future>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "google/rpc/retry.pb.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "server/base/thread_pool.h"
#include "tests/frontend/mini_server.h"

namespace hearth {
namespace {

using grpc::health::v1::Health;
using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;
using Call = UnaryCall<HealthCheckRequest, HealthCheckResponse>;

// Health's Check stands for any unary method.
class UnaryCallTest : public testing::Test {
 protected:
  void Serve(std::function<void(Call)> handler) {
    ServeUnary(server_.loop(), "grpc.health.v1.Health/Check", service_, &Health::AsyncService::RequestCheck, 2,
               std::move(handler));
    server_.Start();
    stub_ = Health::NewStub(server_.Channel());
  }
  grpc::Status Check(grpc::ClientContext& context) {
    HealthCheckRequest request;
    request.set_service("a name");
    return stub_->Check(&context, request, &response_);
  }
  grpc::Status Check() {
    grpc::ClientContext context;
    return Check(context);
  }

  SteadyClock clock_;
  Health::AsyncService service_;
  MiniServer server_{service_};
  std::unique_ptr<Health::Stub> stub_;
  HealthCheckResponse response_;
};

TEST_F(UnaryCallTest, AnswersWithTheResponse) {
  Serve([](Call call) {
    EXPECT_EQ(call.request().service(), "a name");
    call.response().set_status(HealthCheckResponse::SERVING);
    std::move(call).Finish(absl::OkStatus());
  });
  for (int i = 0; i < 5; ++i) {  // more than were armed
    EXPECT_TRUE(Check().ok());
    EXPECT_EQ(response_.status(), HealthCheckResponse::SERVING);
  }
}

TEST_F(UnaryCallTest, AnswersFromAnotherThread) {
  std::promise<Call> arrived;
  std::thread other([&] {
    Call call = arrived.get_future().get();
    std::move(call).Finish(absl::UnavailableError("later"));
  });
  Serve([&](Call call) { arrived.set_value(std::move(call)); });
  const grpc::Status status = Check();
  other.join();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(status.error_message(), "later");
}

TEST_F(UnaryCallTest, AnswersOfManyCallsAtOnceComeFromOtherThreadsToWhoAsked) {
  constexpr int kClients = 16, kCalls = 200;
  std::atomic<int> right = 0;
  ThreadPool pool({.name = "answers", .threads = 3, .on_thread_start = {}});
  Serve([&](Call call) {
    pool.Post([call = std::move(call)]() mutable {
      const bool odd = call.request().service().back() % 2 == 1;
      call.response().set_status(odd ? HealthCheckResponse::SERVING : HealthCheckResponse::NOT_SERVING);
      std::move(call).Finish(odd ? absl::OkStatus() : absl::UnavailableError(call.request().service()));
    });
  });
  std::vector<std::thread> clients;
  for (int c = 0; c < kClients; ++c) {
    clients.emplace_back([&, c] {
      for (int i = 0; i < kCalls; ++i) {
        grpc::ClientContext context;
        HealthCheckRequest request;
        request.set_service(std::to_string(c) + "/" + std::to_string(i));
        HealthCheckResponse response;
        const grpc::Status status = stub_->Check(&context, request, &response);
        right += i % 2 == 1 ? status.ok() && response.status() == HealthCheckResponse::SERVING
                            : status.error_message() == request.service();
      }
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(right, kClients * kCalls);
  server_.Stop();  // its thread may still have to wake the pool
}

TEST_F(UnaryCallTest, ADroppedCallIsAnsweredAllTheSame) {
  Serve([](Call) {});
  const grpc::Status status = Check();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INTERNAL);
  EXPECT_EQ(status.error_message(), "the request was dropped unanswered");
}

TEST_F(UnaryCallTest, ARetryHintTravelsAsTrailingMetadataAndInTheDetails) {
  Serve([](Call call) {
    std::move(call).Finish(
        WithRetryAfter(absl::ResourceExhaustedError("100 % full"), std::chrono::milliseconds(2250)));
  });
  grpc::ClientContext context;
  const grpc::Status status = Check(context);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  const auto& trailers = context.GetServerTrailingMetadata();
  const auto hint = trailers.find("grpc-retry-pushback-ms");
  ASSERT_NE(hint, trailers.end());
  EXPECT_EQ(hint->second, "2250");
  google::rpc::Status details;
  ASSERT_TRUE(details.ParseFromString(status.error_details()));
  EXPECT_EQ(details.code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(details.message(), status.error_message());
  ASSERT_EQ(details.details_size(), 1);
  EXPECT_EQ(details.details(0).type_url(), "type.googleapis.com/google.rpc.RetryInfo");
  google::rpc::RetryInfo retry;
  ASSERT_TRUE(details.details(0).UnpackTo(&retry));
  EXPECT_EQ(retry.retry_delay().seconds(), 2);
  EXPECT_EQ(retry.retry_delay().nanos(), 250'000'000);
}

TEST_F(UnaryCallTest, ARefusalWithoutAHintHasNoDetails) {
  Serve([](Call call) { std::move(call).Finish(absl::NotFoundError("no such model")); });
  EXPECT_EQ(Check().error_details(), "");
}

TEST_F(UnaryCallTest, AMessageThatFillsTheHeadersIsWorthMoreThanDetails) {
  const std::string text(4'000, 'x');
  Serve([&text](Call call) {
    std::move(call).Finish(WithRetryAfter(absl::InvalidArgumentError(text), std::chrono::milliseconds(1)));
  });
  grpc::ClientContext context;
  const grpc::Status status = Check(context);
  EXPECT_EQ(status.error_message(), text);
  EXPECT_EQ(status.error_details(), "");
  EXPECT_TRUE(context.GetServerTrailingMetadata().contains("grpc-retry-pushback-ms"));
}

TEST_F(UnaryCallTest, AClientThatGoesAwayRequestsTheStop) {
  std::promise<void> arrived;
  std::promise<void> stopped;
  std::optional<Call> kept;
  std::optional<std::stop_callback<std::function<void()>>> on_stop;
  Serve([&](Call call) {
    kept.emplace(std::move(call));
    on_stop.emplace(kept->cancelled(), [&] { stopped.set_value(); });
    arrived.set_value();
  });
  grpc::ClientContext context;
  auto status = std::async(std::launch::async, [&] { return Check(context); });
  arrived.get_future().wait();
  context.TryCancel();
  EXPECT_EQ(status.get().error_code(), grpc::StatusCode::CANCELLED);
  stopped.get_future().wait();
  on_stop.reset();
  std::move(*kept).Finish(absl::CancelledError("gone"));  // nobody hears it, and nothing breaks
}

TEST_F(UnaryCallTest, AnAnsweredCallIsNotStopped) {
  std::stop_token token;
  Serve([&](Call call) {
    token = call.cancelled();
    std::move(call).Finish(absl::OkStatus());
  });
  EXPECT_TRUE(Check().ok());
  server_.Stop();
  EXPECT_FALSE(token.stop_requested());
}

TEST_F(UnaryCallTest, KnowsTheClientsDeadline) {
  Deadline deadline{};
  Serve([&](Call call) {
    deadline = call.deadline(clock_);
    std::move(call).Finish(absl::OkStatus());
  });
  EXPECT_TRUE(Check().ok());
  EXPECT_EQ(deadline, kNoDeadline);

  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::minutes(10));
  EXPECT_TRUE(Check(context).ok());
  EXPECT_GT(deadline, clock_.Now() + std::chrono::minutes(9));
  EXPECT_LT(deadline, clock_.Now() + std::chrono::minutes(11));
}

}  // namespace
}  // namespace hearth
