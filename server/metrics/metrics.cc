#include "server/metrics/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <array>
#include <atomic>
#include <map>
#include <sstream>
#include <tuple>
#include <unordered_map>

#include "server/base/check.h"
#include "server/base/mutex.h"
#include "server/metrics/process_stats.h"
#include "server/metrics/triton_names.h"

namespace hearth {
namespace {

using Labels = std::map<std::string, std::string>;
using Counters = prometheus::Family<prometheus::Counter>;
using Gauges = prometheus::Family<prometheus::Gauge>;
using Histograms = prometheus::Family<prometheus::Histogram>;

constexpr std::size_t kCodes = 17;
constexpr std::array<std::string_view, kCodes> kCodeNames = {
    "OK",        "CANCELLED",      "UNKNOWN",           "INVALID_ARGUMENT",   "DEADLINE_EXCEEDED",
    "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
    "ABORTED",   "OUT_OF_RANGE",   "UNIMPLEMENTED",     "INTERNAL",           "UNAVAILABLE",
    "DATA_LOSS", "UNAUTHENTICATED"};

constexpr std::array kEvictionReasons = {EvictionReason::kCapacity, EvictionReason::kUnload,
                                         EvictionReason::kReload, EvictionReason::kShutdown,
                                         EvictionReason::kDataLoss, EvictionReason::kEvict,
                                         EvictionReason::kIdle,     EvictionReason::kReplaced};

// Who comes back sooner than this need not have gone.
constexpr Duration kThrash = std::chrono::minutes(1);

constexpr std::array kLoadPriorities = {LoadPriority::kNormal, LoadPriority::kBackground};
constexpr std::array kLoadDrops = {LoadDrop::kAbandoned, LoadDrop::kNoRoom};

// Requests: a cache hit on a small model takes tens of microseconds, a cold one minutes.
const prometheus::Histogram::BucketBoundaries& RequestBuckets() {
  static const prometheus::Histogram::BucketBoundaries kBuckets = {
      0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
      0.1,    0.25,    0.5,    1,     2.5,    5,     10,   30,    60};
  return kBuckets;
}

const prometheus::Histogram::BucketBoundaries& LoadBuckets() {
  static const prometheus::Histogram::BucketBoundaries kBuckets = {
      0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
      0.5,    1,      2.5,   5,      10,    30,   60,    120,  300};
  return kBuckets;
}

// From what comes and goes at once to what stays for a week.
const prometheus::Histogram::BucketBoundaries& StayBuckets() {
  static const prometheus::Histogram::BucketBoundaries kBuckets = {
      1, 5, 15, 60, 300, 900, 3600, 3 * 3600, 12 * 3600, 24 * 3600, 7 * 24 * 3600};
  return kBuckets;
}

Counters& CounterFamily(prometheus::Registry& registry, const char* name, const char* help) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(registry);
}
Gauges& GaugeFamily(prometheus::Registry& registry, const char* name, const char* help) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(registry);
}
Histograms& HistogramFamily(prometheus::Registry& registry, const char* name, const char* help) {
  return prometheus::BuildHistogram().Name(name).Help(help).Register(registry);
}

Labels With(Labels labels, const char* key, std::string_view value) {
  labels[key] = std::string(value);
  return labels;
}

// One counter per status code, made when that code first happens: most models never see most codes.
// Thread-safe; after the first time of a code, lock-free.
class CodeCounters {
 public:
  CodeCounters(Counters& family, Labels labels) : family_(family), labels_(std::move(labels)) {}

  prometheus::Counter& operator[](absl::StatusCode code) {
    auto& slot = by_code_[Index(code)];
    prometheus::Counter* counter = slot.load(std::memory_order_acquire);
    if (counter == nullptr) [[unlikely]] {
      // The family gives the same counter to everybody who asks with the same labels.
      counter = &family_.Add(With(labels_, "code", CodeName(code)));
      slot.store(counter, std::memory_order_release);
    }
    return *counter;
  }

 private:
  static std::size_t Index(absl::StatusCode code) {
    const auto index = static_cast<std::size_t>(code);
    return index < kCodes ? index : static_cast<std::size_t>(absl::StatusCode::kUnknown);
  }

