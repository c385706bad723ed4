#include "server/residency/event_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

#include "tests/fakes/manual_clock.h"

namespace hearth {
namespace {

using std::chrono::seconds;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using enum CacheEventKind;

class EventLogTest : public testing::Test {
 protected:
  static CacheEvent Event(CacheEventKind kind, const std::string& model) {
    return {.kind = kind, .id = {model, 1}};
  }
  static CacheEvent Error(CacheEventKind kind, const std::string& model, const std::string& text = "broken") {
    CacheEvent event = Event(kind, model);
    event.error = absl::InvalidArgumentError(text);
    return event;
  }
  // "1 a ready", for everything from `from` on.
  static std::vector<std::string> All(const EventLog& log, std::uint64_t from = 1, const std::string& model = "") {
    std::vector<std::string> lines;
    while (true) {
      const EventLog::Found found = log.Read(from, model);
      if (found.dropped > 0) lines.push_back(StrCat(found.dropped, " dropped"));
      if (found.event == nullptr) return lines;
      lines.push_back(StrCat(found.event->sequence, " ", found.event->id.name, " ", ToString(found.event->kind)));
      from = found.next;
    }
  }

  fakes::ManualClock clock_;
  EventLog log_{clock_, {.events = 4, .models = 3, .message_bytes = 10}};
};

TEST_F(EventLogTest, NumbersAndStampsWhatItIsTold) {
  log_.Add(Event(kQueued, "a"));
  clock_.Advance(seconds(3));
  log_.Add(Event(kReady, "a"));
  EXPECT_THAT(All(log_), ElementsAre("1 a queued", "2 a ready"));
  const EventLog::EventPtr second = log_.Read(2, "").event;
  EXPECT_EQ(second->at, clock_.Now());
  EXPECT_EQ(second->time, clock_.WallNow());
}

TEST_F(EventLogTest, ForgetsTheOldestAndSaysSo) {
  for (int i = 0; i < 6; ++i) log_.Add(Event(kReady, "a"));
  EXPECT_THAT(All(log_), ElementsAre("2 dropped", "3 a ready", "4 a ready", "5 a ready", "6 a ready"));
  EXPECT_THAT(All(log_, 6), ElementsAre("6 a ready"));
  EXPECT_EQ(log_.begin(), 3u);
  EXPECT_EQ(log_.end(), 7u);
}

TEST_F(EventLogTest, AReaderOfOneModelSkipsTheOthersForGood) {
  log_.Add(Event(kReady, "a"));
  log_.Add(Event(kReady, "b"));
  EXPECT_THAT(All(log_, 1, "b"), ElementsAre("2 b ready"));
  const EventLog::Found none = log_.Read(1, "nobody");
  EXPECT_EQ(none.event, nullptr);
  EXPECT_EQ(none.next, log_.end());
  EXPECT_EQ(log_.Read(99, "").next, 99u) << "a reader never goes back";
}

TEST_F(EventLogTest, RemembersOfEachModelWhatTheJournalHasForgotten) {
  log_.Add(Event(kEvicted, "a"));
  log_.Add(Error(kFailed, "a"));
  for (int i = 0; i < 4; ++i) log_.Add(Event(kReady, "b"));
  EXPECT_THAT(All(log_, 1, "a"), ElementsAre("2 dropped"));
  const EventLog::History history = log_.Of({"a", 1});
  EXPECT_EQ(history.last->kind, kFailed);
  EXPECT_EQ(history.last_eviction->sequence, 1u);
  EXPECT_EQ(history.last_failure->sequence, 2u);
  EXPECT_EQ(history.evictions, 1u);
  EXPECT_EQ(log_.Of({"a", 2}).last, nullptr) << "of this version nothing is known";
}

TEST_F(EventLogTest, OfMoreModelsThanItHoldsTheQuietestIsForgotten) {
  for (const char* model : {"a", "b", "c", "a", "d"}) log_.Add(Event(kReady, model));
  EXPECT_EQ(log_.Of({"b", 1}).last, nullptr);
  for (const char* model : {"a", "c", "d"}) EXPECT_NE(log_.Of({model, 1}).last, nullptr) << model;
}

TEST_F(EventLogTest, OfManyRefusalsOneIsAnEventAndTheOthersAreCounted) {
  log_.Add(Error(kFailed, "a"));
  for (int i = 0; i < 100; ++i) log_.Add(Error(kRefused, "a"));
  EXPECT_THAT(All(log_), ElementsAre("1 a failed", "2 a refused"));
  EXPECT_EQ(log_.Of({"a", 1}).refused, 100u);
  log_.Add(Error(kFailed, "a"));
  log_.Add(Error(kRefused, "a"));
  EXPECT_THAT(All(log_, 3), ElementsAre("3 a failed", "4 a refused")) << "another failure, another refusal";
  EXPECT_EQ(log_.Of({"a", 1}).refused, 1u);
  log_.Add(Event(kReady, "a"));
  EXPECT_EQ(log_.Of({"a", 1}).refused, 0u);
}

TEST_F(EventLogTest, CutsALongMessageBetweenCharacters) {
  log_.Add(Error(kFailed, "a", "123456789\xc3\xa4 and more"));
  const absl::Status& error = log_.Of({"a", 1}).last->error;
  EXPECT_EQ(error, absl::InvalidArgumentError("123456789..."));
}

struct Counter final : EventLog::Listener {
  void EventAdded() override { ++count; }
  std::atomic<int> count{0};
};

TEST_F(EventLogTest, TellsListenersForAsLongAsTheyLive) {
  const auto stays = std::make_shared<Counter>();
  auto goes = std::make_shared<Counter>();
  log_.Listen(stays);
  log_.Listen(goes);
  log_.Add(Event(kQueued, "a"));
  EXPECT_EQ(goes->count, 1);
  goes.reset();
  log_.Add(Event(kReady, "a"));
  EXPECT_EQ(stays->count, 2);
}

// A listener may ask the journal: it is told without the lock.
struct Reader final : EventLog::Listener {
  explicit Reader(const EventLog& l) : log(l) {}
  void EventAdded() override {
    while (true) {
      const EventLog::Found found = log.Read(next, "");
      seen += found.event != nullptr ? 1 : 0;
      dropped += found.dropped;
      next = found.next;
      if (found.event == nullptr) return;
    }
  }
  const EventLog& log;
  std::uint64_t next = 1, seen = 0, dropped = 0;
};

TEST_F(EventLogTest, AListenerMayReadWhatItIsToldOf) {
  const auto reader = std::make_shared<Reader>(log_);
  log_.Listen(reader);
  for (int i = 0; i < 10; ++i) log_.Add(Event(kReady, "a"));
  EXPECT_EQ(reader->seen, 10u);
  EXPECT_EQ(reader->dropped, 0u);
}

TEST_F(EventLogTest, ManyThreadsAddAndReadAndNothingIsCountedTwice) {
  constexpr std::uint64_t kThreads = 4, kEach = 500;
  std::vector<std::thread> threads;
  for (std::uint64_t i = 0; i < kThreads; ++i) {
    threads.emplace_back([this, i] {
      for (std::uint64_t n = 0; n < kEach; ++n) log_.Add(Event(kReady, std::string(1, static_cast<char>('a' + i))));
    });
  }
  std::uint64_t next = 1, seen = 0, dropped = 0;
  while (seen + dropped < kThreads * kEach) {
    const EventLog::Found found = log_.Read(next, "");
    if (found.event != nullptr) {
      EXPECT_EQ(found.event->sequence, found.next - 1);
    }
    seen += found.event != nullptr ? 1 : 0;
    dropped += found.dropped;
    next = found.next;
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(seen + dropped, kThreads * kEach);
  EXPECT_EQ(log_.end(), kThreads * kEach + 1);
}

// --- words ---

TEST(DescribeEvent, AnEvictionSaysForWhomHowMuchAndWhy) {
  CacheEvent event{.kind = kEvicted, .id = {"vad", 1}};
  event.bytes = {.mapped_bytes = 380 << 20};
  event.resident = std::chrono::hours(2);
  event.idle = std::chrono::minutes(40);
  event.cause = EvictionCause{.made_room_for = {"resnet-50", 1},
                              .needed = {.host_bytes = 3 << 20, .mapped_bytes = 412 << 20},
                              .rank = 1,
                              .candidates = 5,
                              .demand = 3.04};
  EXPECT_EQ(Describe(event),
            "for resnet-50:1: 3.00 MiB of host and 412 MiB of mapped memory needed, 380 MiB of mapped memory held by it alone; "
            "the coldest of 5 candidates by score, asked for about 3.0 times lately; resident for 2h 00m, idle for 40m");
  event.cause->rank = 2;
  event.cause->demand = 0;
  EXPECT_THAT(Describe(event), HasSubstr("; number 2 of 5 candidates by score, not asked for lately; "));
}

TEST(DescribeEvent, AnUnloadOfWhatIsNotThereSaysSo) {
  const CacheEvent event{.kind = kUnloaded, .reason = EvictionReason::kUnload, .found = CacheEvent::Found::kAbsent};
  EXPECT_EQ(Describe(event), "by an explicit unload, not being resident");
}

TEST(DescribeEvent, ALossNamesTheDevice) {
  const CacheEvent event{.kind = CacheEventKind::kLost, .bytes = {.device_bytes = {0, 7 << 20}}};
  EXPECT_EQ(Describe(event, {"fake:0", "fake:1"}),
            "7.00 MiB of fake:1 memory, which could not be freed; the budget is smaller by as much until hearthd is "
            "started again");
}

TEST(DescribeEvent, NamesTheDevice) {
  const CacheEvent event{.kind = kLoading, .bytes = {.device_bytes = {0, 7 << 20}, .host_bytes = 5 << 20}};
  EXPECT_EQ(Describe(event, {"fake:0", "fake:1"}), "with 7.00 MiB of fake:1 and 5.00 MiB of host memory reserved");
}

TEST(DescribeEvent, EveryKindAndEveryReasonHasWords) {
  EXPECT_EQ(Describe(CacheEvent{.kind = kQueued, .request = true}), "for a request");
  EXPECT_EQ(Describe(CacheEvent{.kind = kQueued}), "ahead of requests");
  EXPECT_EQ(Describe(CacheEvent{.kind = kLoading, .bytes = {.host_bytes = 5 << 20}}),
            "with 5.00 MiB of host memory reserved");
  EXPECT_EQ(Describe(CacheEvent{.kind = kReady, .took = std::chrono::milliseconds(12), .waiters = 2,
                                .away = seconds(40)}),
            "after 12ms, with no memory, for 2 waiters; it had been evicted for 40s");
  EXPECT_EQ(Describe(CacheEvent{.kind = kFailed, .took = seconds(3), .error = absl::DataLossError("cut short")}),
            "after 3.0s: cut short (DATA_LOSS)");
  EXPECT_THAT(Describe(CacheEvent{.kind = kRefused, .error = absl::DataLossError("cut short")}),
              HasSubstr("cut short (DATA_LOSS)"));
  for (const EvictionReason reason :
       {EvictionReason::kCapacity, EvictionReason::kUnload, EvictionReason::kReload, EvictionReason::kShutdown,
        EvictionReason::kDataLoss, EvictionReason::kEvict, EvictionReason::kIdle, EvictionReason::kReplaced}) {
    EXPECT_THAT(Describe(CacheEvent{.kind = kUnloaded, .reason = reason, .hits = 1}), HasSubstr(", 1 hit"));
    EXPECT_NE(Describe(CacheEvent{.kind = kUnloaded, .reason = reason})[0], ';');
  }
}

}  // namespace
}  // namespace hearth
