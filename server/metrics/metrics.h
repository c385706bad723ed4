// The server's numbers: their names, labels and units, over prometheus-cpp core. No HTTP here.
//
// Every counter has exactly one place in the code that moves it. Names follow Prometheus' rules
// (base units, `_total`, `_seconds`, `_bytes`) and stay clean under `promtool check metrics`;
// docs/metrics.md lists them. Triton's names, which do not, stand beside them by option.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "server/base/clock.h"
#include "server/metrics/model_statistics.h"

namespace hearth {

// Where the time of one request went. total >= queue + input + infer + output.
struct RequestTimes {
  Duration total{};   // from the first byte parsed to the answer handed over
  Duration queue{};   // waiting for the model to load and for a compute thread
  Duration input{};   // wire tensors -> program inputs
  Duration infer{};   // the program itself
  Duration output{};  // program outputs -> wire tensors
};

// How a request found its model.
// kHit: it was resident; kWait: joined a load under way; kLoad: started one.
enum class CacheResult : std::uint8_t { kHit, kWait, kLoad };
std::string_view ToString(CacheResult result);  // "hit", "wait", "load"

// kReplaced: another version answers in its place, and nobody can ask for it any more, or it had to go first.
enum class EvictionReason : std::uint8_t {
  kCapacity, kUnload, kReload, kShutdown, kDataLoss, kEvict, kIdle, kReplaced
};
std::string_view ToString(EvictionReason reason);  // "capacity", "data_loss"

// Whose turn a load is. kNormal: a request or an explicit load waits for it, or the configuration requires the model.
// kBackground: it is loaded ahead of need, or nobody waits for it any more.
enum class LoadPriority : std::uint8_t { kNormal, kBackground };
std::string_view ToString(LoadPriority priority);  // "normal", "background"

// Why a load ended before it began. kAbandoned: nobody waited any more, and there was no room yet. kNoRoom: it was
// nobody's turn to leave for a load in the background.
enum class LoadDrop : std::uint8_t { kAbandoned, kNoRoom };
std::string_view ToString(LoadDrop drop);  // "abandoned", "no_room"

// "OK", "INVALID_ARGUMENT": gRPC's spelling, the `code` label.
std::string_view CodeName(absl::StatusCode code);

// The counters of one model version. Thread-safe; its methods take no lock shared with other models
// (the first failure with a code that this model has not had yet excepted).
class ModelMetrics {
 public:
  // A snapshot for `hearth stats`.
  struct Totals {
    std::uint64_t succeeded = 0;
    std::uint64_t failed = 0;
    double seconds = 0;  // sum of RequestTimes::total over successes
    double infer_seconds = 0;
  };

  ~ModelMetrics();

  // `rows`: of its batch dimension. `when`: the time of day, about. `run_rows`: of the run that answered it, if others were
  // answered by the same one; 0 for all of them but one, with which the run is counted.
  void RequestSucceeded(const RequestTimes& times, std::int64_t rows, WallTime when = {},
                        std::optional<std::int64_t> run_rows = std::nullopt);
  // With an answer that was kept, or one that was looked for among them in vain (the request goes on then).
  void RequestCached(Duration total, Duration looked, std::int64_t rows, WallTime when = {});
  void ResponseNotCached(Duration looked);
  void RequestFailed(absl::StatusCode code, Duration total);
  void CacheLookup(CacheResult result);
  void CacheRefused();  // a request, for the failure of a load a moment ago
  Totals totals() const;
  ModelStatistics statistics() const;

 private:
  friend class Metrics;
  struct Impl;
  explicit ModelMetrics(std::unique_ptr<Impl> impl);

  std::unique_ptr<Impl> impl_;
};

// Owns the registry. Thread-safe.
class Metrics {
 public:
  struct Options {
    std::string version = "unknown";  // label values of hearth_build_info
    std::string commit = "unknown";
    std::string torch = "none";
    std::string grpc = "none";
    bool triton_names = false;  // also nv_inference_* (which promtool's lint dislikes)
  };
  explicit Metrics(Options options);
  ~Metrics();

  // Created at first use, under a lock: callers on a hot path keep the reference, which stays good
  // as long as Metrics. REQUIRES: the model is in the catalog, so that a client cannot make label
  // values up.
  ModelMetrics& Model(std::string_view model, std::int64_t version);
  // Null: nobody has asked for it.
  const ModelMetrics* Find(std::string_view model, std::int64_t version) const;
  // Names and versions of those that were asked for.
  std::vector<std::pair<std::string, std::int64_t>> Known() const;

  // Requests refused before a model was known (unknown name, bad version).
  void RequestRefused(absl::StatusCode code);

  // A load ended. `phases`: name and duration of each that happened. `from`: the tier that it began on.
  struct LoadPhaseTime {
    std::string_view phase;
    Duration wall;
  };
  void LoadFinished(std::string_view model, absl::StatusCode result, Duration total,
                    const std::vector<LoadPhaseTime>& phases, std::string_view from = "cold");
  // A thread came for a load that had been queued for `waited`.
  void LoadTaken(LoadPriority priority, Duration waited);
  // Somebody began to wait for a load in the background that had not begun.
  void LoadPromoted();
  void LoadDropped(LoadDrop drop);
  void Evicted(EvictionReason reason);
  // A model made room for another: so long after it was loaded, and after it was last used.
  void MadeRoom(Duration resident, Duration idle);
  // One that had made room is loaded again, so long after it.
  void CameBack(Duration away);
  void ConfigReloaded(bool successful, WallTime when);

  // Values that are read when somebody scrapes: bytes by dimension, queue depths, states. `collect`
  // is called on the scraping thread and must neither block nor call back into Metrics. Samples of
  // one name are one family, whose help and kind are those of the first. REQUIRES: the name is not
  // one of this class's own, and each (name, labels) comes once.
  struct Sample {
    std::string name;  // "hearth_resident_bytes"
    std::string help;
    std::vector<std::pair<std::string, std::string>> labels;
    double value = 0;
    bool counter = false;  // else a gauge
  };
  void AddCollector(std::function<std::vector<Sample>()> collect);

  // The text exposition format, version 0.0.4.
  std::string Text() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace hearth
