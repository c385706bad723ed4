// Random operations against a small reference model, and random interleavings against the
// invariants.
#include <algorithm>
#include <array>
#include <map>
#include <random>
#include <set>

#include "tests/residency/manager_fixture.h"

namespace hearth {
namespace {

using std::chrono::milliseconds;
using enum absl::StatusCode;

constexpr int kModels = 8;
constexpr std::uint64_t kCapacity = 100;
constexpr std::array<std::uint64_t, kModels> kSizes = {10, 20, 30, 40, 55, 70, 90, 120};
constexpr Duration kBackoff = milliseconds(40);

std::string Name(int model) { return "m" + std::to_string(model); }

// What the manager is for, in the plainest way: every operation runs to its end at once, so there
// is no time, no thread and no state but this.
class Reference {
 public:
  struct Generation {
    int model;
    int pins = 0;
    TimePoint last_used{};
    bool draining = false;
  };
  struct Request {
    int id;
    TimePoint deadline;
    bool load;  // holds nothing once answered
    std::optional<absl::StatusCode> answer{};
    Generation* held = nullptr;
  };
  struct Waiting {
    int model;
    bool estimated = false;
    std::vector<Request*> requests{};
  };
  struct Failure {
    absl::StatusCode code;
    TimePoint until;
  };

  void Ask(int model, Request* request, bool explicit_load, TimePoint now) {
    if (Generation* ready = Ready(model)) {
      if (!request->load) ready->last_used = now;
      Answer(request, kOk, ready);
    } else if (Waiting* w = Find(model)) {
      w->requests.push_back(request);
    } else if (failed.contains(model) && !explicit_load && now < failed.at(model).until) {
      Answer(request, failed.at(model).code, nullptr);
    } else {
      if (!order.contains(model)) order.emplace(model, order.size());
      failed.erase(model);  // tried again; only how often it failed is still known
      waiting.push_back({model, false, {request}});
    }
    Run(now);
  }
  void SetPins(std::set<int> models, TimePoint now) {
    pinned = std::move(models);
    for (const int m : pinned) order.emplace(m, order.size());
    Run(now);
  }
  void Release(Request* request, TimePoint now) {
    Drop(std::exchange(request->held, nullptr));
    Run(now);
  }
  void Unload(int model, TimePoint now) {
    failed.erase(model);
    failures[model] = 0;
    if (Generation* ready = Ready(model)) {
      ready->draining = true;
      if (ready->pins == 0) Remove(ready);
    }
    if (Waiting* w = Find(model)) {
      for (Request* r : w->requests) Answer(r, kUnavailable, nullptr);
      waiting.erase(waiting.begin() + (w - waiting.data()));
    }
    Run(now);
  }
  void Cancel(Request* request, TimePoint now) { Leave(request, kCancelled, now); }
  void Expire(TimePoint now) {
    std::vector<Request*> late;
    for (Waiting& w : waiting) {
      for (Request* r : w.requests) {
        if (r->deadline <= now) late.push_back(r);
      }
    }
    for (Request* r : late) Leave(r, kResourceExhausted, now);  // all wait for room
  }

  std::uint64_t used() const {
    std::uint64_t sum = 0;
    for (const auto& g : generations) sum += Size(g->model);
    return sum;
  }

  std::vector<std::unique_ptr<Generation>> generations;
  std::vector<Waiting> waiting;  // oldest first
  std::map<int, Failure> failed;
  std::map<int, int> failures;
  std::set<int> pinned;
  std::map<int, std::size_t> order;  // first heard of, for ties
  std::array<bool, kModels> load_fails{};
  std::array<bool, kModels> estimate_fails{};

 private:
  static std::uint64_t Size(int model) { return kSizes[static_cast<std::size_t>(model)]; }
  Generation* Ready(int model) {
    for (const auto& g : generations) {
      if (g->model == model && !g->draining) return g.get();
    }
    return nullptr;
  }
  Waiting* Find(int model) {
    for (Waiting& w : waiting) {
      if (w.model == model) return &w;
    }
    return nullptr;
  }
  void Remove(Generation* generation) {
    std::erase_if(generations, [&](const auto& g) { return g.get() == generation; });
  }
  void Drop(Generation* generation) {
    if (--generation->pins == 0 && generation->draining) Remove(generation);
  }
  void Answer(Request* request, absl::StatusCode code, Generation* generation) {
    request->answer = code;
    if (code != kOk || request->load) return;
    request->held = generation;
    ++generation->pins;
  }
  void Leave(Request* request, absl::StatusCode code, TimePoint now) {
    for (Waiting& w : waiting) {
      if (std::erase(w.requests, request) > 0) Answer(request, code, nullptr);
    }
    std::erase_if(waiting, [](const Waiting& w) { return w.requests.empty(); });
    Run(now);
  }

