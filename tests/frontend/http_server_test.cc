#include "server/frontend/http_server.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <future>
#include <mutex>
#include <span>
#include <stdexcept>
#include <thread>
#include <vector>

#include "server/base/unique_fd.h"
#include "server/frontend/http_routes.h"

namespace hearth {
namespace {

using std::chrono::milliseconds;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

// A client that sends exactly the bytes it is told to. Blocking; gives up after 20 s.
class Client {
 public:
  explicit Client(std::uint16_t port) : fd_(::socket(AF_INET, SOCK_STREAM, 0)) {
    timeval limit{20, 0};
    ::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connected_ = ::connect(fd_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  }

  bool connected() const { return connected_; }
  int fd() const { return fd_.get(); }

  Client& Send(const std::string& bytes) {
    std::size_t sent = 0;
    while (sent < bytes.size()) {
      const auto n = ::send(fd_.get(), bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
      if (n <= 0) break;
      sent += static_cast<std::size_t>(n);
    }
    return *this;
  }

  // Header and body of the next answer; "" at the end of the connection. `head`: no body follows.
  std::string Receive(bool head = false) {
    std::size_t end;
    while ((end = received_.find("\r\n\r\n")) == std::string::npos) {
      if (!More()) return "";
    }
    end += 4;
    const auto length = received_.find("Content-Length: ");
    if (!head && length < end) end += std::stoul(received_.substr(length + 16));
    while (received_.size() < end) {
      if (!More()) return "";
    }
    std::string answer = received_.substr(0, end);
    received_.erase(0, end);
    return answer;
  }

  // True when the server ends the connection without a further byte.
  bool Closed() { return received_.empty() && !More(); }

 private:
  bool More() {
    char bytes[4096];
    const auto n = ::recv(fd_.get(), bytes, sizeof bytes, 0);
    if (n <= 0) return false;
    received_.append(bytes, static_cast<std::size_t>(n));
    return true;
  }

  UniqueFd fd_;
  bool connected_ = false;
  std::string received_;
};

std::string Get(const std::string& path) { return "GET " + path + " HTTP/1.1\r\nHost: x\r\n\r\n"; }

absl::StatusOr<std::unique_ptr<HttpServer>> StartRoutes(const HttpServer::Options& options, std::vector<HttpRoute> routes) {
  return HttpServer::Start(options, ServeRoutes(std::move(routes), [](AccessGroup, const HttpRequest&) { return std::nullopt; }));
}

class HttpServerTest : public testing::Test {
 protected:
  HttpServerTest() {
    options_.host = "127.0.0.1";
    options_.port = 0;
  }

  HttpServer& Start() {
    auto started = StartRoutes(options_, OperationalRoutes({
                                             .metrics = [] { return std::string("hearth_up 1\n"); },
                                             .live = [] { return true; },
                                             .why_not_ready = [this] { return ready_ ? "" : "waiting for 'vad'"; },
                                         }));
    EXPECT_TRUE(started.ok()) << started.status();
    server_ = *std::move(started);
    return *server_;
  }

  HttpServer::Options options_;
  std::atomic<bool> ready_{true};
  std::unique_ptr<HttpServer> server_;
};

TEST_F(HttpServerTest, ServesMetricsAsPrometheusWantsThem) {
  Client client(Start().port());
  const std::string answer = client.Send(Get("/metrics")).Receive();
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 OK\r\n"));
  EXPECT_THAT(answer, HasSubstr("Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"));
  EXPECT_THAT(answer, EndsWith("\r\n\r\nhearth_up 1\n"));
}

TEST_F(HttpServerTest, TellsHealth) {
  Client client(Start().port());
  EXPECT_THAT(client.Send(Get("/v2/health/live")).Receive(),
              AllOf(StartsWith("HTTP/1.1 200 "), EndsWith("{\"live\":true}")));
  EXPECT_THAT(client.Send(Get("/v2/health/ready")).Receive(),
              AllOf(StartsWith("HTTP/1.1 200 "), EndsWith("{\"ready\":true}")));
  ready_ = false;
  EXPECT_THAT(client.Send(Get("/v2/health/ready")).Receive(),
              AllOf(StartsWith("HTTP/1.1 503 "),
                    EndsWith("{\"ready\":false,\"reason\":\"waiting for 'vad'\"}")));
}

TEST_F(HttpServerTest, KeepsTheConnectionForManyRequests) {
  Client client(Start().port());
  for (int i = 0; i < 100; ++i) {
    ASSERT_THAT(client.Send(Get("/metrics?n=" + std::to_string(i))).Receive(),
                StartsWith("HTTP/1.1 200 "));
  }
}

TEST_F(HttpServerTest, ClosesWhenTheClientSaysSo) {
  Client client(Start().port());
  client.Send("GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  EXPECT_THAT(client.Receive(), HasSubstr("Connection: close\r\n"));
  EXPECT_TRUE(client.Closed());
  Client old(server_->port());
  EXPECT_THAT(old.Send("GET /metrics HTTP/1.0\r\n\r\n").Receive(), StartsWith("HTTP/1.0 200 "));
  EXPECT_TRUE(old.Closed());
}

TEST_F(HttpServerTest, AnswersPipelinedRequestsInOrder) {
  Client client(Start().port());
  client.Send(Get("/metrics") + Get("/v2/health/live") + Get("/nothing") + Get("/v2/health/ready"));
  EXPECT_THAT(client.Receive(), EndsWith("hearth_up 1\n"));
  EXPECT_THAT(client.Receive(), EndsWith("{\"live\":true}"));
  EXPECT_THAT(client.Receive(), StartsWith("HTTP/1.1 404 "));
  EXPECT_THAT(client.Receive(), EndsWith("{\"ready\":true}"));
}

TEST_F(HttpServerTest, HeadHasTheHeaderOfGetAndNoBody) {
  Client client(Start().port());
  const std::string head =
      client.Send("HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n").Receive(/*head=*/true);
  EXPECT_THAT(head, AllOf(StartsWith("HTTP/1.1 200 "), HasSubstr("Content-Length: 12\r\n")));
  // The next byte belongs to the next answer: no body came.
  EXPECT_THAT(client.Send(Get("/v2/health/live")).Receive(), StartsWith("HTTP/1.1 200 "));
}

TEST_F(HttpServerTest, AnUnknownPathIs404AndNamesTheKnownOnes) {
  Client client(Start().port());
  const std::string answer = client.Send(Get("/v3")).Receive();
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 404 "));
  EXPECT_THAT(answer, HasSubstr("Content-Type: application/json\r\n"));
  EXPECT_THAT(answer, HasSubstr("\r\n\r\n{\"error\":\""));
  EXPECT_THAT(answer, HasSubstr("/v2/health/ready"));
}

TEST_F(HttpServerTest, AnotherMethodIs405AndSaysWhichAreAllowed) {
  Client client(Start().port());
  const std::string answer =
      client.Send("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc").Receive();
  EXPECT_THAT(answer, AllOf(StartsWith("HTTP/1.1 405 "), HasSubstr("Allow: GET, HEAD\r\n")));
  // The body was read: the connection is still in step.
  EXPECT_THAT(client.Send(Get("/metrics")).Receive(), StartsWith("HTTP/1.1 200 "));
}

TEST_F(HttpServerTest, AProxysAbsoluteTargetIsUnderstood) {
  Client client(Start().port());
  EXPECT_THAT(client.Send(Get("http://somewhere:8002/v2/health/live?x=/metrics")).Receive(),
              EndsWith("{\"live\":true}"));
}

TEST_F(HttpServerTest, AnOversizeHeaderIs431AndEndsTheConnection) {
  Client client(Start().port());
  client.Send("GET /metrics HTTP/1.1\r\nHost: x\r\nX: " + std::string(100'000, 'x') + "\r\n\r\n");
  EXPECT_THAT(client.Receive(), StartsWith("HTTP/1.1 431 "));
  EXPECT_TRUE(client.Closed());
}

TEST_F(HttpServerTest, AnOversizeBodyIs413AndEndsTheConnection) {
  Client client(Start().port());
  client.Send("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" +
              std::string(300'000, 'x'));
  EXPECT_THAT(client.Receive(), StartsWith("HTTP/1.1 413 "));
}

TEST_F(HttpServerTest, WhatIsNotHttpIs400AndEndsTheConnection) {
  Client client(Start().port());
  client.Send("\x16\x03\x01 hello\r\n\r\n");
  EXPECT_THAT(client.Receive(), StartsWith("HTTP/1.1 400 "));
  EXPECT_TRUE(client.Closed());
}

TEST_F(HttpServerTest, SlowAndSilentClientsDelayNobody) {
  Start();
  std::vector<Client> slow;
  for (int i = 0; i < 200; ++i) {
    slow.emplace_back(server_->port());
    ASSERT_TRUE(slow.back().connected());
    if (i % 2 == 0) slow.back().Send("GET /metrics HTTP/1.1\r\nX: ");
  }
  Client client(server_->port());
  for (int i = 0; i < 10; ++i) {
    ASSERT_THAT(client.Send(Get("/metrics")).Receive(), StartsWith("HTTP/1.1 200 "));
  }
  // And the slow ones are still served once they come to their end.
  EXPECT_THAT(slow[0].Send("y\r\n\r\n").Receive(), StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(slow[1].Send(Get("/metrics")).Receive(), StartsWith("HTTP/1.1 200 "));
}

TEST_F(HttpServerTest, ARequestThatNeverEndsIsCutOff) {
  options_.read_timeout = milliseconds(50);
  Client client(Start().port());
  EXPECT_TRUE(client.Send("GET /metrics HTTP/1.1\r\nX: ").Closed());
}

TEST_F(HttpServerTest, AnIdleConnectionIsClosedAfterItsTime) {
  options_.idle_timeout = milliseconds(50);
  Client client(Start().port());
  EXPECT_THAT(client.Send(Get("/metrics")).Receive(), StartsWith("HTTP/1.1 200 "));
  EXPECT_TRUE(client.Closed());
}

TEST_F(HttpServerTest, ConnectionsOverTheLimitWaitForRoom) {
  options_.max_connections = 1;
  Start();
  auto first = std::make_unique<Client>(server_->port());
  ASSERT_THAT(first->Send(Get("/metrics")).Receive(), StartsWith("HTTP/1.1 200 "));
  Client second(server_->port());
  ASSERT_TRUE(second.connected());
  second.Send(Get("/metrics"));
  char byte;
  EXPECT_EQ(::recv(second.fd(), &byte, 1, MSG_DONTWAIT), -1);
  EXPECT_THAT(first->Send(Get("/metrics")).Receive(), StartsWith("HTTP/1.1 200 "));
  EXPECT_EQ(::recv(second.fd(), &byte, 1, MSG_DONTWAIT), -1);
  first.reset();
  EXPECT_THAT(second.Receive(), StartsWith("HTTP/1.1 200 "));
}

// Taken for none, its body would be the next request.
TEST_F(HttpServerTest, ABodyWhoseEndNobodyKnowsIsRefusedAndTheConnectionCloses) {
  Client client(Start().port());
  client.Send("GET /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n" + Get("/metrics"));
  EXPECT_THAT(client.Receive(), StartsWith("HTTP/1.1 400 "));
  EXPECT_TRUE(client.Closed());
}

TEST_F(HttpServerTest, APortInUseIsAnErrorThatNamesIt) {
  options_.port = Start().port();
  auto second = StartRoutes(options_, {});
  ASSERT_EQ(second.status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(std::string(FromAbsl(second.status().message())),
              AllOf(HasSubstr(std::to_string(options_.port)), HasSubstr("already in use"),
                    HasSubstr("another port")));
}

TEST_F(HttpServerTest, AHostThatIsNoneIsAnError) {
  options_.host = "256.1.1.1";
  EXPECT_EQ(StartRoutes(options_, {}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(HttpServerTest, AHandlerThatThrowsIsA500AndTheServerLives) {
  auto server = StartRoutes(
      options_, {{"GET", "/boom",
                  [](const HttpRequest&) -> HttpResponse { throw std::runtime_error("secret"); }, AccessGroup::kHealth}});
  ASSERT_TRUE(server.ok());
  Client client((*server)->port());
  for (int i = 0; i < 2; ++i) {
    EXPECT_THAT(client.Send(Get("/boom")).Receive(),
                AllOf(StartsWith("HTTP/1.1 500 "), Not(HasSubstr("secret"))));
  }
}

TEST_F(HttpServerTest, RoutesOfOtherMethodsGetTheBodyAndTheQuery) {
  const HttpHandler echo = [](const HttpRequest& r) -> HttpResponse {
    return {201, "text/plain", r.method + " " + r.path + " " + r.query + " " + std::string(r.body)};
  };
  auto server = StartRoutes(options_, {{"POST", "/echo", echo, AccessGroup::kHealth}, {"GET", "/echo", echo, AccessGroup::kHealth}});
  ASSERT_TRUE(server.ok());
  Client client((*server)->port());
  client.Send(
      "POST /echo?a=1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
      "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
  EXPECT_THAT(client.Receive(),
              AllOf(StartsWith("HTTP/1.1 201 "), EndsWith("POST /echo a=1 abcde")));
  EXPECT_THAT(client.Send(Get("/echo")).Receive(), EndsWith("GET /echo  "));
  client.Send("DELETE /echo HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_THAT(client.Receive(), HasSubstr("Allow: POST, GET, HEAD\r\n"));
}

TEST_F(HttpServerTest, StopClosesIdleConnectionsAndFreesThePort) {
  options_.idle_timeout = options_.stop_grace = std::chrono::hours(1);
  const std::uint16_t port = Start().port();
  Client used(port);
  ASSERT_THAT(used.Send(Get("/metrics")).Receive(), StartsWith("HTTP/1.1 200 "));
  server_->Stop();
  server_->Stop();
  EXPECT_TRUE(used.Closed());
  options_.port = port;
  Client again(Start().port());
  EXPECT_THAT(again.Send(Get("/metrics")).Receive(), StartsWith("HTTP/1.1 200 "));
}

TEST_F(HttpServerTest, StopLetsAnAnswerUnderWayBeFinished) {
  options_.stop_grace = std::chrono::hours(1);
  std::promise<void> entered;
  std::promise<void> release;
  auto server =
      StartRoutes(options_, {{"GET", "/slow", [&](const HttpRequest&) -> HttpResponse {
                                      entered.set_value();
                                      release.get_future().wait();
                                      return {200, "text/plain", "done"};
                                    }, AccessGroup::kHealth}});
  ASSERT_TRUE(server.ok());
  Client client((*server)->port());
  client.Send(Get("/slow"));
  entered.get_future().wait();
  std::thread stop([&] { (*server)->Stop(); });
  release.set_value();
  EXPECT_THAT(client.Receive(), EndsWith("done"));
  EXPECT_TRUE(client.Closed());
  ::shutdown(client.fd(), SHUT_WR);
  stop.join();
}

TEST_F(HttpServerTest, StopDoesNotWaitForAClientThatIsStuck) {
  options_.stop_grace = milliseconds(20);
  Client client(Start().port());
  client.Send("GET /metrics HTTP/1.1\r\nX: ");
  Client other(server_->port());  // once this is answered, the first bytes of `client` were read
  ASSERT_THAT(other.Send(Get("/metrics")).Receive(), StartsWith("HTTP/1.1 200 "));
  server_->Stop();
  EXPECT_TRUE(client.Closed());
}

// --- calls that are answered later ---

// Keeps the calls that come, for the test to answer.
class HttpCallTest : public HttpServerTest {
 protected:
  HttpServer& StartKeeping() {
    auto started = HttpServer::Start(options_, [this](HttpCall call) { calls_.push(std::move(call)); });
    EXPECT_TRUE(started.ok()) << started.status();
    server_ = *std::move(started);
    return *server_;
  }

  // Calls from the server's threads to the test's.
  class Queue {
   public:
    void push(HttpCall call) {
      const std::lock_guard<std::mutex> lock(mu_);
      calls_.push_back(std::move(call));
      changed_.notify_one();
    }
    HttpCall Next() {
      std::unique_lock<std::mutex> lock(mu_);
      changed_.wait(lock, [this] { return !calls_.empty(); });
      HttpCall call = std::move(calls_.front());
      calls_.pop_front();
      return call;
    }

   private:
    std::mutex mu_;
    std::condition_variable changed_;
    std::deque<HttpCall> calls_;
  };
  Queue calls_;
};

TEST_F(HttpCallTest, AnAnswerMayComeLaterAndFromAnyThread) {
  Client client(StartKeeping().port());
  client.Send("POST /a?b HTTP/1.1\r\nX-One: 1\r\nContent-Length: 3\r\n\r\nabc");
  HttpCall call = calls_.Next();
  EXPECT_EQ(call.request().method + call.request().path + call.request().query, "POST/ab");
  EXPECT_EQ(call.request().body, "abc");
  ASSERT_NE(call.request().Header("x-ONE"), nullptr);
  EXPECT_EQ(*call.request().Header("x-ONE"), "1");
  EXPECT_EQ(call.request().Header("x"), nullptr);
  std::move(call).Finish({200, "text/plain", "done"});
  EXPECT_THAT(client.Receive(), EndsWith("\r\n\r\ndone"));
  client.Send(Get("/again"));
  calls_.Next();  // dropped
  EXPECT_THAT(client.Receive(), AllOf(StartsWith("HTTP/1.1 500 "), HasSubstr("dropped unanswered")));
}

TEST_F(HttpCallTest, PartsFollowTheBodyAndAreKeptUntilTheyAreSent) {
  Client client(StartKeeping().port());
  client.Send(Get("/"));
  HttpCall call = calls_.Next();
  HttpResponse answer{200, "text/plain", "head "};
  const std::string large(8 << 20, 'x');
  std::weak_ptr<const void> kept;
  for (const std::string& text : {std::string("one "), large, std::string(" end")}) {
    const auto owner = std::make_shared<std::string>(text);
    kept = owner;
    answer.parts.push_back({std::as_bytes(std::span(*owner)), owner});
  }
  answer.headers.emplace_back("X-More", "1");
  std::move(call).Finish(std::move(answer));
  const std::string got = client.Receive();
  EXPECT_THAT(got.substr(0, 300), AllOf(HasSubstr("X-More: 1\r\n"), HasSubstr("\r\n\r\nhead one xxx")));
  EXPECT_THAT(got.substr(got.size() - 5), "x end");
  EXPECT_THAT(client.Send("HEAD / HTTP/1.1\r\n\r\n").connected(), true);
  std::move(calls_.Next()).Finish({200, "text/plain", "not sent"});
  EXPECT_THAT(client.Receive(/*head=*/true), HasSubstr("Content-Length: 8\r\n"));
  EXPECT_TRUE(kept.expired());
}

TEST_F(HttpCallTest, AClientThatGoesAwayCancelsItsCall) {
  StartKeeping();
  auto client = std::make_unique<Client>(server_->port());
  client->Send(Get("/"));
  HttpCall call = calls_.Next();
  EXPECT_FALSE(call.cancelled().stop_requested());
  std::promise<void> cancelled;
  const std::stop_callback on_stop(call.cancelled(), [&] { cancelled.set_value(); });
  client.reset();
  cancelled.get_future().wait();
  std::move(call).Finish({200, "text/plain", "for nobody"});
  Client other(server_->port());
  other.Send(Get("/"));
  std::move(calls_.Next()).Finish({200, "text/plain", "for somebody"});
  EXPECT_THAT(other.Receive(), EndsWith("for somebody"));
}

TEST_F(HttpCallTest, ARequestThatIsWorkedOnIsNotIdle) {
  options_.idle_timeout = options_.read_timeout = milliseconds(1);
  Client client(StartKeeping().port());
  client.Send(Get("/"));
  HttpCall call = calls_.Next();
  Client later(server_->port());
  EXPECT_TRUE(later.Closed());  // more than the time has passed
  std::move(call).Finish({200, "text/plain", "done"});
  EXPECT_THAT(client.Receive(), EndsWith("done"));
}

TEST_F(HttpCallTest, RequestsThatFollowAtOnceWaitForTheirTurn) {
  Client client(StartKeeping().port());
  client.Send(Get("/1") + Get("/2"));
  HttpCall first = calls_.Next();
  client.Send(Get("/3"));
  std::move(first).Finish({200, "text/plain", "1"});
  for (const char* name : {"/2", "/3"}) {
    HttpCall call = calls_.Next();
    EXPECT_EQ(call.request().path, name);
    std::move(call).Finish({200, "text/plain", name});
  }
  EXPECT_THAT(client.Receive(), EndsWith("1"));
  EXPECT_THAT(client.Receive(), EndsWith("/2"));
  EXPECT_THAT(client.Receive(), EndsWith("/3"));
}

TEST_F(HttpCallTest, AClientIsToldToGoOnWithItsBody) {
  Client client(StartKeeping().port());
  client.Send("POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
  EXPECT_THAT(client.Receive(), StartsWith("HTTP/1.1 100 Continue"));
  client.Send("abc");
  HttpCall call = calls_.Next();
  EXPECT_EQ(call.request().body, "abc");
  std::move(call).Finish({200, "text/plain", "done"});
  EXPECT_THAT(client.Receive(), EndsWith("done"));
}

TEST_F(HttpCallTest, SeveralThreadsServeConnectionsInTurn) {
  options_.threads = 3;
  StartKeeping();
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < 9; ++i) {
    clients.push_back(std::make_unique<Client>(server_->port()));
    clients.back()->Send(Get("/" + std::to_string(i)));
  }
  for (int i = 0; i < 9; ++i) {
    HttpCall call = calls_.Next();
    std::string name = call.request().path;
    std::move(call).Finish({200, "text/plain", std::move(name)});
  }
  for (int i = 0; i < 9; ++i) EXPECT_THAT(clients[static_cast<std::size_t>(i)]->Receive(), EndsWith("/" + std::to_string(i)));
}

TEST_F(HttpCallTest, StopWaitsForCallsAndCutsOffWhoDoesNotTakeTheAnswer) {
  options_.stop_grace = milliseconds(1);
  options_.threads = 2;
  Client client(StartKeeping().port());
  client.Send(Get("/"));
  HttpCall call = calls_.Next();
  std::promise<void> cancelled;
  const std::stop_callback on_stop(call.cancelled(), [&] { cancelled.set_value(); });
  std::atomic<bool> stopped{false};
  std::thread stop([&] {
    server_->Stop();
    stopped = true;
  });
  cancelled.get_future().wait();
  EXPECT_FALSE(stopped);
  std::move(call).Finish({200, "text/plain", "late"});
  stop.join();
  EXPECT_TRUE(client.Closed());
}

}  // namespace
}  // namespace hearth
