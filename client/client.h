// The C++ client of hearthd, and of any server of the Open Inference Protocol over gRPC.
//
//   auto client = hearth::client::Client::Create({.address = "localhost:8001"});
//   hearth::client::InferRequest request{.model = "silero_vad"};
//   request.inputs.push_back({"x", MakeTensor<float>({1, 512}, samples)});
//   auto result = client->Infer(request);
//   if (!result.ok()) return result.status();
//   auto probability = Values<float>(result->outputs[0].tensor);
//
// Public header: depends on Abseil, client/tensor.h and the standard library only. Link
// hearth_client_lib.
//
// Errors are absl::Status with the server's own code and message. Two are made here: UNAVAILABLE that
// IsUnreachable() recognises, when no server could be reached, and DEADLINE_EXCEEDED after `timeout`.
#pragma once

#include <chrono>
#include <climits>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/tensor.h"

namespace hearth::client {

struct ClientOptions {
  std::string address = "localhost:8001";  // host:port, or any gRPC target
  // For each call, from its beginning to the complete answer. Zero: no limit. The server knows it too,
  // and gives up a load's waiter in time.
  std::chrono::milliseconds timeout{0};
  // How long to keep trying when nobody listens yet. Zero: the first refusal is the answer.
  std::chrono::milliseconds wait_for_server{0};
  // Largest message sent or received.
  int max_message_bytes = INT_MAX;
  // Sent with every call, for what the server does not allow everybody; over TLS, or whoever listens has it, too.
  std::string token = {};
  // All PEM, the texts and not the names of files.
  struct Tls {
    std::string ca = {};                     // whom to trust; empty: as the system does
    std::string certificate = {}, key = {};  // our own; empty: none
    std::string server_name = {};            // that the server's certificate must have; empty: as in `address`
  };
  std::optional<Tls> tls = {};  // none: plainly
};

struct ServerInfo {
  std::string name;
  std::string version;
  std::vector<std::string> extensions;
};

struct TensorInfo {
  std::string name;
  std::string datatype;  // the protocol's spelling; empty: any, or not known
  Shape shape;           // -1: any size; empty: not known, or a scalar
};

struct ModelInfo {
  std::string name;
  std::vector<std::string> versions;
  std::string platform;
  std::vector<TensorInfo> inputs;
  std::vector<TensorInfo> outputs;
  std::map<std::string, std::string> properties;
};

struct InferRequest {
  std::string model;
  std::string version = {};  // empty: the server's choice, its highest
  std::string id = {};       // echoed, and found in the server's messages
  std::vector<NamedTensor> inputs = {};
  std::vector<std::string> outputs = {};  // empty: all
  // One of a sequence's; empty: of none. A text of digits is the number.
  std::string sequence = {};
  bool sequence_start = false;
  bool sequence_end = false;
  int priority = 0;  // 1 goes first; 0: the model's default
};

struct InferResult {
  std::string model;
  std::string version;
  std::string id;
  std::vector<NamedTensor> outputs;  // in the server's order
};

// One version of one model of the repository.
struct IndexEntry {
  std::string name;
  std::string version;
  std::string state;   // READY, LOADING, UNLOADING, UNAVAILABLE; empty: never loaded
  std::string reason;
};

using WallTime = std::chrono::system_clock::time_point;

// One kind of memory: "device", "host" or "mapped".
struct BudgetStat {
  std::string dimension;
  std::uint64_t capacity_bytes = 0, used_bytes = 0;
  std::uint64_t resident_bytes = 0, loading_bytes = 0, unloading_bytes = 0;
  std::string device = {};       // "cuda:1"; empty: of all devices, or of none
  std::uint64_t lost_bytes = 0;  // could not be freed, and are no part of the capacity any more