  // Every load that can begin, oldest first, until none can.
  void Run(TimePoint now) {
    for (std::size_t i = 0; i < waiting.size();) {
      const std::size_t before = waiting.size();
      TryLoad(waiting[i], now);
      i = waiting.size() < before ? 0 : i + 1;
    }
  }
  void TryLoad(Waiting& w, TimePoint now) {
    const int model = w.model;
    if (!w.estimated && estimate_fails[static_cast<std::size_t>(model)]) {
      return Fail(w, kInvalidArgument, now);
    }
    w.estimated = true;
    if (Size(model) > kCapacity) return Fail(w, kFailedPrecondition, std::nullopt);
    std::uint64_t hard = 0;
    for (const auto& g : generations) {
      hard += !g->draining && g->model != model && pinned.contains(g->model) ? Size(g->model) : 0;
    }
    if (hard + Size(model) > kCapacity) return Fail(w, kResourceExhausted, std::nullopt);
    if (!Evict(kCapacity - Size(model))) return;
    if (load_fails[static_cast<std::size_t>(model)]) return Fail(w, kDataLoss, now);
    failures[model] = 0;
    failed.erase(model);
    generations.push_back(std::make_unique<Generation>(Generation{model, 0, now}));
    for (Request* r : w.requests) Answer(r, kOk, generations.back().get());
    waiting.erase(waiting.begin() + (&w - waiting.data()));
  }
  void Fail(Waiting& w, absl::StatusCode code, std::optional<TimePoint> remembered) {
    failed.erase(w.model);
    if (remembered) {
      const Duration wait = kBackoff * (1 << std::min(failures[w.model]++, 3));
      failed.insert_or_assign(w.model, Failure{code, *remembered + wait});
    }
    for (Request* r : w.requests) Answer(r, code, nullptr);
    waiting.erase(waiting.begin() + (&w - waiting.data()));
  }
  bool Evict(std::uint64_t limit) {
    std::vector<Generation*> idle;
    for (const auto& g : generations) {
      if (g->pins == 0 && !g->draining && !pinned.contains(g->model)) idle.push_back(g.get());
    }
    std::sort(idle.begin(), idle.end(), [&](const Generation* a, const Generation* b) {
      return std::pair(a->last_used, order.at(a->model)) <
             std::pair(b->last_used, order.at(b->model));
    });
    std::uint64_t left = used();
    std::vector<Generation*> go;
    for (Generation* g : idle) {
      if (left <= limit) break;
      left -= Size(g->model);
      go.push_back(g);
    }
    if (left > limit) return false;
    std::reverse(go.begin(), go.end());
    for (Generation* g : go) {
      if (left + Size(g->model) <= limit) {
        left += Size(g->model);  // the others do
      } else {
        Remove(g);
      }
    }
    return true;
  }
};

class RandomTest : public ManagerTest {
 protected:
  RandomTest() : ManagerTest({0, kCapacity, 0}) {
    options_.failure_backoff = kBackoff;
    options_.max_failure_backoff = kBackoff * 8;
    options_.max_cold_wait = std::chrono::hours(1000);
    for (int m = 0; m < kModels; ++m) Rescript(m, {}, {});
  }
  std::uint64_t pick(std::uint64_t n) { return random_() % n; }
  void Rescript(int model, absl::Status estimate, absl::Status load) {
    auto script = Sized(kSizes[static_cast<std::size_t>(model)]);
    script.estimate_error = std::move(estimate);
    script.load_error = std::move(load);
    loader_.Set(Name(model), std::move(script));
  }

  int rises(Tier from) const {
    const std::string text = metrics_.Text();
    const std::string name = StrCat("hearth_rises_total{from=\"", ToString(from), "\"} ");
    const std::size_t at = text.find(name);
    return at == text.npos ? 0 : std::stoi(text.substr(at + name.size()));
  }

