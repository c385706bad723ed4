// The real cache, a day of requests, a clock that is turned by hand: what a policy of eviction costs its users.
// Prints one JSON object.
//
//   cache_sim SEED CAPACITY_PERCENT POLICY [HALF_LIFE_SECONDS]     POLICY: lru, gdsf or clairvoyant
//
// The trace is made up, shaped like those of serverless platforms: 240 models of 8 MB to 9 GB, a third of them asked
// for at random, a third in bursts, a third by timetable; some much more often than others; a quarter of them compile
// for 1 to 8 seconds when they are loaded. A load takes what reading takes at 1.7 GB/s, and that.
//
// A request that finds its model missing stalls for the load; one that comes while it is loading, for the rest of it.
// clairvoyant evicts by the time until the next use: it cannot be had, but no policy of this kind does better.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "server/base/log.h"
#include "server/residency/model_manager.h"
#include "tests/fakes/fake_loader.h"
#include "tests/fakes/manual_clock.h"
#include "tests/fakes/manual_executor.h"
#include "tests/fakes/manual_timer.h"

namespace hearth {
namespace {

constexpr int kModels = 240;
constexpr double kDay = 24 * 3600;
constexpr double kReadBytesPerSecond = 1.7e9;

struct SimModel {
  std::uint64_t bytes = 0;
  double load_seconds = 0;
  std::vector<double> uses;  // ascending
  std::size_t next = 0;      // of uses: the first that has not been made
  double ready_at = 0;       // of its last load
};

struct Use {
  double at;
  int model;
  friend bool operator<(const Use& a, const Use& b) { return a.at < b.at; }
};

class Trace {
 public:
  explicit Trace(std::uint64_t seed) : random_(seed), models_(kModels) {
    std::vector<int> rank(kModels);
    for (int i = 0; i < kModels; ++i) rank[i] = i + 1;
    std::shuffle(rank.begin(), rank.end(), random_);
    for (int i = 0; i < kModels; ++i) {
      SimModel& model = models_[i];
      model.bytes = static_cast<std::uint64_t>(8e6 * std::pow(9e9 / 8e6, Uniform(0, 1)));
      model.load_seconds = static_cast<double>(model.bytes) / kReadBytesPerSecond + 0.01;
      if (Uniform(0, 1) < 0.25) model.load_seconds += Uniform(1, 8);
      const double per_day = 8000 / std::pow(rank[i], 0.9);
      if (i % 3 == 0) AtRandom(model, per_day);
      if (i % 3 == 1) InBursts(model, per_day);
      if (i % 3 == 2) ByTimetable(model);
      std::sort(model.uses.begin(), model.uses.end());
      for (const double at : model.uses) uses_.push_back({at, i});
    }
    std::sort(uses_.begin(), uses_.end());
  }

  std::vector<SimModel>& models() { return models_; }
  const std::vector<Use>& uses() const { return uses_; }
  std::uint64_t bytes() const {
    std::uint64_t sum = 0;
    for (const SimModel& model : models_) sum += model.bytes;
    return sum;
  }

 private:
  double Uniform(double low, double high) { return std::uniform_real_distribution<double>(low, high)(random_); }
  double Gap(double per_second) { return std::exponential_distribution<double>(per_second)(random_); }

  void AtRandom(SimModel& model, double per_day) {
    for (double at = Gap(per_day / kDay); at < kDay; at += Gap(per_day / kDay)) model.uses.push_back(at);
  }
  void InBursts(SimModel& model, double per_day) {
    constexpr double kPerBurst = 30;
    const double bursts = std::max(per_day / kPerBurst, 1.0);
    for (double begin = Gap(bursts / kDay); begin < kDay; begin += Gap(bursts / kDay)) {
      const int count = 1 + std::geometric_distribution<int>(1 / kPerBurst)(random_);
      double at = begin;
      for (int i = 0; i < count && at < kDay; ++i, at += Gap(0.5)) model.uses.push_back(at);
    }
  }
  void ByTimetable(SimModel& model) {
    constexpr double kPeriods[] = {60, 300, 900, 1800, 3600, 3600, 7200, 21600};
    const double period = kPeriods[std::uniform_int_distribution<int>(0, 7)(random_)];
    const int count = std::uniform_int_distribution<int>(1, 3)(random_);
    for (double tick = Uniform(0, period); tick < kDay; tick += period) {
      double at = tick + Uniform(0, 2);
      for (int i = 0; i < count && at < kDay; ++i, at += Gap(2)) model.uses.push_back(at);
    }
  }

