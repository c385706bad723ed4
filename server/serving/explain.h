// Why a model is where it is.
#pragma once

#include <optional>
#include <string>

#include "server/base/clock.h"
#include "server/residency/event_log.h"
#include "server/residency/model_cache.h"

namespace hearth {

struct Explanation {
  ModelId id;
  std::optional<ModelCache::Row> row;  // its newest generation; none: it is not in the cache
  Tier tier = Tier::kCold;             // what is left of it
  ModelCache::Pins pins;
  bool unloaded = false;               // by RepositoryModelUnload: requests are refused
  EventLog::History history;
  TimePoint at{};                      // when all this was so
  std::string sentence{};
};

// "resident for 2h 05m, in use by 3 requests, pinned by the configuration", "not resident: evicted 5m ago for resnet:1:
// ...". All times in it are ages. Of the other fields but `sentence`.
std::string Sentence(const Explanation& explanation, const DeviceNames& devices);

}  // namespace hearth
