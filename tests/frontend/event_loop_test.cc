#include "server/frontend/event_loop.h"

#include <grpcpp/alarm.h>
#include <gtest/gtest.h>

#include <functional>
#include <future>
#include <thread>
#include <utility>

#include "grpc/health/v1/health.grpc.pb.h"
#include "tests/frontend/mini_server.h"

namespace hearth {
namespace {

TEST(CallCount, IsNoneUntilThereIsACall) {
  CallCount calls;
  EXPECT_TRUE(calls.WaitForNone(TimePoint::min()));
  calls.Add();
  EXPECT_EQ(calls.count(), 1);
  EXPECT_FALSE(calls.WaitForNone(TimePoint::min()));
}

TEST(CallCount, WakesWhoWaitsForTheLastCall) {
  CallCount calls;
  calls.Add();
  calls.Add();
  std::thread others([&] {
    calls.Remove();
    calls.Remove();
  });
  EXPECT_TRUE(calls.WaitForNone(kNoDeadline));
  others.join();
  EXPECT_EQ(calls.count(), 0);
}

class FakeAnswer final : public Outgoing {
 public:
  void Send() override { sent.set_value(std::this_thread::get_id()); }
  std::promise<std::thread::id> sent;
};

class EventLoopTest : public testing::Test {
 protected:
  // Runs `function` as an event of the loop, and waits for it.
  void Fire(std::function<void()> function) {
    struct Once final : Event {
      explicit Once(std::function<void()> function) : function(std::move(function)) {}
      void Fire(bool) override {
        function();
        done.set_value();
      }
      const std::function<void()> function;
      std::promise<void> done;
    } event(std::move(function));
    grpc::Alarm alarm;
    alarm.Set(loop().queue(), gpr_inf_past(GPR_CLOCK_MONOTONIC), &event);
    event.done.get_future().wait();
  }
  // What a compute thread is told that has the answer of a call.
  bool OfferFromAnotherThread(FakeAnswer& answer) {
    return std::async(std::launch::async, [&] { return loop().TakeAnswer(answer); }).get();
  }
  EventLoop& loop() { return server_.loop(); }

  grpc::health::v1::Health::AsyncService service_;
  MiniServer server_{service_};
};

TEST_F(EventLoopTest, SendsTheAnswersOfSeveralCallsOnItsThread) {
  server_.Start();
  std::thread::id self;
  Fire([&] {
    self = std::this_thread::get_id();
    loop().BeginCall();
    loop().BeginCall();
  });
  FakeAnswer answer;
  EXPECT_TRUE(OfferFromAnotherThread(answer));
  EXPECT_EQ(answer.sent.get_future().get(), self);
  Fire([&] {
    loop().EndCall();
    loop().EndCall();
  });
}

TEST_F(EventLoopTest, LeavesTheAnswerOfALoneCallToWhoeverHasIt) {
  server_.Start();
  Fire([&] { loop().BeginCall(); });
  FakeAnswer answer;
  EXPECT_FALSE(OfferFromAnotherThread(answer));
  Fire([&] { loop().EndCall(); });
}

TEST_F(EventLoopTest, SendsAnswersBeforeAnEventThatTakesLong) {
  server_.Start();
  Fire([&] {
    loop().BeginCall();
    loop().BeginCall();
    FakeAnswer answer;
    EXPECT_TRUE(OfferFromAnotherThread(answer));
    std::future<std::thread::id> sent = answer.sent.get_future();
    EXPECT_EQ(sent.wait_for(Duration{}), std::future_status::timeout);
    loop().EndBurst();
    EXPECT_EQ(sent.wait_for(Duration{}), std::future_status::ready);
    loop().EndCall();
    loop().EndCall();
  });
}

}  // namespace
}  // namespace hearth
