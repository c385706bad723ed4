// What a cache hit costs: Acquire or TryAcquire of a resident model, and the handle's release.
#include <benchmark/benchmark.h>

#include <latch>
#include <string>

#include "server/base/log.h"
#include "server/base/thread_pool.h"
#include "server/residency/model_manager.h"
#include "tests/fakes/fake_loader.h"

namespace hearth {
namespace {

// A cache of 64 resident models.
struct Warm {
  static constexpr int kModels = 64;

  Warm() {
    log::Configure(log::Level::kError, log::Format::kText);
    std::latch resident(kModels);
    for (int i = 0; i < kModels; ++i) {
      manager.Load(Id(i), {}, kNoDeadline, [&](const auto&) { resident.count_down(); });
    }
    resident.wait();
  }
  static ModelId Id(int i) { return {"some_model_name_" + std::to_string(i), 1}; }

  fakes::FakeLoader loader;
  SteadyClock clock;
  Metrics metrics{{}};
  ThreadTimer timer;
  ThreadPool pool{{.name = "load", .threads = 2, .on_thread_start = nullptr}};
  ModelManager manager{
      {.find_spec = [](const ModelId& id) -> absl::StatusOr<ModelSpec> {
         return ModelSpec{id, "fake", id.name, {}};
       },
       .find_loader = [this](std::string_view) -> absl::StatusOr<const Loader*> { return &loader; },
       .load_executor = pool,
       .timer = timer,
       .clock = clock,
       .metrics = metrics},
      {.capacity = {0, 1 << 20, 1 << 20}}};
};

Warm& TheCache() {
  static Warm warm;
  return warm;
}

void TryAcquireOneModel(benchmark::State& state) {
  ModelManager& manager = TheCache().manager;
  const ModelId id = Warm::Id(0);
  for (auto _ : state) benchmark::DoNotOptimize(manager.TryAcquire(id));
}
BENCHMARK(TryAcquireOneModel)->ThreadRange(1, 4)->UseRealTime();

void TryAcquireAModelPerThread(benchmark::State& state) {
  ModelManager& manager = TheCache().manager;
  const ModelId id = Warm::Id(state.thread_index());
  for (auto _ : state) benchmark::DoNotOptimize(manager.TryAcquire(id));
}
BENCHMARK(TryAcquireAModelPerThread)->ThreadRange(1, 4)->UseRealTime();

void AcquireOneModel(benchmark::State& state) {
  ModelManager& manager = TheCache().manager;
  const ModelId id = Warm::Id(0);
  for (auto _ : state) {
    manager.Acquire(id, kNoDeadline, [](auto acquired) { benchmark::DoNotOptimize(acquired); });
  }
}
BENCHMARK(AcquireOneModel)->ThreadRange(1, 4)->UseRealTime();

}  // namespace
}  // namespace hearth

BENCHMARK_MAIN();
