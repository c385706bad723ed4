// The real cache, a day of requests, a clock that is turned by hand: what a policy of eviction costs its users.
// Prints one JSON object.
//
//   cache_sim TRACE CAPACITY_PERCENT POLICY [HALF_LIFE_SECONDS]     POLICY: lru, gdsf or clairvoyant; lru+prewarm or
//                                                                   gdsf+prewarm: as cache.prewarm
//   cache_sim TRACE                                                  prints the trace (sim_trace.h)
//
// TRACE is a file, or a number: the seed of a day that is made up.
//
// A request that finds its model missing stalls for the load; one that comes while it is loading, for the rest of it.
// clairvoyant evicts by the time until the next use: it cannot be had, but no policy of this kind does better.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "server/base/log.h"
#include "server/residency/model_manager.h"
#include "server/serving/prewarmer.h"
#include "tests/bench/sim_trace.h"
#include "tests/fakes/fake_loader.h"
#include "tests/fakes/manual_clock.h"
#include "tests/fakes/manual_executor.h"
#include "tests/fakes/manual_timer.h"

namespace hearth::bench {
namespace {

std::size_t IndexOf(const ModelId& id) { return std::stoul(id.name); }

class ClairvoyantPolicy final : public EvictionPolicy {
 public:
  explicit ClairvoyantPolicy(const std::vector<SimModel>& models) : models_(models) {}
  double Loss(const EvictionCandidate& candidate, TimePoint now) const override {
    const SimModel& model = models_[IndexOf(candidate.id)];
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

double Metric(const ModelManager& manager, const std::string& name) {
  for (const Metrics::Sample& sample : manager.Samples()) {
    if (sample.name == name) return sample.value;
  }
  return 0;
}

int Run(Trace trace, double percent, std::string policy_name, double half_life) {
  constexpr std::string_view kPrewarm = "+prewarm";
  const bool prewarm = policy_name.ends_with(kPrewarm);
  if (prewarm) policy_name.resize(policy_name.size() - kPrewarm.size());
  log::Configure(log::Level::kError, log::Format::kText);
  fakes::ManualClock clock;
  fakes::ManualExecutor executor;
  fakes::ManualExecutor background;  // a single thread
  fakes::ManualTimer timer(clock);
  fakes::FakeLoader loader;
  Metrics metrics{{}};
  const TimePoint start = clock.Now();
  double background_busy = 0;  // until then
  bool in_background = false;
  for (std::size_t i = 0; i < trace.models.size(); ++i) {
    const SimModel& model = trace.models[i];
    fakes::FakeLoader::Script script;
    script.model.footprint.host_bytes = model.bytes;
    script.model.report[LoadPhase::kPopulate].wall = Seconds(model.load_seconds);
    script.on_load = [&, i](const ModelSpec&, const std::stop_token&) {
      const double now = ToSeconds(clock.Now() - start);
      SimModel& loaded = trace.models[i];
      loaded.ready_at = (in_background ? std::max(now, background_busy) : now) + loaded.load_seconds;
      if (in_background) background_busy = loaded.ready_at;
    };
    loader.Set(std::to_string(i), std::move(script));
  }
  const LruPolicy lru;
  const GdsfPolicy gdsf;
  ClairvoyantPolicy clairvoyant(trace.models);
  clairvoyant.start = ToSeconds(start.time_since_epoch());
  const EvictionPolicy* policy = policy_name == "lru"           ? static_cast<const EvictionPolicy*>(&lru)
                                 : policy_name == "gdsf"        ? static_cast<const EvictionPolicy*>(&gdsf)
                                 : policy_name == "clairvoyant" ? static_cast<const EvictionPolicy*>(&clairvoyant)
                                                                : nullptr;
  if (policy == nullptr) return 2;
  ModelManager::Options options;
  options.capacity.host_bytes = static_cast<std::uint64_t>(static_cast<double>(trace.bytes()) * percent / 100);
  if (half_life > 0) options.demand_half_life = Seconds(half_life);
  if (prewarm) options.gaps = trace.models.size();
  ModelManager manager({.find_spec = [](const ModelId& id) -> absl::StatusOr<ModelSpec> {
                          return ModelSpec{id, "fake", id.name, {}};
                        },
                        .find_loader = [&](std::string_view) -> absl::StatusOr<const Loader*> { return &loader; },
                        .load_executor = executor,
                        .timer = timer,
                        .clock = clock,
                        .metrics = metrics,
                        .eviction = policy,
                        .background_executor = &background},
                       options);
  Prewarmer prewarmer({manager, timer, clock, [](const ModelId&) { return true; }});
  prewarmer.SetEnabled(prewarm);
  const auto run_until = [&](TimePoint until) {
    for (auto next = timer.next(); next && *next <= until; next = timer.next()) {
      clock.Advance(std::max(*next - clock.Now(), Duration{}));
      timer.RunDue();
      executor.RunAll();
      in_background = true;
      background.RunAll();
      in_background = false;
    }
    clock.Advance(until - clock.Now());
  };
  double stall = 0;
  std::uint64_t loads = 0, waits = 0, refused = 0;
  for (const Use& use : trace.uses) {
    run_until(start + Seconds(use.at));
    const double now = use.at;
    SimModel& model = trace.models[use.model];
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
  }
  std::printf("{\"requests\": %zu, \"loads\": %llu, \"waits\": %llu, \"refused\": %llu, \"stall_seconds\": %.3f, "
              "\"prewarms\": %.0f, \"prewarms_used\": %.0f}\n",
              trace.uses.size(), static_cast<unsigned long long>(loads), static_cast<unsigned long long>(waits),
              static_cast<unsigned long long>(refused), stall,
              Metric(manager, "hearth_prewarms_total"), Metric(manager, "hearth_prewarms_used_total"));
  prewarmer.SetEnabled(false);
  manager.Shutdown();
  executor.RunAll();
  background.RunAll();
  return 0;
}

absl::StatusOr<Trace> Find(const std::string& name) {
  if (name.find_first_not_of("0123456789") == std::string::npos) return MadeUpDay(std::stoull(name));
  return ReadTrace(name);
}

}  // namespace
}  // namespace hearth::bench

int main(int argc, char** argv) {
  if (argc != 2 && argc != 4 && argc != 5) {
    std::fprintf(stderr, "usage: cache_sim SEED|FILE [CAPACITY_PERCENT lru|gdsf[+prewarm]|clairvoyant [HALF_LIFE_SECONDS]]\n");
    return 2;
  }
  absl::StatusOr<hearth::bench::Trace> trace = hearth::bench::Find(argv[1]);
  if (!trace.ok()) {
    std::fprintf(stderr, "cache_sim: %s\n", std::string(trace.status().message()).c_str());
    return 1;
  }
  if (argc == 2) {
    hearth::bench::PrintTrace(*trace);
    return 0;
  }
  return hearth::bench::Run(*std::move(trace), std::strtod(argv[2], nullptr), argv[3],
                            argc > 4 ? std::strtod(argv[4], nullptr) : 0);
}
