#include "server/metrics/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <charconv>
#include <optional>
#include <sstream>
#include <thread>

namespace hearth {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;
using ::testing::Not;

// The value of the line that starts with `series`, exactly as exposed.
std::optional<double> Value(const Metrics& metrics, const std::string& series) {
  std::istringstream text(metrics.Text());
  for (std::string line; std::getline(text, line);) {
    if (line.starts_with(series + " ")) return std::stod(line.substr(series.size() + 1));
  }
  return std::nullopt;
}

TEST(Metrics, CountsASuccessInEveryFamilyThatMeansIt) {
  Metrics metrics({});
  metrics.Model("vad", 3).RequestSucceeded(
      {.total = milliseconds(30), .queue = milliseconds(4), .infer = milliseconds(20)}, 8);
  EXPECT_EQ(Value(metrics, R"(hearth_requests_total{code="OK",model="vad",version="3"})"), 1);
  EXPECT_EQ(Value(metrics, R"(hearth_inferences_total{model="vad",version="3"})"), 8);
  EXPECT_EQ(Value(metrics, R"(hearth_request_duration_seconds_count{model="vad",version="3"})"), 1);
  EXPECT_DOUBLE_EQ(
      *Value(metrics, R"(hearth_request_duration_seconds_sum{model="vad",version="3"})"), 0.03);
  EXPECT_DOUBLE_EQ(*Value(metrics, R"(hearth_request_queue_seconds_sum{model="vad",version="3"})"),
                   0.004);
  EXPECT_DOUBLE_EQ(*Value(metrics, R"(hearth_request_infer_seconds_sum{model="vad",version="3"})"),
                   0.02);
}

TEST(Metrics, PutsADurationIntoTheBucketsThatHoldIt) {
  Metrics metrics({});
  metrics.Model("m", 1).RequestSucceeded({.total = milliseconds(30)}, 1);
  const std::string bucket = R"(hearth_request_duration_seconds_bucket{model="m",version="1",le=")";
  EXPECT_EQ(Value(metrics, bucket + "0.025\"}"), 0);
  EXPECT_EQ(Value(metrics, bucket + "0.05\"}"), 1);
  EXPECT_EQ(Value(metrics, bucket + "+Inf\"}"), 1);
}

TEST(Metrics, CountsFailuresByCodeNameAndModel) {
  Metrics metrics({});
  ModelMetrics& model = metrics.Model("m", 1);
  model.RequestFailed(absl::StatusCode::kInvalidArgument, milliseconds(1));
  model.RequestFailed(absl::StatusCode::kInvalidArgument, milliseconds(1));
  model.RequestFailed(absl::StatusCode::kUnauthenticated, milliseconds(1));
  metrics.Model("m", 2).RequestFailed(absl::StatusCode::kInvalidArgument, milliseconds(1));
  EXPECT_EQ(
      Value(metrics, R"(hearth_requests_total{code="INVALID_ARGUMENT",model="m",version="1"})"), 2);
  EXPECT_EQ(
      Value(metrics, R"(hearth_requests_total{code="UNAUTHENTICATED",model="m",version="1"})"), 1);
  EXPECT_EQ(Value(metrics, R"(hearth_requests_total{code="OK",model="m",version="1"})"), 0);
  EXPECT_EQ(model.totals().failed, 3u);
}

TEST(Metrics, TotalsTakeOnlySuccessesForSeconds) {
  Metrics metrics({});
  ModelMetrics& model = metrics.Model("m", 1);
  model.RequestSucceeded({.total = milliseconds(500), .infer = milliseconds(250)}, 1);
  model.RequestFailed(absl::StatusCode::kInternal, std::chrono::seconds(9));
  const auto totals = model.totals();
  EXPECT_EQ(totals.succeeded, 1u);
  EXPECT_EQ(totals.failed, 1u);
  EXPECT_DOUBLE_EQ(totals.seconds, 0.5);
  EXPECT_DOUBLE_EQ(totals.infer_seconds, 0.25);
}

