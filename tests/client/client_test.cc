#include "client/client.h"

#include <gmock/gmock.h>
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <thread>

#include "tests/client/fake_server.h"
#include "tests/client/fixtures.h"

namespace hearth::client {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::unique_ptr<Client> ClientOf(const FakeServer& server) {
  return Client::Create({.address = server.address(), .timeout = std::chrono::minutes(1)});
}

InferRequest EchoOf(Tensor tensor) {
  InferRequest request{.model = "echo"};
  request.inputs.push_back({"x", std::move(tensor)});
  return request;
}

TEST(Client, AsksAboutHealth) {
  FakeServer server;
  const auto client = ClientOf(server);
  EXPECT_TRUE(client->Live().value());
  EXPECT_TRUE(client->Ready().value());
  EXPECT_TRUE(client->Healthy().value());
  EXPECT_TRUE(absl::IsNotFound(client->Healthy("no such service").status()));
  EXPECT_TRUE(client->ModelReady("echo").value());
  EXPECT_FALSE(client->ModelReady("echo", "9").value());
  EXPECT_FALSE(client->ModelReady("missing").value());
}

// The kernel accepts connections for a server that is busy, or stopped; that is no reason to say there is none.
TEST(Client, AServerThatTakesItsTimeIsWaitedForUntilTheDeadline) {
  const int listener = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  ASSERT_EQ(::bind(listener, reinterpret_cast<sockaddr*>(&address), length), 0);
  ASSERT_EQ(::listen(listener, 8), 0);
  ASSERT_EQ(::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &length), 0);
  const auto client = Client::Create({.address = "127.0.0.1:" + std::to_string(ntohs(address.sin_port)),
                                      .timeout = std::chrono::milliseconds(400)});
  const absl::Status status = client->Live().status();
  EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
  EXPECT_FALSE(IsUnreachable(status));
  ::close(listener);
}

TEST(Client, ReadsMetadataOfServerAndModel) {
  FakeServer server;
  const auto client = ClientOf(server);
  const ServerInfo info = client->ServerMetadata().value();
  EXPECT_EQ(info.name, "fake");
  EXPECT_THAT(info.extensions, ElementsAre("model_repository"));
  const ModelInfo model = client->ModelMetadata("echo").value();
  EXPECT_THAT(model.versions, ElementsAre("1", "3"));
  EXPECT_EQ(model.inputs.at(0).datatype, "FP32");
  EXPECT_THAT(model.inputs.at(0).shape, ElementsAre(-1, -1));
  EXPECT_EQ(model.properties.at("residency"), "mapped");
}

TEST(Client, SendsAndReceivesTensorsUnchanged) {
  FakeServer server;
  InferRequest request = EchoOf(MakeTensor<float>({1, 3}, {1, -2, 0.5F}));
  request.version = "3";
  request.id = "seven";
  request.inputs.push_back({"text", MakeBytesTensor({2}, {"a", std::string("\0b", 2)})});
  request.outputs = {"x"};
  const InferResult result = ClientOf(server)->Infer(request).value();
  EXPECT_EQ(result.model, "echo");
  EXPECT_EQ(result.version, "3");
  EXPECT_EQ(result.id, "seven");
  ASSERT_EQ(result.outputs.size(), 2U);
  EXPECT_THAT(*Values<float>(result.outputs[0].tensor), ElementsAre(1, -2, 0.5F));
  EXPECT_THAT(result.outputs[0].tensor.shape, ElementsAre(1, 3));
  EXPECT_THAT(*BytesElements(result.outputs[1].tensor), ElementsAre("a", std::string_view("\0b", 2)));
  const inference::ModelInferRequest sent = server.last_request();
  EXPECT_EQ(sent.model_version(), "3");
  EXPECT_EQ(sent.inputs(1).datatype(), "BYTES");
  EXPECT_EQ(sent.outputs(0).name(), "x");
}

TEST(Client, CarriesMessagesBeyondGrpcsDefaultLimit) {
  FakeServer server;
  const std::vector<double> values(std::size_t{1} << 20, 1.5);  // 8 MiB
  const auto result = ClientOf(server)->Infer(EchoOf(MakeTensor({1 << 20}, values)));
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(*Values<double>(result->outputs[0].tensor), values);
}

