// Real threads and a real timer: what TSan and ASan should see. Asserts what must hold whatever the
// scheduler does.
#include <gtest/gtest.h>

#include <atomic>
#include <latch>
#include <random>
#include <thread>
#include <vector>

#include "server/base/thread_pool.h"
#include "server/residency/model_manager.h"
#include "tests/fakes/fake_loader.h"

namespace hearth {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr int kModels = 6;
constexpr int kThreads = 8;

std::string Name(int model) { return "m" + std::to_string(model); }

class StressTest : public testing::Test {
 protected:
  StressTest() {
    for (int m = 0; m < kModels; ++m) {
      fakes::FakeLoader::Script script;
      const FileId file{1, static_cast<std::uint64_t>(m / 2), 0, 0};  // two models share one
      script.model.footprint = {10, 20, {{file, 0, 30}}, 0, static_cast<DeviceNumber>(m % 2)};
      script.peak = script.model.footprint;
      script.peak->host_bytes = 25;
      if (m == 0) script.model.on_destroy = [this] { lost_ += ++destroyed_ % 64 == 0 ? 1 : 0; };
      if (m % 2 == 1) {  // of whom two of three fit on the device
        script.model.footprint.extents.clear();
        script.rest = fakes::FakeRest::Options{{0, 0, {{file, 0, 30}}}, {}, {}};
      }
      loader_.Set(Name(m), std::move(script));
    }
  }

  ModelManager::Deps deps() {
    return {.find_spec = [](const ModelId& id) -> absl::StatusOr<ModelSpec> {
              return ModelSpec{id, "fake", id.name, {}};
            },
            .find_loader = [this](auto) -> absl::StatusOr<const Loader*> { return &loader_; },
            .load_executor = pool_,
            .timer = timer_,
            .clock = clock_,
            .metrics = metrics_,
            .background_executor = &background_,
            .devices = {"fake:0", "fake:1"},
            .lost_bytes = [this] { return Bytes{{lost_.load()}, 0, 0}; }};
  }

