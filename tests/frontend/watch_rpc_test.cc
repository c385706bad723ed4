// hearth.v1.Cache but for Stat: what it changes, explains and streams.
#include "server/frontend/watch_rpc.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <memory>
#include <string>
#include <vector>

#include "tests/frontend/server_stack.h"

namespace hearth {
namespace {

using hearth::v1::WatchRequest;
using hearth::v1::WatchResponse;
using testing::ElementsAre;
using testing::HasSubstr;

class WatchRpcTest : public testing::Test {
 protected:
  // A stream that is open: it will miss nothing from now on.
  struct Reader {
    Reader(hearth::v1::Cache::Stub& stub, const WatchRequest& request) : stream(stub.Watch(&context, request)) {
      stream->WaitForInitialMetadata();
    }
    // "m ready"; empty: the stream has ended.
    std::string Next() {
      WatchResponse response;
      if (!stream->Read(&response)) return "";
      dropped += response.dropped();
      return response.has_event() ? response.event().model() + " " + response.event().kind() : "dropped";
    }
    grpc::Status Finish() { return stream->Finish(); }

    grpc::ClientContext context;
    std::unique_ptr<grpc::ClientReader<WatchResponse>> stream;
    std::uint64_t dropped = 0;
  };
  Reader Watch(const WatchRequest& request = {}) { return {*stub_, request}; }

  void Happens(const std::string& model, CacheEventKind kind = CacheEventKind::kReady) {
    stack_.manager.events().Add({.kind = kind, .id = {model, 1}});
  }
  static WatchRequest History(bool until_now, const std::string& model = "") {
    WatchRequest request;
    request.set_model(model);
    request.set_history(true);
    request.set_until_now(until_now);
    return request;
  }