  const unsigned seed_ = std::random_device{}();
  std::mt19937 random_{seed_};
};

// One request as the manager and the reference see it.
struct Pair {
  std::unique_ptr<Reference::Request> expected;
  Cold actual;
  Answer<LoadReport> loaded;
  bool done() const { return expected->load ? loaded.done() : actual.done(); }
  absl::Status status() const { return expected->load ? loaded.status() : actual.status(); }
};

TEST_F(RandomTest, TheManagerDoesWhatTheReferenceDoes) {
  SCOPED_TRACE(testing::Message() << "seed " << seed_);
  Reference reference;
  std::vector<Pair> pairs;
  int asked = 0;
  for (int step = 0; step < 4000; ++step) {
    clock_.Advance(milliseconds(1));
    const int model = static_cast<int>(pick(kModels));
    const auto i = static_cast<std::size_t>(model);
    const std::uint64_t what = pick(100);
    if (what < 50 && pairs.size() < 12) {
      const bool load = what >= 42;
      const Deadline deadline = load ? kNoDeadline : clock_.Now() + milliseconds(5 + pick(60));
      Pair pair;
      pair.expected.reset(new Reference::Request{asked++, deadline, load});
      if (load) {
        manager().Load(Id(Name(model)), {}, deadline, pair.loaded.callback());
      } else {
        pair.actual.ticket = manager().Acquire(Id(Name(model)), deadline, pair.actual.callback());
      }
      executor_.RunAll();
      reference.Ask(model, pair.expected.get(), load, clock_.Now());
      pairs.push_back(std::move(pair));
    } else if (what < 80 && !pairs.empty()) {
      Pair& pair = pairs[pick(pairs.size())];
      if (pair.expected->held != nullptr) {
        pair.actual.Release();
        executor_.RunAll();
        reference.Release(pair.expected.get(), clock_.Now());
      } else if (!pair.expected->answer && !pair.expected->load && pick(3) == 0) {
        manager().Cancel(pair.actual.ticket);
        executor_.RunAll();
        reference.Cancel(pair.expected.get(), clock_.Now());
      }
    } else if (what < 88) {
      manager().Unload(Id(Name(model)), [] {});
      executor_.RunAll();
      reference.Unload(model, clock_.Now());
    } else if (what < 90) {
      std::set<int> pins = reference.pinned;
      if (pins.erase(model) == 0) pins.insert(model);
      std::vector<ModelId> ids;
      for (const int m : pins) ids.push_back(Id(Name(m)));
      manager().SetHardPins(ids);
      executor_.RunAll();
      reference.SetPins(pins, clock_.Now());
    } else if (what < 94) {
      reference.load_fails[i] = pick(3) == 0;
      reference.estimate_fails[i] = pick(5) == 0;
      Rescript(model,
               reference.estimate_fails[i] ? absl::InvalidArgumentError("") : absl::OkStatus(),
               reference.load_fails[i] ? absl::DataLossError("") : absl::OkStatus());
    } else {
      Pass(milliseconds(pick(30)));
      reference.Expire(clock_.Now());
    }
    timer_.RunDue();
    executor_.RunAll();
    reference.Expire(clock_.Now());

    for (const Pair& pair : pairs) {
      ASSERT_EQ(pair.done(), pair.expected->answer.has_value()) << "step " << step;
      if (!pair.done()) continue;
      ASSERT_EQ(pair.status().code(), *pair.expected->answer) << "step " << step;
    }
    std::erase_if(pairs, [](const Pair& p) { return p.done() && p.expected->held == nullptr; });
    manager().CheckInvariants();
    ASSERT_EQ(used(), reference.used()) << "step " << step;
    std::multiset<std::string> expected, actual;
    for (const auto& g : reference.generations) {
      expected.insert(Name(g->model) + (g->draining ? " draining " : " ready ") +
                      std::to_string(g->pins));
    }
    for (const auto& w : reference.waiting) expected.insert(Name(w.model) + " queued 0");
    for (const auto& [m, failure] : reference.failed) expected.insert(Name(m) + " failed 0");
    for (const auto& row : manager().Snapshot()) {
      actual.insert(StrCat(row.id.name, " ", ToString(row.state), " ", row.pins));
    }
    ASSERT_EQ(actual, expected) << "step " << step;
  }
  for (Pair& pair : pairs) {
    if (pair.expected->held != nullptr) pair.actual.Release();
  }
}

// Tasks run one by one between the operations, loads call back into the manager, the n-th load and
// the n-th estimate fail, memory is lost on the way: whatever happens, the table and the ledger agree, and everybody is
// answered once.
TEST_F(RandomTest, TheInvariantsHoldInEveryInterleaving) {
  options_.idle_unload = milliseconds(20);
  options_.capacity.device_bytes = {60, 30, 45};
  options_.capacity.mapped_bytes = kCapacity;
  options_.rests = 3;
  SCOPED_TRACE(testing::Message() << "seed " << seed_);
  std::vector<Cold> colds;
  std::vector<Answer<LoadReport>> loads;
  int unloads = 0;
  int unloaded = 0;
  bool nested = false;
  std::function<void()> act = [&] {
    clock_.Advance(milliseconds(1));
    const std::string model = Name(static_cast<int>(pick(kModels)));
    switch (pick(11)) {
      case 0:
      case 1:
      case 2:
        colds.push_back(Acquire(model, clock_.Now() + milliseconds(2 + pick(50))));
        break;
      case 3:
        if (pick(10) == 0) manager().SetHardPins({Id(model)});
        if (pick(10) == 0) manager().SetHardPins({});
        loads.push_back(pick(2) == 0 ? Load(model, {.priority = LoadPriority::kBackground})
                                     : Load(model, {.reload = pick(2) == 0}));
        break;
      case 4:
        ++unloads;
        manager().Unload(Id(model), [&] { ++unloaded; });
        break;
      case 5:
        if (!colds.empty()) manager().Cancel(colds[pick(colds.size())].ticket);
        break;
      case 6:
        timer_.RunDue();
        break;
      case 7:
        pick(2) == 0 ? loader_.FailLoad(1, absl::InternalError("load"))
                     : loader_.FailEstimate(1, absl::InternalError("estimate"));
        break;
      case 8:
        if (pick(10) == 0) manager().Evict(Id(model), [](auto) {});
        if (pick(20) == 0) revision_ = pick(2);
        if (pick(5) == 0) {
          options_.capacity.host_bytes = kCapacity / 2 + pick(kCapacity);
          options_.capacity.device_bytes.Set(static_cast<DeviceNumber>(pick(3)), 20 + pick(60));
          options_.capacity.mapped_bytes = kCapacity / 2 + pick(kCapacity);
          options_.rests = pick(5);
          manager().Reconfigure(options_, policy_);
        }
        break;
      default:
        for (Cold& cold : colds) {
          if (cold.ok() && cold->handle && pick(4) == 0) manager().KeepAlive(cold->handle, milliseconds(pick(40)));
          if (cold.ok() && cold->handle && pick(2) == 0) cold.Release();
        }
    }
  };
  for (int m = 0; m < kModels; ++m) {
    auto script = Sized(kSizes[static_cast<std::size_t>(m)]);
    script.model.footprint.device = static_cast<DeviceNumber>(m % 3);
    script.model.footprint.device_bytes = m % 4 == 3 ? 0 : 5 + 3 * static_cast<std::uint64_t>(m);
    if (m % 2 == 0) {
      script.peak = script.model.footprint;
      script.peak->host_bytes += 10;
    }
    const auto meddle = [&] {
      if (std::exchange(nested, true)) return;
      if (pick(2) == 0) act();
      if (pick(2) == 0) (pick(3) == 0 ? background_ : executor_).RunOne();  // another load thread
      manager().CheckInvariants();
      nested = false;
    };
    if (m % 3 != 0) {  // on a device; two models have one file
      const Footprint weights{0, 0, {{{1, static_cast<std::uint64_t>(m / 2), 0, 0}, 0, 30}}};
      script.model.footprint.device_bytes = 40;
      script.peak = script.model.footprint;
      script.peak->extents = weights.extents;
      script.rest = fakes::FakeRest::Options{weights, {}, [meddle](const auto&) { meddle(); }};
    }
    script.on_load = [meddle](auto&, auto) { meddle(); };
    script.model.on_destroy = [this, meddle, footprint = script.model.footprint] {
      if (pick(100) == 0) lost_ += SumOf({.device_bytes = footprint.device_bytes / 8, .host_bytes = 1, .device = footprint.device});
      meddle();
    };
    loader_.Set(Name(m), std::move(script));
  }
  for (int step = 0; step < 20000; ++step) {
    act();
    for (std::uint64_t n = pick(4); n > 0; --n) executor_.RunOne();
    for (std::uint64_t n = pick(3); n > 0; --n) background_.RunOne();
    manager().CheckInvariants();
    std::erase_if(colds, [](Cold& cold) { return cold.done() && (!cold.ok() || !cold->handle); });
    std::erase_if(loads, [](const auto& load) { return load.done(); });
  }
  manager().Shutdown();
  RunAll();
  for (Cold& cold : colds) {
    ASSERT_TRUE(cold.done());
    if (cold.ok()) cold.Release();
  }
  RunAll();
  for (const auto& load : loads) EXPECT_TRUE(load.done());
  EXPECT_EQ(unloaded, unloads);
  EXPECT_TRUE(manager().idle());
  EXPECT_EQ(loader_.alive(), 0);
  EXPECT_EQ(loader_.rests(), 0);
  EXPECT_EQ(manager().usage().used(), Bytes{});
  EXPECT_GT(rises(Tier::kMapped) + rises(Tier::kHost), 0);
}

}  // namespace
}  // namespace hearth
