// What we expose, read by the program that will read it: promtool.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "server/metrics/metrics.h"

namespace hearth {
namespace {

struct Lint {
  int exit_code = -1;
  std::string output;
};

Lint RunPromtool(const std::string& text) {
  std::string dir = testing::TempDir() + "/promtool-XXXXXX";
  if (::mkdtemp(dir.data()) == nullptr) return {};
  const std::string input = dir + "/metrics.txt";
  const std::string output = dir + "/lint.txt";
  std::ofstream(input) << text;
  const std::string command =
      std::string(HEARTH_PROMTOOL) + " check metrics <'" + input + "' >'" + output + "' 2>&1";
  const int status = std::system(command.c_str());
  std::ostringstream said;
  said << std::ifstream(output).rdbuf();
  std::filesystem::remove_all(dir);
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, said.str()};
}

// Every family there is, with awkward label values.
void FillEverything(Metrics& metrics) {
  ModelMetrics& model = metrics.Model("vad.en-8k_x", 12);
  model.RequestSucceeded({.total = std::chrono::milliseconds(3)}, 4);
  model.RequestFailed(absl::StatusCode::kInvalidArgument, std::chrono::milliseconds(1));
  model.CacheLookup(CacheResult::kLoad);
  metrics.RequestRefused(absl::StatusCode::kNotFound);
  metrics.LoadFinished("vad.en-8k_x", absl::StatusCode::kOk, std::chrono::milliseconds(3),
                       {{"map", std::chrono::milliseconds(1)}});
  metrics.Evicted(EvictionReason::kCapacity);
  metrics.MadeRoom(std::chrono::hours(2), std::chrono::minutes(40));
  metrics.CameBack(std::chrono::seconds(59));
  model.CacheRefused();
  metrics.ConfigReloaded(true, WallTime(std::chrono::seconds(1'700'000'000)));
  metrics.AddCollector([] {
    return std::vector<Metrics::Sample>{
        {"hearth_resident_bytes", "Bytes held.", {{"dimension", "a\"b\\c\nd"}}, 1e12, false}};
  });
}

TEST(MetricsLint, PromtoolFindsNothingToSay) {
  Metrics metrics({.version = "0.1.0", .commit = "abc"});
  FillEverything(metrics);
  const Lint lint = RunPromtool(metrics.Text());
  EXPECT_EQ(lint.exit_code, 0) << lint.output;
  EXPECT_EQ(lint.output, "");
}

TEST(MetricsLint, PromtoolCanReadTritonsNamesToo) {
  Metrics metrics({.triton_names = true});
  FillEverything(metrics);
  const Lint lint = RunPromtool(metrics.Text());
  EXPECT_NE(lint.exit_code, 1) << lint.output;  // 1: cannot be parsed; 3: parsed, but not liked
}

TEST(MetricsLint, PromtoolIsReallyAsked) {
  EXPECT_EQ(RunPromtool("# no newline, no sense {{{").exit_code, 1);
}

}  // namespace
}  // namespace hearth