  Counters& family_;
  const Labels labels_;
  std::array<std::atomic<prometheus::Counter*>, kCodes> by_code_{};
};

// Samples into families, in the order of their names' first appearance.
void AppendSamples(const std::vector<Metrics::Sample>& samples,
                   std::vector<prometheus::MetricFamily>& families) {
  std::unordered_map<std::string, std::size_t> by_name;
  for (const Metrics::Sample& sample : samples) {
    const auto [it, added] = by_name.try_emplace(sample.name, families.size());
    if (added) {
      prometheus::MetricFamily& family = families.emplace_back();
      family.name = sample.name;
      family.help = sample.help;
      family.type =
          sample.counter ? prometheus::MetricType::Counter : prometheus::MetricType::Gauge;
    }
    prometheus::MetricFamily& family = families[it->second];
    prometheus::ClientMetric& metric = family.metric.emplace_back();
    for (const auto& [name, value] : sample.labels) metric.label.push_back({name, value});
    if (family.type == prometheus::MetricType::Counter) {
      metric.counter.value = sample.value;
    } else {
      metric.gauge.value = sample.value;
    }
  }
}

}  // namespace

std::string_view ToString(CacheResult result) {
  constexpr std::array<std::string_view, 3> kNames = {"hit", "wait", "load"};
  return kNames[static_cast<std::size_t>(result)];
}

std::string_view ToString(EvictionReason reason) {
  constexpr std::array<std::string_view, kEvictionReasons.size()> kNames = {
      "capacity", "unload", "reload", "shutdown", "data_loss", "evict", "idle", "replaced"};
  return kNames[static_cast<std::size_t>(reason)];
}

std::string_view ToString(LoadPriority priority) {
  constexpr std::array<std::string_view, kLoadPriorities.size()> kNames = {"normal", "background"};
  return kNames[static_cast<std::size_t>(priority)];
}

std::string_view ToString(LoadDrop drop) {
  constexpr std::array<std::string_view, kLoadDrops.size()> kNames = {"abandoned", "no_room"};
  return kNames[static_cast<std::size_t>(drop)];
}

std::string_view CodeName(absl::StatusCode code) {
  const auto index = static_cast<std::size_t>(code);
  return index < kCodes ? kCodeNames[index] : "UNKNOWN";
}

struct ModelMetrics::Impl {
  CodeCounters requests;
  prometheus::Counter& succeeded;
  prometheus::Counter& inferences;
  prometheus::Counter& runs;
  prometheus::Counter& cached;
  prometheus::Histogram& request_seconds;
  prometheus::Histogram& queue_seconds;
  prometheus::Histogram& infer_seconds;
  prometheus::Counter& hits;
  prometheus::Counter& waits;
  prometheus::Counter& loads;
  prometheus::Counter& refusals;
  std::unique_ptr<TritonModelMetrics> triton;  // null unless asked for
  StatisticsCounter statistics{};
};

