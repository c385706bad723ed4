#include "server/frontend/health_rpc.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/frontend/mini_server.h"

namespace hearth {
namespace {

using grpc::health::v1::Health;
using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;

class HealthRpcTest : public testing::Test {
 protected:
  HealthRpcTest() {
    health_.Serve(server_.loop());
    server_.Start();
    stub_ = Health::NewStub(server_.Channel());
  }
  ~HealthRpcTest() override { health_.EndWatches(); }

  // The status, or -1 - code.
  int Check(const std::string& service) {
    grpc::ClientContext context;
    HealthCheckRequest request;
    request.set_service(service);
    HealthCheckResponse response;
    const grpc::Status status = stub_->Check(&context, request, &response);
    return status.ok() ? response.status() : -1 - status.error_code();
  }

  HealthRpc health_{{"", "a.Service"}};
  MiniServer server_{health_.service()};
  std::unique_ptr<Health::Stub> stub_;
};

// One Watch stream.
class Watcher {
 public:
  Watcher(Health::Stub& stub, const std::string& service) {
    HealthCheckRequest request;
    request.set_service(service);
    reader_ = stub.Watch(&context_, request);
  }
  // The next status; -1 at the end.
  int Next() {
    HealthCheckResponse response;
    return reader_->Read(&response) ? response.status() : -1;
  }
  void Cancel() { context_.TryCancel(); }
  grpc::Status Finish() { return reader_->Finish(); }

 private:
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<HealthCheckResponse>> reader_;
};

TEST_F(HealthRpcTest, CheckFollowsSetServing) {
  for (const char* service : {"", "a.Service"}) {
    EXPECT_EQ(Check(service), HealthCheckResponse::NOT_SERVING) << service;
    health_.SetServing(true);
    EXPECT_EQ(Check(service), HealthCheckResponse::SERVING) << service;
    health_.SetServing(false);
    EXPECT_EQ(Check(service), HealthCheckResponse::NOT_SERVING) << service;
  }
}

TEST_F(HealthRpcTest, LivenessDoesNotDependOnAnything) {
  EXPECT_EQ(Check("liveness"), HealthCheckResponse::SERVING);
  health_.SetServing(true);
  health_.SetServing(false);
  EXPECT_EQ(Check("liveness"), HealthCheckResponse::SERVING);
}

TEST_F(HealthRpcTest, AnUnknownServiceIsNotFound) {
  EXPECT_EQ(Check("nobody"), -1 - grpc::StatusCode::NOT_FOUND);
}

TEST_F(HealthRpcTest, WatchTellsTheStatusNowAndEveryChange) {
  Watcher watcher(*stub_, "a.Service");
  EXPECT_EQ(watcher.Next(), HealthCheckResponse::NOT_SERVING);
  health_.SetServing(true);
  EXPECT_EQ(watcher.Next(), HealthCheckResponse::SERVING);
  health_.SetServing(false);
  EXPECT_EQ(watcher.Next(), HealthCheckResponse::NOT_SERVING);
}

TEST_F(HealthRpcTest, WatchSaysNothingWhenNothingChanges) {
  Watcher watcher(*stub_, "");
  EXPECT_EQ(watcher.Next(), HealthCheckResponse::NOT_SERVING);
  health_.SetServing(false);
  health_.SetServing(true);
  EXPECT_EQ(watcher.Next(), HealthCheckResponse::SERVING);
}

TEST_F(HealthRpcTest, WatchOfAnUnknownServiceStaysOpen) {
  Watcher watcher(*stub_, "nobody");
  EXPECT_EQ(watcher.Next(), HealthCheckResponse::SERVICE_UNKNOWN);
  health_.EndWatches();
  EXPECT_EQ(watcher.Next(), -1);
}

TEST_F(HealthRpcTest, AWatcherMayGoAway) {
  {
    Watcher watcher(*stub_, "");
    EXPECT_EQ(watcher.Next(), HealthCheckResponse::NOT_SERVING);
    watcher.Cancel();
    EXPECT_EQ(watcher.Finish().error_code(), grpc::StatusCode::CANCELLED);
  }
  health_.SetServing(true);
  EXPECT_EQ(Check(""), HealthCheckResponse::SERVING);
}

TEST_F(HealthRpcTest, EndWatchesEndsThoseThatAreThereAndThoseThatCome) {
  Watcher first(*stub_, "");
  EXPECT_EQ(first.Next(), HealthCheckResponse::NOT_SERVING);
  health_.EndWatches();
  EXPECT_EQ(first.Next(), -1);
  EXPECT_EQ(first.Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  Watcher second(*stub_, "");
  EXPECT_EQ(second.Next(), HealthCheckResponse::NOT_SERVING);
  EXPECT_EQ(second.Next(), -1);
}

TEST_F(HealthRpcTest, TheLastStatusIsToldBeforeTheEnd) {
  health_.SetServing(true);
  Watcher watcher(*stub_, "");
  EXPECT_EQ(watcher.Next(), HealthCheckResponse::SERVING);
  health_.SetServing(false);
  health_.EndWatches();
  EXPECT_EQ(watcher.Next(), HealthCheckResponse::NOT_SERVING);
  EXPECT_EQ(watcher.Next(), -1);
}

TEST_F(HealthRpcTest, ManyWatchersHearTheSame) {
  std::vector<std::unique_ptr<Watcher>> watchers;
  for (int i = 0; i < 20; ++i) watchers.push_back(std::make_unique<Watcher>(*stub_, ""));
  for (auto& watcher : watchers) EXPECT_EQ(watcher->Next(), HealthCheckResponse::NOT_SERVING);
  health_.SetServing(true);
  for (auto& watcher : watchers) EXPECT_EQ(watcher->Next(), HealthCheckResponse::SERVING);
}

}  // namespace
}  // namespace hearth