  std::mt19937_64 random_;
  std::vector<SimModel> models_;
  std::vector<Use> uses_;
};

int IndexOf(const ModelId& id) { return std::stoi(id.name); }

class ClairvoyantPolicy final : public EvictionPolicy {
 public:
  explicit ClairvoyantPolicy(const std::vector<SimModel>& models) : models_(models) {}
  double Loss(const EvictionCandidate& candidate, TimePoint now) const override {
    const SimModel& model = models_[static_cast<std::size_t>(IndexOf(candidate.id))];
    if (model.next >= model.uses.size()) return 0;
    const double away = model.uses[model.next] - (ToSeconds(now.time_since_epoch()) - start);
    return model.load_seconds / std::max(away, 1e-3);
  }
  bool adds_up() const override { return true; }
  double start = 0;

 private:
  const std::vector<SimModel>& models_;
};

Duration Seconds(double seconds) {
  return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(seconds));
}

int Run(std::uint64_t seed, double percent, const std::string& policy_name, double half_life) {
  log::Configure(log::Level::kError, log::Format::kText);
  Trace trace(seed);
  fakes::ManualClock clock;
  fakes::ManualExecutor executor;
  fakes::ManualTimer timer(clock);
  fakes::FakeLoader loader;
  Metrics metrics{{}};
  for (int i = 0; i < kModels; ++i) {
    const SimModel& model = trace.models()[static_cast<std::size_t>(i)];
    fakes::FakeLoader::Script script;
    script.model.footprint.host_bytes = model.bytes;
    script.model.report[LoadPhase::kPopulate].wall = Seconds(model.load_seconds);
    loader.Set(std::to_string(i), std::move(script));
  }
  const LruPolicy lru;
  const GdsfPolicy gdsf;
  ClairvoyantPolicy clairvoyant(trace.models());
  clairvoyant.start = ToSeconds(clock.Now().time_since_epoch());
  const EvictionPolicy* policy = policy_name == "lru"           ? static_cast<const EvictionPolicy*>(&lru)
                                 : policy_name == "gdsf"        ? static_cast<const EvictionPolicy*>(&gdsf)
                                 : policy_name == "clairvoyant" ? static_cast<const EvictionPolicy*>(&clairvoyant)
                                                                : nullptr;
  if (policy == nullptr) return 2;
  ModelManager::Options options;
  options.capacity.host_bytes = static_cast<std::uint64_t>(static_cast<double>(trace.bytes()) * percent / 100);
  if (half_life > 0) options.demand_half_life = Seconds(half_life);
  ModelManager manager({.find_spec = [](const ModelId& id) -> absl::StatusOr<ModelSpec> {
                          return ModelSpec{id, "fake", id.name, {}};
                        },
                        .find_loader = [&](std::string_view) -> absl::StatusOr<const Loader*> { return &loader; },
                        .load_executor = executor,
                        .timer = timer,
                        .clock = clock,
                        .metrics = metrics,
                        .eviction = policy},
                       options);
  double stall = 0, now = 0;
  std::uint64_t loads = 0, waits = 0, refused = 0;
  for (const Use& use : trace.uses()) {
    clock.Advance(Seconds(use.at - now));
    now = use.at;
    SimModel& model = trace.models()[static_cast<std::size_t>(use.model)];
    ++model.next;
    const ModelId id{std::to_string(use.model), 1};
    if (manager.TryAcquire(id)) {
      if (model.ready_at > now) {
        stall += model.ready_at - now;
        ++waits;
      }
      continue;
    }
    bool served = false;
    manager.Acquire(id, kNoDeadline, [&](absl::StatusOr<ModelManager::Acquired> acquired) { served = acquired.ok(); });
    executor.RunAll();
    if (!served) ++refused;
    ++loads;
    stall += model.load_seconds;
    model.ready_at = now + model.load_seconds;
  }
  std::printf("{\"requests\": %zu, \"loads\": %llu, \"waits\": %llu, \"refused\": %llu, \"stall_seconds\": %.3f}\n",
              trace.uses().size(), static_cast<unsigned long long>(loads), static_cast<unsigned long long>(waits),
              static_cast<unsigned long long>(refused), stall);
  manager.Shutdown();
  executor.RunAll();
  return 0;
}

}  // namespace
}  // namespace hearth

int main(int argc, char** argv) {
  const int bad = argc < 4 ? 2
                           : hearth::Run(std::strtoull(argv[1], nullptr, 10), std::strtod(argv[2], nullptr), argv[3],
                                         argc > 4 ? std::strtod(argv[4], nullptr) : 0);
  if (bad != 0) std::fprintf(stderr, "usage: cache_sim SEED CAPACITY_PERCENT lru|gdsf|clairvoyant [HALF_LIFE_SECONDS]\n");
  return bad;
}