  // Any unary call about `model`.
  template <typename Request, typename Response>
  grpc::Status Call(grpc::Status (hearth::v1::Cache::Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                    const std::string& model, Response* response) {
    Request request;
    request.set_model(model);
    grpc::ClientContext context;
    return ((*stub_).*method)(&context, request, response);
  }

  ServerStack stack_;
  std::unique_ptr<hearth::v1::Cache::Stub> stub_ = hearth::v1::Cache::NewStub(stack_.Channel());
};

using Stub = hearth::v1::Cache::Stub;

TEST_F(WatchRpcTest, AWatchHearsWhatHappensFromNowOn) {
  Happens("before");
  Reader reader = Watch();
  Happens("a", CacheEventKind::kQueued);
  Happens("b");
  EXPECT_EQ(reader.Next(), "a queued");
  EXPECT_EQ(reader.Next(), "b ready");
  reader.context.TryCancel();
  EXPECT_EQ(reader.Finish().error_code(), grpc::StatusCode::CANCELLED);
}

TEST_F(WatchRpcTest, TheJournalIsSentAndThatIsThat) {
  Happens("a");
  Happens("b");
  Happens("a", CacheEventKind::kEvicted);
  Reader all = Watch(History(true));
  EXPECT_THAT((std::vector{all.Next(), all.Next(), all.Next(), all.Next()}),
              ElementsAre("a ready", "b ready", "a evicted", ""));
  EXPECT_TRUE(all.Finish().ok());
  Reader one = Watch(History(true, "b"));
  EXPECT_THAT((std::vector{one.Next(), one.Next()}), ElementsAre("b ready", ""));
  EXPECT_TRUE(one.Finish().ok());
  Reader none = Watch(History(true, "nobody"));
  EXPECT_EQ(none.Next(), "");
  EXPECT_TRUE(none.Finish().ok());
}

TEST_F(WatchRpcTest, TheJournalComesFirstAndThenWhatHappens) {
  Happens("a");
  Reader reader = Watch(History(false, "a"));
  EXPECT_EQ(reader.Next(), "a ready");
  Happens("b");
  Happens("a", CacheEventKind::kUnloaded);
  EXPECT_EQ(reader.Next(), "a unloaded");
}

TEST_F(WatchRpcTest, AnEventHasItsFieldsAndItsWords) {
  stack_.AddModel("m");
  Reader reader = Watch();
  hearth::v1::PrefetchResponse prefetched;
  ASSERT_TRUE(Call(&Stub::Prefetch, "m", &prefetched).ok());
  EXPECT_EQ(prefetched.state(), "absent");
  WatchResponse queued;
  ASSERT_TRUE(reader.stream->Read(&queued));
  EXPECT_EQ(queued.event().kind(), "queued");
  EXPECT_EQ(queued.event().text(), "ahead of requests");
  EXPECT_EQ(queued.event().sequence(), 1u);
  EXPECT_EQ(queued.event().version(), 1);
  EXPECT_GE(queued.event().age_seconds(), 0);
  EXPECT_GT(queued.event().time().seconds(), 1'700'000'000);
  EXPECT_EQ(reader.Next(), "m loading");
  EXPECT_EQ(reader.Next(), "m ready");
}

TEST_F(WatchRpcTest, AReaderThatIsSlowLosesEventsAndHearsHowManyAndHoldsNobodyUp) {
  Reader slow = Watch();
  // Far more than the journal and the windows of the connection hold, with nobody reading.
  constexpr std::uint64_t kEvents = 20'000;
  const std::string name(2000, 'x');
  for (std::uint64_t i = 0; i < kEvents; ++i) Happens(name);
  std::uint64_t seen = 0;
  while (seen + slow.dropped < kEvents) {
    const std::string next = slow.Next();
    ASSERT_NE(next, "") << slow.Finish().error_message();
    seen += next == "dropped" ? 0 : 1;
  }
  EXPECT_EQ(seen + slow.dropped, kEvents);
  EXPECT_GT(slow.dropped, 0u);
}

TEST_F(WatchRpcTest, WatchesEndWithTheServerAfterTheLastWord) {
  Reader idle = Watch();
  Happens("a");
  const std::uint64_t last = stack_.manager.events().end();
  auto shutdown = std::async(std::launch::async, [this] { return stack_.server->Shutdown(kNoDeadline); });
  EXPECT_EQ(idle.Next(), "a ready");
  EXPECT_EQ(idle.Next(), "");
  const grpc::Status status = idle.Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(status.error_message(), "Server exiting");
  EXPECT_TRUE(shutdown.get().ok());
  Happens("later");  // the journal goes on without the front end
  EXPECT_EQ(stack_.manager.events().end(), last + 1);
}

TEST_F(WatchRpcTest, AReaderThatDoesNotReadDoesNotHoldUpAShutdown) {
  Reader stuck = Watch();
  const std::string name(2000, 'x');
  for (int i = 0; i < 2000; ++i) Happens(name);  // more than fits on the way
  EXPECT_TRUE(stack_.server->Shutdown(stack_.clock.Now() + std::chrono::hours(1)).ok());
  while (!stuck.Next().empty()) {
  }
  EXPECT_FALSE(stuck.Finish().ok());
}

TEST_F(WatchRpcTest, OnlySoManyMayWatch) {
  std::vector<std::unique_ptr<Reader>> readers;
  for (std::size_t i = 0; i < WatchRpc::kMaxWatches; ++i) {
    readers.push_back(std::make_unique<Reader>(*stub_, WatchRequest()));
  }
  grpc::ClientContext context;
  const auto refused = stub_->Watch(&context, {});
  WatchResponse response;
  EXPECT_FALSE(refused->Read(&response));
  EXPECT_EQ(refused->Finish().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  readers.pop_back();  // cancels it
  bool again = false;
  while (!again) {  // its end takes a moment
    grpc::ClientContext next;
    const auto stream = stub_->Watch(&next, History(true));
    again = !stream->Read(&response) && stream->Finish().ok();
  }
}

// --- the unary calls ---

TEST_F(WatchRpcTest, PinsUnpinsEvictsAndExplains) {
  stack_.AddModel("m");
  hearth::v1::PrefetchResponse prefetched;
  Reader reader = Watch();
  ASSERT_TRUE(Call(&Stub::Prefetch, "m", &prefetched).ok());
  while (reader.Next() != "m ready") {
  }
  hearth::v1::PinResponse pinned;
  ASSERT_TRUE(Call(&Stub::Pin, "m", &pinned).ok());
  EXPECT_EQ(pinned.version(), 1);
  hearth::v1::EvictResponse evicted;
  const grpc::Status refused = Call(&Stub::Evict, "m", &evicted);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(refused.error_message(), HasSubstr("is pinned"));
  hearth::v1::ExplainResponse why;
  ASSERT_TRUE(Call(&Stub::Explain, "m", &why).ok());
  EXPECT_EQ(why.state(), "ready");
  EXPECT_TRUE(why.pinned_on_request());
  EXPECT_THAT(why.sentence(), HasSubstr("pinned on request"));
  EXPECT_EQ(why.last().kind(), "ready");
  EXPECT_FALSE(why.has_last_eviction());
  hearth::v1::UnpinResponse unpinned;
  ASSERT_TRUE(Call(&Stub::Unpin, "m", &unpinned).ok());
  grpc::Status status;
  do {  // the load's callback holds it for a moment
    status = Call(&Stub::Evict, "m", &evicted);
  } while (status.error_code() == grpc::StatusCode::FAILED_PRECONDITION);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_TRUE(evicted.was_resident());
  ASSERT_TRUE(Call(&Stub::Explain, "m", &why).ok());
  EXPECT_EQ(why.state(), "absent");
  EXPECT_EQ(why.last_eviction().reason(), "evict");
  EXPECT_EQ(why.evictions(), 1u);
  EXPECT_EQ(Call(&Stub::Explain, "nobody", &why).error_code(), grpc::StatusCode::NOT_FOUND);
}

}  // namespace
}  // namespace hearth