ModelMetrics::ModelMetrics(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ModelMetrics::~ModelMetrics() = default;

void ModelMetrics::RequestSucceeded(const RequestTimes& times, std::int64_t rows, WallTime when,
                                    std::optional<std::int64_t> run_rows) {
  const std::int64_t ran = run_rows.value_or(rows);
  impl_->statistics.Succeeded(times, rows, ran, when);
  if (ran != 0) impl_->runs.Increment();
  impl_->succeeded.Increment();
  impl_->inferences.Increment(static_cast<double>(rows));
  impl_->request_seconds.Observe(ToSeconds(times.total));
  impl_->queue_seconds.Observe(ToSeconds(times.queue));
  impl_->infer_seconds.Observe(ToSeconds(times.infer));
  if (impl_->triton) impl_->triton->RequestSucceeded(times, rows, ran != 0);
}

void ModelMetrics::RequestCached(Duration total, Duration looked, std::int64_t rows, WallTime when) {
  impl_->statistics.Cached(total, looked, when);
  impl_->succeeded.Increment();
  impl_->cached.Increment();
  impl_->inferences.Increment(static_cast<double>(rows));
  impl_->request_seconds.Observe(ToSeconds(total));
  if (impl_->triton) impl_->triton->RequestCached(total, looked);
}

void ModelMetrics::ResponseNotCached(Duration looked) {
  impl_->statistics.NotCached(looked);
  if (impl_->triton) impl_->triton->ResponseNotCached(looked);
}

void ModelMetrics::RequestFailed(absl::StatusCode code, Duration total) {
  HEARTH_CHECK(code != absl::StatusCode::kOk);
  impl_->statistics.Failed(total);
  impl_->requests[code].Increment();
  impl_->request_seconds.Observe(ToSeconds(total));
  if (impl_->triton) impl_->triton->RequestFailed(code);
}

void ModelMetrics::CacheLookup(CacheResult result) {
  switch (result) {
    case CacheResult::kHit:
      return impl_->hits.Increment();
    case CacheResult::kWait:
      return impl_->waits.Increment();
    case CacheResult::kLoad:
      return impl_->loads.Increment();
  }
}

void ModelMetrics::CacheRefused() { impl_->refusals.Increment(); }

ModelMetrics::Totals ModelMetrics::totals() const {
  const ModelStatistics sums = statistics();
  return {sums.success.count, sums.fail.count, ToSeconds(sums.success.time), ToSeconds(sums.infer.time)};
}

ModelStatistics ModelMetrics::statistics() const { return impl_->statistics.Get(); }

struct Metrics::Impl {
  explicit Impl(const Options& options);

  std::unique_ptr<ModelMetrics> NewModel(std::string_view model, std::int64_t version);

  prometheus::Registry registry;
  Counters& requests;
  Histograms& request_seconds;
  Histograms& queue_seconds;
  Histograms& infer_seconds;
  Counters& inferences;
  Counters& runs;
  Counters& cached;
  Counters& hits;
  Counters& misses;
  Counters& refusals;
  Counters& loads;
  prometheus::Histogram& load_seconds;
  Histograms& phase_seconds;
  Counters& rises;
  prometheus::Histogram& resident_seconds;
  prometheus::Histogram& idle_seconds;
  prometheus::Histogram& away_seconds;
  prometheus::Counter& thrash;
  Gauges& reload_ok;
  Gauges& reload_time;
  CodeCounters refused;
  std::array<prometheus::Histogram*, kLoadPriorities.size()> load_queue_seconds{};
  prometheus::Counter& promotions;
  std::array<prometheus::Counter*, kLoadDrops.size()> drops{};
  std::array<prometheus::Counter*, kEvictionReasons.size()> evictions{};
  std::unique_ptr<TritonMetrics> triton;  // null unless asked for

  Mutex mu;
  std::map<std::tuple<std::string, std::int64_t>, std::unique_ptr<ModelMetrics>> models
      ABSL_GUARDED_BY(mu);
  std::vector<std::function<std::vector<Sample>()>> collectors ABSL_GUARDED_BY(mu);
};

Metrics::Impl::Impl(const Options& options)
    : requests(CounterFamily(registry, "hearth_requests_total",
                             "Inference requests answered, by gRPC status code.")),
      request_seconds(HistogramFamily(registry, "hearth_request_duration_seconds",
                                      "From the first byte of a request to its answer.")),
      queue_seconds(HistogramFamily(
          registry, "hearth_request_queue_seconds",
          "Waiting for the model to load and for a compute thread, of successful requests.")),
      infer_seconds(HistogramFamily(registry, "hearth_request_infer_seconds",
                                    "Running the model, of successful requests.")),
      inferences(CounterFamily(registry, "hearth_inferences_total",
                               "Inferences of successful requests; a batch of n counts n.")),
      runs(CounterFamily(registry, "hearth_runs_total",
                         "Runs of the model that answered a request; with dynamic batching one answers several.")),
      cached(CounterFamily(registry, "hearth_cached_responses_total",
                           "Successful requests whose answer was kept from the same inputs before.")),
      hits(CounterFamily(registry, "hearth_cache_hits_total",
                         "Requests that found their model resident.")),
      misses(CounterFamily(registry, "hearth_cache_misses_total",
                           "Requests that joined a load under way (wait) or started one (load).")),
      refusals(CounterFamily(registry, "hearth_cache_refusals_total",
                             "Requests refused because the model's load failed a moment ago or hangs, or nothing can be loaded.")),
      loads(
          CounterFamily(registry, "hearth_loads_total", "Loads that ended, by gRPC status code.")),
      load_seconds(
          HistogramFamily(registry, "hearth_load_duration_seconds", "Duration of successful loads.")
              .Add({}, LoadBuckets())),
      phase_seconds(HistogramFamily(registry, "hearth_load_phase_seconds",
                                    "Duration of each phase of successful loads.")),
      rises(CounterFamily(registry, "hearth_rises_total",
                          "Successful loads, by where they found the model: cold, mapped or host.")),
      resident_seconds(HistogramFamily(registry, "hearth_eviction_resident_seconds",
                                       "How long models had been loaded that made room for others.")
                           .Add({}, StayBuckets())),
      idle_seconds(HistogramFamily(registry, "hearth_eviction_idle_seconds",
                                   "How long models had been idle that made room for others.")
                       .Add({}, StayBuckets())),
      away_seconds(HistogramFamily(registry, "hearth_eviction_away_seconds",
                                   "How long models had been away that made room and were loaded again.")
                       .Add({}, StayBuckets())),
      thrash(CounterFamily(registry, "hearth_thrash_total",
                           "Models loaded again within a minute of having made room for others.")
                 .Add({})),
      reload_ok(GaugeFamily(registry, "hearth_config_last_reload_successful",
                            "1 if the configuration was good when last read, else 0.")),
      reload_time(GaugeFamily(registry, "hearth_config_last_reload_success_timestamp_seconds",
                              "When a good configuration was last read, since the epoch.")),
      refused(CounterFamily(registry, "hearth_requests_refused_total",
                            "Requests refused before a model was known, by gRPC status code."),
              {}),
      promotions(CounterFamily(registry, "hearth_load_promotions_total",
                               "Loads in the background that somebody began to wait for before they had begun.")
                     .Add({})) {
  GaugeFamily(registry, "hearth_build_info", "What is running. Always 1.")
      .Add({{"version", options.version},
            {"commit", options.commit},
            {"torch", options.torch},
            {"grpc", options.grpc}})
      .Set(1);
  Histograms& queued = HistogramFamily(registry, "hearth_load_queue_seconds",
                                       "From the wish for a model to the thread that loads it.");
  for (const LoadPriority priority : kLoadPriorities) {
    load_queue_seconds[static_cast<std::size_t>(priority)] =
        &queued.Add({{"priority", std::string(ToString(priority))}}, LoadBuckets());
  }
  for (const std::string_view from : {"cold", "mapped", "host"}) rises.Add({{"from", std::string(from)}});
  Counters& dropped =
      CounterFamily(registry, "hearth_loads_dropped_total", "Loads that ended before they began, by reason.");
  for (const LoadDrop drop : kLoadDrops) {
    drops[static_cast<std::size_t>(drop)] = &dropped.Add({{"reason", std::string(ToString(drop))}});
  }
  Counters& family =
      CounterFamily(registry, "hearth_evictions_total", "Models that left the cache, by reason.");
  for (const EvictionReason reason : kEvictionReasons) {
    evictions[static_cast<std::size_t>(reason)] =
        &family.Add({{"reason", std::string(ToString(reason))}});
  }
  if (options.triton_names) triton = std::make_unique<TritonMetrics>(registry);
}

std::unique_ptr<ModelMetrics> Metrics::Impl::NewModel(std::string_view model,
                                                      std::int64_t version) {
  const Labels labels = {{"model", std::string(model)}, {"version", std::to_string(version)}};
  std::unique_ptr<ModelMetrics::Impl> impl(new ModelMetrics::Impl{
      .requests = CodeCounters(requests, labels),
      .succeeded = requests.Add(With(labels, "code", CodeName(absl::StatusCode::kOk))),
      .inferences = inferences.Add(labels),
      .runs = runs.Add(labels),
      .cached = cached.Add(labels),
      .request_seconds = request_seconds.Add(labels, RequestBuckets()),
      .queue_seconds = queue_seconds.Add(labels, RequestBuckets()),
      .infer_seconds = infer_seconds.Add(labels, RequestBuckets()),
      .hits = hits.Add(labels),
      .waits = misses.Add(With(labels, "kind", ToString(CacheResult::kWait))),
      .loads = misses.Add(With(labels, "kind", ToString(CacheResult::kLoad))),
      .refusals = refusals.Add(labels),
      .triton = triton ? triton->Model(labels) : nullptr,
  });
  return std::unique_ptr<ModelMetrics>(new ModelMetrics(std::move(impl)));
}

Metrics::Metrics(Options options) : impl_(std::make_unique<Impl>(options)) {}
Metrics::~Metrics() = default;

ModelMetrics& Metrics::Model(std::string_view model, std::int64_t version) {
  MutexLock lock(impl_->mu);
  auto& slot = impl_->models[{std::string(model), version}];
  if (slot == nullptr) slot = impl_->NewModel(model, version);
  return *slot;
}

const ModelMetrics* Metrics::Find(std::string_view model, std::int64_t version) const {
  MutexLock lock(impl_->mu);
  const auto at = impl_->models.find({std::string(model), version});
  return at == impl_->models.end() ? nullptr : at->second.get();
}

std::vector<std::pair<std::string, std::int64_t>> Metrics::Known() const {
  std::vector<std::pair<std::string, std::int64_t>> known;
  MutexLock lock(impl_->mu);
  for (const auto& [id, metrics] : impl_->models) known.emplace_back(std::get<0>(id), std::get<1>(id));
  return known;
}

void Metrics::RequestRefused(absl::StatusCode code) { impl_->refused[code].Increment(); }

void Metrics::LoadFinished(std::string_view model, absl::StatusCode result, Duration total,
                           const std::vector<LoadPhaseTime>& phases, std::string_view from) {
  impl_->loads.Add({{"model", std::string(model)}, {"code", std::string(CodeName(result))}})
      .Increment();
  if (result != absl::StatusCode::kOk) return;
  impl_->load_seconds.Observe(ToSeconds(total));
  impl_->rises.Add({{"from", std::string(from)}}).Increment();
  for (const LoadPhaseTime& phase : phases) {
    impl_->phase_seconds.Add({{"phase", std::string(phase.phase)}}, LoadBuckets())
        .Observe(ToSeconds(phase.wall));
  }
  if (impl_->triton) impl_->triton->LoadSucceeded(model, total);
}

void Metrics::LoadTaken(LoadPriority priority, Duration waited) {
  impl_->load_queue_seconds[static_cast<std::size_t>(priority)]->Observe(ToSeconds(waited));
}

void Metrics::LoadPromoted() { impl_->promotions.Increment(); }

void Metrics::LoadDropped(LoadDrop drop) { impl_->drops[static_cast<std::size_t>(drop)]->Increment(); }

void Metrics::Evicted(EvictionReason reason) {
  impl_->evictions[static_cast<std::size_t>(reason)]->Increment();
}

void Metrics::MadeRoom(Duration resident, Duration idle) {
  impl_->resident_seconds.Observe(ToSeconds(resident));
  impl_->idle_seconds.Observe(ToSeconds(idle));
}

void Metrics::CameBack(Duration away) {
  impl_->away_seconds.Observe(ToSeconds(away));
  if (away < kThrash) impl_->thrash.Increment();
}

void Metrics::ConfigReloaded(bool successful, WallTime when) {
  impl_->reload_ok.Add({}).Set(successful ? 1 : 0);
  if (successful) {
    impl_->reload_time.Add({}).Set(std::chrono::duration<double>(when.time_since_epoch()).count());
  }
}

void Metrics::AddCollector(std::function<std::vector<Sample>()> collect) {
  MutexLock lock(impl_->mu);
  impl_->collectors.push_back(std::move(collect));
}

std::string Metrics::Text() const {
  std::vector<std::function<std::vector<Sample>()>> collectors;
  {
    MutexLock lock(impl_->mu);
    collectors = impl_->collectors;
  }
  std::vector<Sample> samples = ReadProcessStats();
  for (const auto& collect : collectors) {
    for (Sample& sample : collect()) samples.push_back(std::move(sample));
  }
  std::vector<prometheus::MetricFamily> families = impl_->registry.Collect();
  AppendSamples(samples, families);
  std::ostringstream out;
  prometheus::TextSerializer().Serialize(out, families);
  return std::move(out).str();
}

}  // namespace hearth