  const std::string& name() const { return device.empty() ? dimension : device; }
};

struct PhasePartStat {
  double start_milliseconds = 0;  // since the load began
  double milliseconds = 0;
};

// One phase of a load: "open", "map", "verify", "parse", "bind", "read", "to_device", "populate", "analyse" or
// "warm_up".
struct PhaseStat {
  std::string name = {};
  double milliseconds = 0;
  double start_milliseconds = 0;  // since the load began
  double cpu_milliseconds = 0;    // of the loading thread
  std::uint64_t bytes = 0;        // mapped, copied or brought into memory
  std::uint64_t minor_faults = 0, major_faults = 0;
  std::vector<PhasePartStat> parts = {};  // when it was at work; empty: the server does not say
};

struct LoadStat {
  std::uint64_t weight_bytes = 0;  // of all tensors
  std::uint64_t copied_bytes = 0;  // of those, not mapped
  std::uint64_t mapped_bytes = 0;  // of the files
  std::uint64_t cached_bytes = 0;  // of those, in the page cache when the load began
  bool kept_program = false;       // an earlier load had parsed the program
  std::uint64_t shared_bytes = 0;  // of the mapped bytes, mapped already by other models
  std::string from = {};           // where the load found the model: cold, mapped, host; empty: nobody says
};

// A model that is loaded, loading, unloading or failed, or what is left of one that made room on its device.
struct ModelStat {
  std::string name;
  std::int64_t version = 0;
  std::string state;         // queued, loading, ready, draining, unloading, failed; or what is left of it: mapped, host
  std::int64_t in_use = 0;   // requests that hold it right now
  bool pinned = false;       // never evicted
  std::uint64_t device_bytes = 0, host_bytes = 0, mapped_bytes = 0;
  std::string device = {};         // where the device bytes are, "cuda:1"; empty: there are none, or an old server
  std::uint64_t window_bytes = 0;  // of the mapped bytes, a window on weights larger than the budget
  std::optional<WallTime> last_used, loaded_at;
  std::uint64_t hits = 0;
  std::vector<PhaseStat> load_phases;  // of its latest load
  LoadStat load = {};                  // likewise
  std::uint64_t requests_succeeded = 0, requests_failed = 0;
  double mean_request_seconds = 0, mean_infer_seconds = 0;
  std::string error;  // why its latest load failed
  bool hung = false;  // what is under way by its state does not come to its end

  double load_milliseconds() const {
    double sum = 0;
    for (const PhaseStat& phase : load_phases) sum += phase.milliseconds;
    return sum;
  }
};

struct BytesStat {
  std::uint64_t device = 0, host = 0, mapped = 0;
  std::map<std::string, std::uint64_t> by_device = {};  // of `device`
};

// Why it was this model that made room for another.
struct EvictionCauseStat {
  std::string model;  // the other
  std::int64_t version = 0;
  BytesStat needed;
  double loss = 0;  // what the victim's absence was reckoned to cost
  std::uint64_t rank = 0, candidates = 0;
  double demand = 0;  // uses, fading
};

// One thing that happened in the server's cache. Fields that `kind` has no use for are empty.
struct CacheEventStat {
  std::uint64_t sequence = 0;
  WallTime time;           // of the server's clock
  double age_seconds = 0;  // when it was sent
  std::string model;
  std::int64_t version = 0;
  std::string kind;  // queued, loading, ready, failed, evicted, unloaded, refused, fell, stalled, lost
  std::string text;  // what follows the kind in a sentence
  BytesStat bytes;
  double load_seconds = 0;
  std::uint64_t waiters = 0;
  std::string tier;  // ready: where the load found it. fell: where it is now
  std::string error, code;
  std::string reason;
  double resident_seconds = 0, idle_seconds = 0, away_seconds = 0;
  std::uint64_t hits = 0;
  std::optional<EvictionCauseStat> cause;
};

// What happened to a model last, and why.
struct ExplanationStat {
  std::string model;
  std::int64_t version = 0;
  std::string state;     // as in ModelStat, or "absent"
  std::string sentence;  // times in it are ages
  bool pinned_by_configuration = false, pinned_on_request = false, unloaded = false;
  std::uint64_t refused = 0, evictions = 0;
  std::optional<CacheEventStat> last, last_eviction, last_failure;
};

// Counts are of loads that requests waited for, and fade by half in each half-life.
struct PlanPointStat {
  std::uint64_t more = 0;  // bytes
  double loads = 0;        // that so much more would have spared
  double load_seconds = 0;
};
struct MemoryPlanStat {
  std::string dimension;
  std::uint64_t capacity = 0;
  double loads = 0;
  double load_seconds = 0;
  double returns = 0;  // of the loads, of models that were evicted because this memory was short
  std::vector<PlanPointStat> points;  // ascending
  std::string device = {};            // "cuda:1"; empty: it is on none
};
struct PlanStat {
  double half_life_seconds = 0;
  std::vector<MemoryPlanStat> memories;
};

struct WatchOptions {
  std::string model = {};   // only this one
  bool history = false;     // begin with what the server still remembers
  bool until_now = false;   // end with what has happened so far
};

struct ServerStat {
  std::string name;
  std::string version;
  double uptime_seconds = 0;
  bool ready = false;
  std::int64_t in_flight = 0;
  std::vector<BudgetStat> budgets;
  std::vector<ModelStat> models;  // by name, then version
  std::string not_ready_reason;   // "waiting for 'vad'"; empty: ready, or the server does not say
  std::vector<BudgetStat> devices = {};  // each device's own
  std::string not_loading_reason = {};   // why nothing can be loaded any more; empty: it can