TEST(Metrics, StatisticsAddUpEachPartOfEachRequest) {
  Metrics metrics({});
  ModelMetrics& model = metrics.Model("m", 1);
  const WallTime noon{std::chrono::hours(12)};
  const RequestTimes times{.total = milliseconds(100),
                           .queue = milliseconds(10),
                           .input = milliseconds(20),
                           .infer = milliseconds(30),
                           .output = milliseconds(5)};
  model.RequestSucceeded(times, 4, noon);
  model.RequestSucceeded(times, 1, noon - std::chrono::hours(1));  // answers overtake each other
  model.RequestFailed(absl::StatusCode::kInternal, milliseconds(7));
  const ModelStatistics sums = model.statistics();
  const auto expect = [](const ModelStatistics::Sum& sum, std::uint64_t count, milliseconds time) {
    EXPECT_EQ(sum.count, count);
    EXPECT_EQ(sum.time, time);
  };
  expect(sums.success, 2, milliseconds(200));
  expect(sums.fail, 1, milliseconds(7));
  expect(sums.queue, 2, milliseconds(20));
  expect(sums.input, 2, milliseconds(40));
  expect(sums.infer, 2, milliseconds(60));
  expect(sums.output, 2, milliseconds(10));
  EXPECT_EQ(sums.inferences, 5u);
  EXPECT_EQ(sums.executions, 2u);
  EXPECT_EQ(sums.last_inference, noon);
  ASSERT_EQ(sums.by_batch_size.size(), 2u);
  expect(sums.by_batch_size.at(4).infer, 1, milliseconds(30));
  EXPECT_EQ(metrics.Find("m", 1), &model);
  EXPECT_EQ(metrics.Find("m", 2), nullptr);
  EXPECT_EQ(metrics.Known().size(), 1u);
}

TEST(Metrics, SizesOfBatchesThatClientsMakeUpHaveAnEnd) {
  Metrics metrics({});
  ModelMetrics& model = metrics.Model("m", 1);
  for (std::int64_t size = 1; size <= 10000; ++size) model.RequestSucceeded({}, size);
  EXPECT_EQ(model.statistics().success.count, 10000u);
  EXPECT_LE(model.statistics().by_batch_size.size(), 256u);
}

TEST(Metrics, GivesTheSameModelTheSameCountersFromEveryThread) {
  Metrics metrics({});
  ModelMetrics* const first = &metrics.Model("m", 1);
  EXPECT_NE(first, &metrics.Model("m", 2));
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int n = 0; n < 1000; ++n) {
        metrics.Model("m", 1).RequestFailed(absl::StatusCode::kAborted, {});
        metrics.Model("m", 1).RequestSucceeded({}, 2);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(&metrics.Model("m", 1), first);
  EXPECT_EQ(first->totals().succeeded, 4000u);
  EXPECT_EQ(first->totals().failed, 4000u);
  EXPECT_EQ(Value(metrics, R"(hearth_inferences_total{model="m",version="1"})"), 8000);
}

TEST(Metrics, TellsHitsWaitsAndLoadsApart) {
  Metrics metrics({});
  ModelMetrics& model = metrics.Model("m", 1);
  for (int i = 0; i < 3; ++i) model.CacheLookup(CacheResult::kHit);
  for (int i = 0; i < 2; ++i) model.CacheLookup(CacheResult::kWait);
  model.CacheLookup(CacheResult::kLoad);
  EXPECT_EQ(Value(metrics, R"(hearth_cache_hits_total{model="m",version="1"})"), 3);
  EXPECT_EQ(Value(metrics, R"(hearth_cache_misses_total{kind="wait",model="m",version="1"})"), 2);
  EXPECT_EQ(Value(metrics, R"(hearth_cache_misses_total{kind="load",model="m",version="1"})"), 1);
}