TEST(Client, UnderstandsTypedContents) {
  FakeServer server;
  const auto result = ClientOf(server)->Infer({.model = "typed"});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(*Values<std::int8_t>(result->outputs[0].tensor), ElementsAre(-1, 7));
}

TEST(Client, RefusesInputsThatContradictThemselvesWithoutSendingThem) {
  FakeServer server;
  const auto result = ClientOf(server)->Infer(EchoOf(MakeTensor<float>({4}, {1})));
  EXPECT_TRUE(absl::IsInvalidArgument(result.status()));
  EXPECT_THAT(Message(result.status()), HasSubstr("input 'x': shape [4] of FP32"));
  EXPECT_EQ(server.last_request().model_name(), "");
}

TEST(Client, RefusesAnswersThatContradictThemselves) {
  FakeServer server;
  const auto result = ClientOf(server)->Infer({.model = "liar"});
  EXPECT_TRUE(absl::IsInternal(result.status()));
  EXPECT_THAT(Message(result.status()), HasSubstr("output 'y' that contradicts itself"));
}

TEST(Client, PassesOnTheServersCodeAndMessage) {
  FakeServer server;
  const auto client = ClientOf(server);
  const absl::Status status = client->Load("missing");
  EXPECT_TRUE(absl::IsNotFound(status));
  EXPECT_EQ(Message(status), "Request for unknown model: 'missing' is not found");
  EXPECT_FALSE(IsUnreachable(status));
  EXPECT_TRUE(client->Unload("echo").ok());
}

TEST(Client, ListsTheRepository) {
  FakeServer server({.reason = "not a zip archive"});
  const auto index = ClientOf(server)->Index().value();
  ASSERT_EQ(index.size(), 3U);
  EXPECT_EQ(index[0].reason, "not a zip archive");
  EXPECT_EQ(index[1].state, "READY");
  EXPECT_EQ(ClientOf(server)->Index(/*ready_only=*/true)->size(), 1U);
}

TEST(Client, ReadsTheCachesStatistics) {
  FakeServer server;
  const ServerStat stat = ClientOf(server)->Stat().value();
  EXPECT_EQ(stat.in_flight, 2);
  EXPECT_EQ(stat.budgets.at(0).capacity_bytes, std::uint64_t{8} << 30);
  ASSERT_EQ(stat.models.size(), 2U);
  EXPECT_DOUBLE_EQ(stat.models[1].load_milliseconds(), 42);
  EXPECT_TRUE(stat.models[1].last_used.has_value());
  EXPECT_FALSE(stat.models[0].last_used.has_value());
  FakeServer plain({.with_cache = false});
  EXPECT_TRUE(absl::IsUnimplemented(ClientOf(plain)->Stat().status()));
}

TEST(Client, TellsAMissingServerFromOneThatRefuses) {
  std::string address;
  {
    FakeServer server;
    address = server.address();
  }
  const auto client = Client::Create({.address = address});
  const absl::Status status = client->Live().status();
  EXPECT_TRUE(absl::IsUnavailable(status));
  EXPECT_TRUE(IsUnreachable(status));
  EXPECT_THAT(Message(status), HasSubstr(address));
}

TEST(Client, GivesUpAtItsTimeout) {
  FakeServer server;
  const auto client =
      Client::Create({.address = server.address(), .timeout = std::chrono::milliseconds(100)});
  const absl::Status status = client->Load("stuck");
  EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
}

TEST(Client, ServesManyThreadsAtOnce) {
  FakeServer server;
  const auto client = ClientOf(server);
  std::vector<int> right(8, 0);
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 8; ++t) {
      threads.emplace_back([&, t] {
        for (int i = 0; i < 20; ++i) {
          const std::vector<std::int32_t> values = {t, i};
          const auto result = client->Infer(EchoOf(MakeTensor({2}, values)));
          right[static_cast<std::size_t>(t)] +=
              result.ok() && *Values<std::int32_t>(result->outputs[0].tensor) == values;
        }
      });
    }
  }
  EXPECT_THAT(right, testing::Each(20));
}

}  // namespace
}  // namespace hearth::client