  std::atomic<std::uint64_t> lost_ = 0, destroyed_ = 0;
  fakes::FakeLoader loader_;
  SteadyClock clock_;
  Metrics metrics_{{}};
  ThreadTimer timer_;
  ThreadPool pool_{{.name = "load", .threads = 3, .on_thread_start = nullptr}};
  ThreadPool background_{{.name = "preload", .threads = 2, .on_thread_start = nullptr}};
};

TEST_F(StressTest, EveryRequestIsAnsweredOnceAndEveryHandleIsGood) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  ModelManager manager(deps(), {.capacity = {{1000, 25}, 90, 90},
                                .failure_backoff = milliseconds(1),
                                .max_failure_backoff = milliseconds(2),
                                .idle_unload = milliseconds(1),
                                .rests = 2});
  std::atomic<int> asked = 0, answered = 0, unloads = 0, unloaded = 0, good = 0;
  std::vector<std::thread> threads;
  std::latch start(kThreads);
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(seed + static_cast<unsigned>(t));
      start.arrive_and_wait();
      for (int i = 0; i < 1500; ++i) {
        const ModelId id{Name(static_cast<int>(random() % kModels)), 1};
        switch (random() % 40) {
          case 0:
            ++unloads;
            manager.Unload(id, [&] { ++unloaded; });
            break;
          case 1:
            ++asked;
            manager.Load(id, {.reload = random() % 2 == 0}, clock_.Now() + seconds(2),
                         [&](const auto&) { ++answered; });
            break;
          case 2:
            loader_.FailLoad(1, absl::InternalError("injected"));
            break;
          case 4:
          case 5:
          case 6:
            ++asked;
            manager.Load(id, {.priority = LoadPriority::kBackground}, clock_.Now() + seconds(2),
                         [&](const auto&) { ++answered; });
            break;
          case 7:
            random() % 2 == 0 ? manager.Pin(id) : manager.Unpin(id);
            break;
          case 3:
            manager.CheckInvariants();
            manager.Snapshot();
            manager.Rests();
            manager.Samples();
            break;
          case 8:
            manager.Reconfigure({.capacity = {{1000, 25}, 40 + random() % 80, 60 + random() % 60},
                                 .failure_backoff = milliseconds(1),
                                 .max_failure_backoff = milliseconds(2),
                                 .rests = random() % 4},
                                nullptr);
            break;
          default: {
            ++asked;
            const auto wait = milliseconds(random() % 20 + 1);
            const auto ticket = manager.Acquire(
                id, clock_.Now() + wait, [&, id](absl::StatusOr<ModelManager::Acquired> acquired) {
                  ++answered;
                  if (!acquired.ok()) return;
                  if (acquired->handle.id() == id &&
                      acquired->handle->footprint().host_bytes == 20) {
                    ++good;
                  } else {
                    good -= 1'000'000;
                  }
                });
            if (random() % 8 == 0) manager.Cancel(ticket);
            ModelHandle mine = manager.TryAcquire(id);
            if (mine && random() % 8 == 0) manager.KeepAlive(mine, milliseconds(random() % 3));
            if (mine && random() % 4 == 0) std::this_thread::yield();
            if (mine && mine->footprint().host_bytes != 20) good -= 1'000'000;
          }
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  manager.CheckInvariants();
  EXPECT_GT(good.load(), 0);
  for (int m = 0; m < kModels; ++m) {
    ++unloads;
    manager.Unload({Name(m), 1}, [&] { ++unloaded; });
  }
  manager.Shutdown();
  while (!manager.idle()) std::this_thread::yield();
  EXPECT_EQ(answered.load(), asked.load());
  EXPECT_EQ(manager.usage().used(), Bytes{});
  EXPECT_EQ(loader_.alive(), 0);
  background_.Shutdown();
  pool_.Shutdown();  // completions run after the bytes are back, on the load threads
  EXPECT_EQ(unloaded.load(), unloads.load());
}

TEST_F(StressTest, ManyThreadsForOneColdModelLoadItOnce) {
  ModelManager manager(deps(), {.capacity = {{1000, 25}, 90, 90}});
  std::latch start(kThreads);
  std::latch done(kThreads * 13);
  std::atomic<int> hold = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      start.arrive_and_wait();
      for (int i = 0; i < 13; ++i) {
        manager.Acquire({"m0", 1}, kNoDeadline, [&](auto acquired) {
          hold += acquired.ok() ? 1 : 0;
          done.count_down();
        });
      }
    });
  }
  done.wait();
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(hold.load(), kThreads * 13);
  EXPECT_EQ(loader_.loads("m0"), 1);
}

TEST_F(StressTest, AHitNeverWaitsForALoadOrAnEvictionOfAnother) {
  std::latch loading(1), go_on(1);
  fakes::FakeLoader::Script slow;
  slow.on_load = [&](auto&, auto) {
    loading.count_down();
    go_on.wait();
  };
  slow.model.footprint = {0, 90, {}};
  loader_.Set("slow", slow);
  std::latch destroying(1), destroyed(1);
  fakes::FakeLoader::Script heavy;
  heavy.model.footprint = {0, 5, {}};
  heavy.model.on_destroy = [&] {
    destroying.count_down();
    destroyed.wait();
  };
  loader_.Set("heavy", heavy);
  ModelManager manager(deps(), {.capacity = {{1000, 25}, 200, 90}});
  std::latch resident(2);
  manager.Load({"m0", 1}, {}, kNoDeadline, [&](auto) { resident.count_down(); });
  manager.Load({"heavy", 1}, {}, kNoDeadline, [&](auto) { resident.count_down(); });
  resident.wait();
  manager.Load({"slow", 1}, {}, kNoDeadline, [](auto) {});
  loading.wait();
  manager.Unload({"heavy", 1}, [] {});
  destroying.wait();
  for (int i = 0; i < 1000; ++i) ASSERT_TRUE(manager.TryAcquire({"m0", 1}));
  destroyed.count_down();
  go_on.count_down();
}

}  // namespace
}  // namespace hearth
