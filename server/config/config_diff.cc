#include "server/config/config_diff.h"

#include <cstddef>

namespace hearth {

ServerConfig TakeOver(const ServerConfig& running, const ServerConfig& next) {
  ServerConfig result = running;
  result.config = next.config;
  result.repository.watch = next.repository.watch;
  result.repository.poll = next.repository.poll;
  result.models = next.models;
  result.cache.budget = next.cache.budget;
  result.cache.mapped_window = next.cache.mapped_window;
  result.cache.rests = next.cache.rests;
  result.cache.eviction = next.cache.eviction;
  result.cache.demand_half_life = next.cache.demand_half_life;
  result.cache.min_residency = next.cache.min_residency;
  result.cache.responses = next.cache.responses;
  result.cache.idle_unload = next.cache.idle_unload;
  result.cache.prewarm = next.cache.prewarm;
  result.cache.failure_backoff = next.cache.failure_backoff;
  result.cache.max_failure_backoff = next.cache.max_failure_backoff;
  result.cache.max_cold_wait = next.cache.max_cold_wait;
  result.cache.load_timeout = next.cache.load_timeout;
  result.cache.refuse_hopeless = next.cache.refuse_hopeless;
  result.access = next.access;
  result.grpc.groups = next.grpc.groups;
  result.rest.groups = next.rest.groups;
  result.http.groups = next.http.groups;
  result.grpc.max_in_flight = next.grpc.max_in_flight;
  result.logging = next.logging;
  result.limits = next.limits;
  result.shutdown = next.shutdown;
  return result;
}

std::vector<ConfigChange> DiffConfigs(const ServerConfig& running, const ServerConfig& next) {
  const std::vector<ConfigValue> before = ConfigValues(running);
  const std::vector<ConfigValue> applied = ConfigValues(TakeOver(running, next));
  const std::vector<ConfigValue> after = ConfigValues(next);
  std::vector<ConfigChange> changes;
  for (std::size_t i = 0; i < after.size(); ++i) {  // the same keys in the same order
    if (before[i].value == after[i].value) continue;
    changes.push_back({after[i].key, before[i].value, after[i].value, applied[i].value != after[i].value});
  }
  return changes;
}

}  // namespace hearth
