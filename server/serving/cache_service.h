// What somebody may tell the cache, and ask it: prefetch, pin, evict, explain.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "server/base/clock.h"
#include "server/base/status.h"
#include "server/residency/model_manager.h"
#include "server/serving/explain.h"
#include "server/serving/version_routes.h"
#include "server/storage/catalog.h"

namespace hearth {

// Names and versions are texts as they come from outside; a version may be a label, and no version is the one that
// answers (VersionRoutes). None of the calls counts as
// a use, and none changes what the catalog says. NOT_FOUND: there is no such model or version.
//
// Thread-safe. Outlived by what Deps refers to.
class CacheService {
 public:
  struct Deps {
    Catalog& catalog;
    ModelManager& manager;
    const Clock& clock;
    const VersionRoutes& versions;
  };
  explicit CacheService(Deps deps) : deps_(deps) {}

  // A hint: the load begins unless the model is here or on its way, and nobody waits for it. It is one in the
  // background, which displaces nothing that is in demand. The state it found.
  // A recent failure is the answer until its back-off is over, as it is for requests.
  struct Prefetched {
    ModelId id;
    ModelState before = ModelState::kAbsent;
  };
  absl::StatusOr<Prefetched> Prefetch(const std::string& model, const std::string& version);

  // Pins the version, whatever comes after it, until Unpin or the end of the process; loads nothing.
  absl::StatusOr<ModelId> Pin(const std::string& model, const std::string& version);
  // OK also when it was not pinned. FAILED_PRECONDITION: it stays pinned, by the configuration.
  absl::StatusOr<ModelId> Unpin(const std::string& model, const std::string& version);

  // Answered when its bytes are back. FAILED_PRECONDITION: in use, pinned, or being loaded.
  struct Evicted {
    ModelId id;
    bool was_resident = false;
  };
  void Evict(const std::string& model, const std::string& version,
             absl::AnyInvocable<void(absl::StatusOr<Evicted>) &&> done);

  absl::StatusOr<Explanation> Explain(const std::string& model, const std::string& version) const;
  EventLog& events() { return deps_.manager.events(); }
  const DeviceNames& devices() const { return deps_.manager.devices(); }

  struct MemoryPlan {
    Dimension dimension = Dimension::kHost;
    std::uint64_t capacity_bytes = 0;
    GhostList::Plan plan{};
  };
  std::vector<MemoryPlan> Plan() const;  // of each device, host, mapped
  Duration plan_half_life() const { return deps_.manager.demand_half_life(); }

 private:
  // Also one that was unloaded, or has left the repository and not the cache.
  absl::StatusOr<ModelId> Find(const std::string& model, const std::string& version) const;
  std::optional<ModelCache::Row> RowOf(const ModelId& id) const;  // the newest generation

  const Deps deps_;
};

}  // namespace hearth
