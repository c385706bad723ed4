#include "tests/bench/sim_trace.h"

#include <algorithm>
#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <numeric>
#include <random>
#include <utility>

#include "server/base/strings.h"

namespace hearth::bench {
namespace {

constexpr std::size_t kModels = 240;
constexpr std::size_t kMostModels = 1'000'000;
constexpr double kDay = 24 * 3600;
constexpr double kReadBytesPerSecond = 1.7e9;

class MadeUp {
 public:
  explicit MadeUp(std::uint64_t seed) : random_(seed) {
    trace_.models.resize(kModels);
    std::vector<int> rank(kModels);
    std::iota(rank.begin(), rank.end(), 1);
    std::shuffle(rank.begin(), rank.end(), random_);
    for (std::size_t i = 0; i < kModels; ++i) {
      SimModel& model = trace_.models[i];
      model.bytes = static_cast<std::uint64_t>(8e6 * std::pow(9e9 / 8e6, Uniform(0, 1)));
      model.load_seconds = static_cast<double>(model.bytes) / kReadBytesPerSecond + 0.01;
      if (Uniform(0, 1) < 0.25) model.load_seconds += Uniform(1, 8);
      const double per_day = 8000 / std::pow(rank[i], 0.9);
      if (i % 3 == 0) AtRandom(model, per_day);
      if (i % 3 == 1) InBursts(model, per_day);
      if (i % 3 == 2) ByTimetable(model);
      std::sort(model.uses.begin(), model.uses.end());
      for (const double at : model.uses) trace_.uses.push_back({at, i});
    }
    std::sort(trace_.uses.begin(), trace_.uses.end());
  }

  Trace Take() { return std::move(trace_); }

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
  Trace trace_;
};

}  // namespace

std::uint64_t Trace::bytes() const {
  std::uint64_t sum = 0;
  for (const SimModel& model : models) sum += model.bytes;
  return sum;
}

Trace MadeUpDay(std::uint64_t seed) { return MadeUp(seed).Take(); }

absl::StatusOr<Trace> ReadTrace(const std::string& file) {
  std::ifstream lines(file);
  std::string line;
  if (!std::getline(lines, line)) return absl::NotFoundError(StrCat("'", file, "' cannot be read, or is empty"));
  Trace trace;
  for (std::size_t number = 2; std::getline(lines, line); ++number) {
    double at = 0, load_seconds = 0;
    std::size_t model = 0;
    std::uint64_t bytes = 0;
    if (std::sscanf(line.c_str(), "%lf,%zu,%" SCNu64 ",%lf", &at, &model, &bytes, &load_seconds) != 4 ||
        model >= kMostModels || (!trace.uses.empty() && at < trace.uses.back().at)) {
      return absl::InvalidArgumentError(
          StrCat("'", file, "' line ", number, ": not seconds,model,bytes,load_seconds, ascending in time"));
    }
    if (model >= trace.models.size()) trace.models.resize(model + 1);
    SimModel& used = trace.models[model];
    if (used.uses.empty()) {
      used.bytes = bytes;
      used.load_seconds = load_seconds;
    }
    used.uses.push_back(at);
    trace.uses.push_back({at, model});
  }
  return trace;
}

void PrintTrace(const Trace& trace) {
  std::printf("seconds,model,bytes,load_seconds\n");
  for (const Use& use : trace.uses) {
    const SimModel& model = trace.models[use.model];
    std::printf("%.3f,%zu,%" PRIu64 ",%.4f\n", use.at, use.model, model.bytes, model.load_seconds);
  }
}

}  // namespace hearth::bench
