// What is not inference: health, metadata, index, load, unload.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "server/base/clock.h"
#include "server/base/executor.h"
#include "server/base/heartbeats.h"
#include "server/base/mutex.h"
#include "server/base/status.h"
#include "server/residency/model_manager.h"
#include "server/serving/version_routes.h"
#include "server/storage/catalog.h"

namespace hearth {

struct ModelMetadata {
  ModelId id;
  std::vector<std::int64_t> versions;  // all in the repository, ascending
  Signature signature;
  ModelOptions options;  // of model.yaml and config.pbtxt; the device as the model has it
  std::string file;      // name of the program's file
  bool stateful = false;  // it takes sequences
  // OIP field 6: hearth_residency ("resident"), hearth_device_bytes, hearth_host_bytes,
  // hearth_mapped_bytes, hearth_load_ms, hearth_device ("cuda:1") where the device bytes are, and hearth_labels
  // ("canary=2,stable=1") where there are any.
  std::map<std::string, std::string> properties;
};

// A version of a model, and what it has in memory now: nothing unless it is resident.
struct ModelUse {
  ModelId id;
  std::uint64_t device_bytes = 0;
  DeviceNumber device = 0;
  std::uint64_t host_bytes = 0;  // its own and what of its files it uses
};

// One version of a model, with Triton's words for its state:
//   READY        resident
//   LOADING      on its way (also while it waits for room)
//   UNLOADING    on its way out
//   UNAVAILABLE  refused: `reason` is "unloaded" after an explicit Unload, else why it failed to
//   load or
//                cannot be understood
//   ""           not resident; loads on the first request. Triton's "never loaded", and not a
//   fault:
//                an evicted model must not look broken to those who watch the index.
struct IndexRow {
  std::string model;
  std::string version;  // empty: the model cannot be understood, so it has none
  std::string state;
  std::string reason;
};

// Thread-safe. Outlived by what Deps refers to.
class RepositoryService {
 public:
  struct Deps {
    Catalog& catalog;
    ModelManager& manager;
    const Clock& clock;
    VersionRoutes& versions;
    std::function<void()> rescanned{};  // the catalog may know other versions than before
    const Heartbeats* heartbeats = nullptr;
    Executor* executor = nullptr;  // where Load looks at files, for a disk may not answer; null: the caller's thread
    bool loadable_is_ready = false;  // ModelReady
  };
  explicit RepositoryService(Deps deps);

  // Every part that must not stop goes on. Who does not is logged.
  bool live() const;
  // Required models have been loaded, and nobody said stop.
  bool ready() const { return why_not_ready().empty(); }
  // "waiting for 'vad'", "draining"; empty: ready.
  std::string why_not_ready() const ABSL_LOCKS_EXCLUDED(mu_);
  void SetWhyNotReady(std::string why) ABSL_LOCKS_EXCLUDED(mu_);
  // Resident now; or, if that is what ready means, one that the next request would load: known, not unloaded, and its last
  // load did not fail. An unknown model is not ready; that is not an error. Touches nothing.
  bool ModelReady(const std::string& model, const std::string& version) const;

  // From the resident model. A cold one is loaded for it, within `deadline`: only the program knows
  // its inputs. Counts as neither hit nor miss and does not touch recency. A model that failed to
  // load is not tried again before its back-off is over or its files are others.
  using MetadataCallback = absl::AnyInvocable<void(absl::StatusOr<ModelMetadata>) &&>;
  void Metadata(const std::string& model, const std::string& version, Deadline deadline,
                MetadataCallback done);

  // Of that version, or of all that the model has; without a name, of all that are resident. Loads nothing.
  // INVALID_ARGUMENT "requested model 'x' is not available", as Triton has it.
  absl::StatusOr<std::vector<ModelUse>> Uses(const std::string& model, const std::string& version) const;

  // By name and version.
  std::vector<IndexRow> Index(bool ready_only) const;

  // Reads the repository entry again, then loads its highest version: anew if its file or
  // model.yaml changed since it was loaded, else a resident one is left as it is. Lifts an earlier
  // Unload, also if that fails: whoever asks for the model then hears why.
  // A bad model.yaml is reported, and a model that is served as before it was changed goes on.
  // `config`: Triton's configuration of it that is in force until its next load or unload, in the place of its config.pbtxt
  // and over its model.yaml; another one than before is another load. Null: those in the repository are. One that the model
  // cannot be loaded with leaves everything as it was.
  //   INVALID_ARGUMENT  "Model name cannot be empty", "... path traversal characters"; or the model
  //   is
  //                     bad: "load failed for model 'x': version 1 is at UNAVAILABLE state: <why>"
  //   INTERNAL          "failed to load 'x', failed to poll from model repository": it is not there
  //   the manager's     what is no fault of the model: no room, too late, shutting down
  // Looks at files on the executor; what else is called here does so only where the model failed to load a moment ago.
  using LoadCallback = absl::AnyInvocable<void(absl::StatusOr<LoadReport>) &&>;
  void Load(const std::string& model, std::shared_ptr<const TritonConfig> config, Deadline deadline, LoadCallback done);
  void Load(const std::string& model, Deadline deadline, LoadCallback done) {
    Load(model, nullptr, deadline, std::move(done));
  }
  // Every version. Done when their bytes are back. NOT_FOUND for a model that is not there. A load that hangs is not
  // waited for: OK, for nobody is given what it brings. DEADLINE_EXCEEDED: a destructor hangs, so the model is unloaded
  // and its bytes are not back.
  void Unload(const std::string& model, absl::AnyInvocable<void(absl::Status) &&> done);

  std::vector<ModelCache::Row> Resident() const { return deps_.manager.Snapshot(); }
  // Why nothing can be loaded any more; OK: it can. No reason not to be ready: what is resident is served.
  absl::Status CheckLoads() const { return deps_.manager.CheckLoads(); }
  std::vector<RestRow> Rests() const { return deps_.manager.Rests(); }
  MemoryBudget::Usage usage() const { return deps_.manager.usage(); }
  const DeviceNames& devices() const { return deps_.manager.devices(); }

 private:
  absl::StatusOr<ModelId> Resolve(const std::string& model, const std::string& version) const;
  absl::Status CheckNotBackingOff(const ModelId& id) const;
  ModelMetadata Describe(const ModelHandle& handle) const;
  ModelUse UseOf(const ModelId& id) const;
  using ConfigPtr = std::shared_ptr<const TritonConfig>;
  absl::StatusOr<ModelId> PrepareLoad(const std::string& model, const ConfigPtr& config);
  void LoadNow(const std::string& model, ConfigPtr config, Deadline deadline, LoadCallback done);
  // `before` is in force again where `config` is now.
  void PutBack(const std::string& model, const ConfigPtr& config, const ConfigPtr& before);
  void OnExecutor(absl::AnyInvocable<void() &&> task);

  const Deps deps_;
  mutable Mutex mu_;
  std::string why_not_ready_ ABSL_GUARDED_BY(mu_) = "starting";
};

}  // namespace hearth
