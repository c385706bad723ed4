#include "server/base/thread_pool.h"

#include <gtest/gtest.h>
#include <pthread.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <future>
#include <latch>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

namespace hearth {
namespace {

// Runs a function when a task is destroyed, run or not.
class AtDestruction {
 public:
  explicit AtDestruction(std::function<void()> fn) : fn_(std::move(fn)) {}
  AtDestruction(AtDestruction&& other) noexcept : fn_(std::exchange(other.fn_, nullptr)) {}
  ~AtDestruction() {
    if (fn_) fn_();
  }

 private:
  std::function<void()> fn_;
};

TEST(ThreadPool, RunsTasksInOrderOnOneThread) {
  ThreadPool pool({.name = "t", .threads = 1, .on_thread_start = {}});
  std::vector<int> order;
  std::promise<void> done;
  for (int i = 0; i < 100; ++i) pool.Post([&order, i] { order.push_back(i); });
  pool.Post([&done] { done.set_value(); });
  done.get_future().wait();
  ASSERT_EQ(order.size(), 100u);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(order[static_cast<std::size_t>(i)], i);
}

TEST(ThreadPool, RunsWhatWasPostedInABurstOnceItIsFlushedOrOver) {
  ThreadPool one({.name = "t", .threads = 1, .on_thread_start = {}}), two({.name = "t", .threads = 2, .on_thread_start = {}});
  for (const bool flush : {true, false}) {
    for (int round = 0; round < 100; ++round) {
      std::latch done(20);
      std::optional<ThreadPool::Burst> burst(std::in_place);
      for (int i = 0; i < 10; ++i) {
        one.Post([&done] { done.count_down(); });
        two.Post([&done] { done.count_down(); });
      }
      if (flush) {
        burst->Flush();
      } else {
        burst.reset();
      }
      done.wait();
    }
  }
}

TEST(ThreadPool, WhatWasPostedInABurstRunsBeforeItsEndIfAnotherThreadWakesSomebody) {
  ThreadPool pool({.name = "t", .threads = 1, .on_thread_start = {}});
  const std::thread::id here = std::this_thread::get_id();
  std::promise<void> ran;
  {
    ThreadPool::Burst burst;
    pool.Post([&] {
      EXPECT_NE(std::this_thread::get_id(), here);
      ran.set_value();
    });
    std::thread other([&pool] { pool.Post([] {}); });  // that thread has no burst: who it wakes does both
    other.join();
    ran.get_future().wait();
  }
}

// Each round ends only if nobody slept through the last task of it.
TEST(ThreadPool, ThreadsThatWaitAwakeMissNothingWhoeverPosts) {
  constexpr int kRounds = 2'000, kTasks = 3;
  ThreadPool pool({.name = "t", .threads = 2, .on_thread_start = {}, .busy_wait = std::chrono::microseconds(200)});
  const auto post = [&pool](bool in_bursts) {
    std::optional<ThreadPool::Burst> burst;
    if (in_bursts) burst.emplace();
    for (int round = 0; round < kRounds; ++round) {
      std::latch done(kTasks);
      for (int i = 0; i < kTasks; ++i) pool.Post([&done] { done.count_down(); });
      if (burst) burst->Flush();
      done.wait();
    }
  };
  std::thread one(post, true), other(post, false);
  one.join();
  other.join();
}

TEST(ThreadPool, RunsAsManyTasksAtOnceAsItHasThreads) {
  ThreadPool pool({.name = "t", .threads = 3, .on_thread_start = {}});
  EXPECT_EQ(pool.threads(), 3u);
  std::latch all_inside(3);  // opens only if all three run at the same time
  std::latch finished(3);
  for (int i = 0; i < 3; ++i) {
    pool.Post([&] {
      all_inside.arrive_and_wait();
      finished.count_down();
    });
  }
  finished.wait();
}

TEST(ThreadPool, AnotherThreadTakesThePlaceOfOneThatIsStuck) {
  ThreadPool pool({.name = "t", .threads = 1, .on_thread_start = {}, .replacements = 1});
  for (int round = 0; round < 3; ++round) {
    std::promise<void> stuck, goes_on;
    std::shared_future<void> released = goes_on.get_future().share();
    pool.Post([&stuck, released] {
      stuck.set_value();
      released.wait();
    });
    stuck.get_future().wait();
    ASSERT_TRUE(pool.Replace());
    EXPECT_FALSE(pool.Replace()) << "one more is all that there may be";
    std::promise<void> done;
    pool.Post([&done] { done.set_value(); });
    done.get_future().wait();
    EXPECT_EQ(pool.threads(), 2u);
    pool.EndReplacement();
    goes_on.set_value();
    while (pool.threads() > 1) std::this_thread::yield();
  }
}

TEST(ThreadPool, EndsWithAThreadThatWasReplaced) {
  ThreadPool pool({.name = "t", .threads = 1, .on_thread_start = {}, .replacements = 2});
  ASSERT_TRUE(pool.Replace());
  ASSERT_TRUE(pool.Replace());
  pool.EndReplacement();
  pool.Shutdown();
  EXPECT_FALSE(pool.Replace());
}

TEST(ThreadPool, RunsATaskBehindALongOneThoughAllBeforeWereShort) {
  ThreadPool pool({.name = "t", .threads = 2, .on_thread_start = {}});
  std::latch short_ones(500);
  for (int i = 0; i < 500; ++i) pool.Post([&] { short_ones.count_down(); });
  short_ones.wait();
  for (int round = 0; round < 50; ++round) {
    auto both_inside = std::make_shared<std::latch>(2);  // opens only if neither waits for the other
    auto finished = std::make_shared<std::latch>(2);
    for (int i = 0; i < 2; ++i) {
      pool.Post([both_inside, finished] {
        both_inside->arrive_and_wait();
        finished->count_down();
      });
    }
    finished->wait();
  }
}

TEST(ThreadPool, NamesItsThreadsAndPreparesEachBeforeItsFirstTask) {
  std::atomic<int> prepared{0};
  thread_local bool ready = false;
  ThreadPool pool({.name = "a-long-name-for-a-thread", .threads = 2, .on_thread_start = [&] {
                     ready = true;
                     ++prepared;
                   }});
  std::promise<std::pair<bool, std::string>> seen;
  pool.Post([&] {
    char name[16];
    pthread_getname_np(pthread_self(), name, sizeof name);
    seen.set_value({ready, name});
  });
  const auto [was_ready, name] = seen.get_future().get();
  EXPECT_TRUE(was_ready);
  EXPECT_EQ(name, "a-long-name-for");
  pool.Shutdown();
  EXPECT_EQ(prepared, 2);
}

TEST(ThreadPool, NeverRunsATaskInline) {
  ThreadPool pool({.name = "t", .threads = 1, .on_thread_start = {}});
  std::atomic<bool> inner_ran{false};
  std::promise<bool> ran_inside;
  std::promise<void> inner_done;
  pool.Post([&] {
    pool.Post([&] {
      inner_ran = true;
      inner_done.set_value();
    });
    ran_inside.set_value(inner_ran);  // the only thread is here, so this would be "inline"
  });
  EXPECT_FALSE(ran_inside.get_future().get());
  inner_done.get_future().wait();
  EXPECT_TRUE(inner_ran);
}

TEST(ThreadPool, FinishesWhatRunsAndDestroysWhatIsQueuedAtShutdown) {
  ThreadPool pool({.name = "t", .threads = 1, .on_thread_start = {}});
  std::promise<void> running, destroyed;
  std::atomic<bool> finished{false}, ran{false};
  pool.Post([&] {
    running.set_value();
    destroyed.get_future().wait();  // the queued task goes while this one still runs
    finished = true;
  });
  running.get_future().wait();
  pool.Post([&ran, guard = AtDestruction([&] { destroyed.set_value(); })] { ran = true; });
  EXPECT_EQ(pool.queued(), 1u);
  pool.Shutdown();
  EXPECT_TRUE(finished);
  EXPECT_FALSE(ran);
  EXPECT_EQ(pool.queued(), 0u);
}

TEST(ThreadPool, DestroysATaskPostedAfterShutdownOutsideItsLock) {
  ThreadPool pool({.name = "t", .threads = 1, .on_thread_start = {}});
  pool.Shutdown();
  pool.Shutdown();  // idempotent
  bool destroyed = false;
  pool.Post([guard = AtDestruction([&] {
               pool.Post([] {});  // would deadlock under the lock
               destroyed = true;
             })] { FAIL() << "ran after shutdown"; });
  EXPECT_TRUE(destroyed);
}

}  // namespace
}  // namespace hearth