TEST(Metrics, CountsRefusalsLoadsPhasesAndEvictions) {
  Metrics metrics({});
  metrics.RequestRefused(absl::StatusCode::kNotFound);
  metrics.LoadFinished("m", absl::StatusCode::kOk, milliseconds(9),
                       {{"map", milliseconds(1)}, {"warm_up", milliseconds(8)}});
  metrics.LoadFinished("m", absl::StatusCode::kInternal, milliseconds(500), {});
  metrics.Evicted(EvictionReason::kUnload);
  EXPECT_EQ(Value(metrics, R"(hearth_requests_refused_total{code="NOT_FOUND"})"), 1);
  EXPECT_EQ(Value(metrics, R"(hearth_loads_total{code="OK",model="m"})"), 1);
  EXPECT_EQ(Value(metrics, R"(hearth_loads_total{code="INTERNAL",model="m"})"), 1);
  EXPECT_EQ(Value(metrics, "hearth_load_duration_seconds_count"), 1);
  EXPECT_DOUBLE_EQ(*Value(metrics, R"(hearth_load_phase_seconds_sum{phase="warm_up"})"), 0.008);
  EXPECT_EQ(Value(metrics, R"(hearth_evictions_total{reason="unload"})"), 1);
  EXPECT_EQ(Value(metrics, R"(hearth_evictions_total{reason="capacity"})"), 0);
  EXPECT_EQ(Value(metrics, R"(hearth_evictions_total{reason="data_loss"})"), 0);
}

TEST(Metrics, TellsHowLongModelsHadBeenThereThatMadeRoomAndWhoCameBackTooSoon) {
  Metrics metrics({});
  EXPECT_EQ(Value(metrics, "hearth_thrash_total"), 0);
  metrics.MadeRoom(std::chrono::hours(2), std::chrono::minutes(40));
  EXPECT_EQ(Value(metrics, "hearth_eviction_resident_seconds_sum"), 7200);
  EXPECT_EQ(Value(metrics, R"(hearth_eviction_idle_seconds_bucket{le="900"})"), 0);
  EXPECT_EQ(Value(metrics, R"(hearth_eviction_idle_seconds_bucket{le="3600"})"), 1);
  metrics.CameBack(std::chrono::seconds(59));
  metrics.CameBack(std::chrono::seconds(60));
  EXPECT_EQ(Value(metrics, "hearth_eviction_away_seconds_count"), 2);
  EXPECT_EQ(Value(metrics, "hearth_thrash_total"), 1);
  metrics.Model("m", 1).CacheRefused();
  EXPECT_EQ(Value(metrics, R"(hearth_cache_refusals_total{model="m",version="1"})"), 1);
}

TEST(Metrics, SaysWhatIsRunning) {
  Metrics metrics({.version = "1.2.3", .commit = "abc", .torch = "2.13.0", .grpc = "1.51.1"});
  EXPECT_EQ(
      Value(metrics,
            R"(hearth_build_info{commit="abc",grpc="1.51.1",torch="2.13.0",version="1.2.3"})"),
      1);
}

TEST(Metrics, ABadReloadKeepsTheTimeOfTheLastGoodOne) {
  Metrics metrics({});
  EXPECT_THAT(metrics.Text(), Not(HasSubstr("hearth_config_last_reload")));
  metrics.ConfigReloaded(true, WallTime(std::chrono::seconds(1000)));
  metrics.ConfigReloaded(false, WallTime(std::chrono::seconds(2000)));
  EXPECT_EQ(Value(metrics, "hearth_config_last_reload_successful"), 0);
  EXPECT_EQ(Value(metrics, "hearth_config_last_reload_success_timestamp_seconds"), 1000);
}

TEST(Metrics, MergesCollectedSamplesOfOneNameIntoOneFamily) {
  Metrics metrics({});
  metrics.AddCollector([] {
    return std::vector<Metrics::Sample>{
        {"hearth_resident_bytes", "Bytes.", {{"dimension", "host"}}, 10, false},
        {"hearth_reads_total", "Reads.", {}, 3, true},
    };
  });
  metrics.AddCollector([] {
    return std::vector<Metrics::Sample>{
        {"hearth_resident_bytes", "Bytes.", {{"dimension", "mapped"}}, 20, false}};
  });
  const std::string text = metrics.Text();
  const auto type = text.find("# TYPE hearth_resident_bytes gauge\n");
  ASSERT_NE(type, std::string::npos);
  EXPECT_EQ(text.find("# TYPE hearth_resident_bytes", type + 1), std::string::npos);
  EXPECT_THAT(text, HasSubstr("# TYPE hearth_reads_total counter\n"));
  EXPECT_EQ(Value(metrics, R"(hearth_resident_bytes{dimension="host"})"), 10);
  EXPECT_EQ(Value(metrics, R"(hearth_resident_bytes{dimension="mapped"})"), 20);
  EXPECT_EQ(Value(metrics, "hearth_reads_total"), 3);
}