  // Each kind of memory once: every device, or their sum where the server does not tell them apart.
  std::vector<BudgetStat> memories() const {
    std::vector<BudgetStat> all = devices;
    for (const BudgetStat& budget : budgets) {
      if (devices.empty() || budget.dimension != "device") all.push_back(budget);
    }
    return all;
  }
};

// A key of the server's configuration that is another one than what is in force.
struct ConfigChange {
  std::string key;
  std::string before, after;
  bool needs_restart = false;  // `before` stays in force
};

struct ReloadResult {
  std::vector<ConfigChange> changes;
  std::vector<std::string> notes;  // what else to know, a sentence each
};

// Thread-safe: calls from many threads share one connection. Blocking calls; the connection is made by
// the first, and again by later ones when it was lost.
class Client {
 public:
  // Does not connect yet.
  static std::unique_ptr<Client> Create(ClientOptions options);
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  absl::StatusOr<bool> Live();
  absl::StatusOr<bool> Ready();
  // Resident now? An unknown model is simply not ready. `version`: empty means the highest.
  absl::StatusOr<bool> ModelReady(const std::string& model, const std::string& version = "");
  // grpc.health.v1: is `service` SERVING? Empty: the server as a whole. NOT_FOUND: no such service.
  absl::StatusOr<bool> Healthy(const std::string& service = "");

  absl::StatusOr<ServerInfo> ServerMetadata();
  // May load a cold model.
  absl::StatusOr<ModelInfo> ModelMetadata(const std::string& model, const std::string& version = "");

  // Runs a model once; a cold one is loaded first. INVALID_ARGUMENT without asking the server when an
  // input's bytes do not fit its shape; INTERNAL when the answer contradicts itself.
  absl::StatusOr<InferResult> Infer(const InferRequest& request);

  // Return when the model is ready, and when its memory is back.
  // `config`: Triton's model configuration as JSON, in force until the model's next load or unload; empty: none.
  absl::Status Load(const std::string& model, const std::string& config = "");
  absl::Status Unload(const std::string& model);
  absl::StatusOr<std::vector<IndexEntry>> Index(bool ready_only = false);
  // What is resident and how it fares. `model`: only this one. UNIMPLEMENTED by servers other than
  // hearthd.
  absl::StatusOr<ServerStat> Stat(const std::string& model = "");
  // Has the server read its configuration and repository again; `dry_run`: only tells what would change.
  // INVALID_ARGUMENT: a mistake in it, and nothing changed. UNIMPLEMENTED by servers other than hearthd.
  absl::StatusOr<ReloadResult> Reload(bool dry_run);

  // These, too, are hearthd's. `version`: empty means the highest.
  // Begins to load a model and returns; the state it was found in, "absent" or as in ModelStat.
  absl::StatusOr<std::string> Prefetch(const std::string& model, const std::string& version = "");
  // Never evicted from now on, and a pin of this kind lifted; the version that was meant.
  absl::StatusOr<std::int64_t> Pin(const std::string& model, const std::string& version = "");
  absl::StatusOr<std::int64_t> Unpin(const std::string& model, const std::string& version = "");
  // Returns when the memory of an idle model is back; false: it was not resident.
  absl::StatusOr<bool> Evict(const std::string& model, const std::string& version = "");
  absl::StatusOr<ExplanationStat> Explain(const std::string& model, const std::string& version = "");
  // What more memory would have spared.
  absl::StatusOr<PlanStat> Plan();
  // Calls `on_event` for each event as it comes, and `on_dropped` where some had gone before they could be sent; until
  // one of them returns false (OK), or why the server has ended it.
  absl::Status Watch(const WatchOptions& options, const std::function<bool(const CacheEventStat&)>& on_event,
                     const std::function<bool(std::uint64_t)>& on_dropped);

 private:
  struct Impl;
  explicit Client(std::unique_ptr<Impl> impl);
  const std::unique_ptr<Impl> impl_;
};

// Did the call fail because no server could be reached at all?
bool IsUnreachable(const absl::Status& status);

}  // namespace hearth::client
