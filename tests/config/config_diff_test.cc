#include "server/config/config_diff.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace hearth {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::vector<std::string> Lines(const std::vector<ConfigChange>& changes) {
  std::vector<std::string> lines;
  for (const ConfigChange& change : changes) {
    lines.push_back(StrCat(change.key, ": ", change.before, " -> ", change.after,
                           change.needs_restart ? " (restart)" : ""));
  }
  return lines;
}

TEST(ConfigDiff, IsEmptyWhereNothingChanged) { EXPECT_THAT(DiffConfigs({}, {}), IsEmpty()); }

TEST(ConfigDiff, SaysWhatWasWhatIsAndWhatHasToWait) {
  ServerConfig running, next;
  next.grpc.port = 9001;
  next.models.push_back({.name = "vad", .pin = true});
  next.cache.budget.device.named = {{"cuda:1", BytesOrPercent::Percent(60)}};
  next.cache.budget.host = BytesOrPercent::Bytes(std::uint64_t{4} << 30);
  EXPECT_THAT(Lines(DiffConfigs(running, next)),
              ElementsAre("models: [] -> [{name: vad, required: true, pin: true}]",
                          "cache.budget.device: 90% -> {\"cuda:1\": 60%}", "cache.budget.host: 50% -> 4GiB", "grpc.port: 8001 -> 9001 (restart)"));
}

TEST(ConfigDiff, WhatWasTakenOverDiffersNoMoreAndWhatNeedsARestartIsNamedEveryTime) {
  ServerConfig running, next;
  next.logging.level = log::Level::kDebug;
  next.loading.threads = 7;
  const ServerConfig taken_over = TakeOver(running, next);
  EXPECT_THAT(Lines(DiffConfigs(taken_over, next)), ElementsAre("loading.threads: 2 -> 7 (restart)"));
}

// The documentation of config/hearth.yaml says the same.
TEST(ConfigDiff, KnowsWhichKeysAreAppliedToARunningServer) {
  ServerConfig next;
  next.config.watch = true;
  next.repository.watch = true;
  next.repository.poll = std::chrono::seconds(15);
  next.cache.budget = {{BytesOrPercent::Percent(1)}, BytesOrPercent::Percent(1), BytesOrPercent::Percent(1)};
  next.cache.mapped_window = BytesOrPercent::Percent(1);
  next.cache.rests = 1;
  next.cache.eviction = ServerConfig::Cache::Eviction::kLru;
  next.cache.demand_half_life = std::chrono::hours(2);
  next.cache.min_residency = std::chrono::hours(2);
  next.cache.prewarm = true;
  next.cache.responses = 1;
  next.cache.failure_backoff = std::chrono::seconds(6);
  next.cache.max_failure_backoff = std::chrono::hours(2);
  next.cache.max_cold_wait = std::chrono::hours(2);
  next.cache.load_timeout = std::chrono::hours(2);
  next.cache.refuse_hopeless = false;
  next.access = {AccessGroups::All(), {}, {{.name = "ops", .groups = {}}}};
  next.grpc.groups = next.rest.groups = next.http.groups = {};
  next.grpc.max_in_flight = 3;
  next.logging = {log::Level::kDebug, log::Format::kJson, true};
  next.limits = {3, 3};
  next.shutdown = {std::chrono::seconds(1), std::chrono::seconds(1)};
  next.models.push_back({.name = "vad"});
  for (const ConfigChange& change : DiffConfigs({}, next)) EXPECT_FALSE(change.needs_restart) << change.key;
  EXPECT_EQ(DiffConfigs({}, next).size(), 33u);

  ServerConfig restart;
  restart.repository.roots = {"/other"};
  restart.cache.kept_programs = 0;
  restart.cache.drop_page_cache = true;
  restart.compute.threads = 3;
  restart.http.port = 9;
  restart.metrics.triton_names = true;
  for (const ConfigChange& change : DiffConfigs({}, restart)) EXPECT_TRUE(change.needs_restart) << change.key;
}

}  // namespace
}  // namespace hearth