TEST(Metrics, EscapesLabelValues) {
  Metrics metrics({.version = "a\"b\nc\\d"});
  EXPECT_THAT(metrics.Text(), HasSubstr(R"(version="a\"b\nc\\d")"));
}

TEST(Metrics, DescribesThisProcess) {
  std::thread([] {}).join();  // a sanitizer may start a thread of its own beside the first
  Metrics metrics({});
  EXPECT_GT(*Value(metrics, "process_resident_memory_bytes"), 1 << 20);
  EXPECT_GT(*Value(metrics, "process_virtual_memory_bytes"),
            *Value(metrics, "process_resident_memory_bytes"));
  EXPECT_GE(*Value(metrics, "process_open_fds"), 1);
  EXPECT_GT(*Value(metrics, "process_max_fds"), *Value(metrics, "process_open_fds"));
  EXPECT_GE(*Value(metrics, "process_cpu_seconds_total"), 0);
  const double threads = *Value(metrics, "process_threads");
  const double now =
      std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  EXPECT_LE(*Value(metrics, "process_start_time_seconds"), now + 2);
  EXPECT_GT(*Value(metrics, "process_start_time_seconds"), now - 3600);
  double during = 0;
  std::thread([&] { during = *Value(metrics, "process_threads"); }).join();
  EXPECT_EQ(during, threads + 1);
}

TEST(Metrics, GivesTritonsNamesOnlyWhenAskedTo) {
  Metrics plain({});
  plain.Model("m", 1).RequestSucceeded({}, 1);
  plain.LoadFinished("m", absl::StatusCode::kOk, {}, {});
  EXPECT_THAT(plain.Text(), Not(HasSubstr("nv_")));

  Metrics metrics({.triton_names = true});
  ModelMetrics& model = metrics.Model("m", 1);
  model.RequestSucceeded({.total = milliseconds(6),
                          .queue = milliseconds(1),
                          .input = milliseconds(1),
                          .infer = milliseconds(2),
                          .output = milliseconds(1)},
                         4);
  model.RequestFailed(absl::StatusCode::kCancelled, {});
  model.RequestFailed(absl::StatusCode::kUnavailable, {});
  model.RequestFailed(absl::StatusCode::kInternal, {});
  model.RequestFailed(absl::StatusCode::kInvalidArgument, {});
  metrics.LoadFinished("m", absl::StatusCode::kOk, milliseconds(1500), {});
  const std::string labels = R"({model="m",version="1"})";
  EXPECT_EQ(Value(metrics, "nv_inference_request_success" + labels), 1);
  EXPECT_EQ(Value(metrics, "nv_inference_count" + labels), 4);
  EXPECT_EQ(Value(metrics, "nv_inference_exec_count" + labels), 1);
  EXPECT_EQ(Value(metrics, "nv_inference_request_duration_us" + labels), 6000);
  EXPECT_EQ(Value(metrics, "nv_inference_queue_duration_us" + labels), 1000);
  EXPECT_EQ(Value(metrics, "nv_inference_compute_input_duration_us" + labels), 1000);
  EXPECT_EQ(Value(metrics, "nv_inference_compute_infer_duration_us" + labels), 2000);
  EXPECT_EQ(Value(metrics, "nv_inference_compute_output_duration_us" + labels), 1000);
  EXPECT_EQ(Value(metrics, R"(nv_model_load_duration_secs{model="m"})"), 1.5);
  for (const char* reason : {"REJECTED", "CANCELED", "BACKEND", "OTHER"}) {
    EXPECT_EQ(Value(metrics, std::string(R"(nv_inference_request_failure{model="m",reason=")") +
                                 reason + R"(",version="1"})"),
              1)
        << reason;
  }
}

}  // namespace
}  // namespace hearth
