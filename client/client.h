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
};

// A model that is loaded, loading, unloading or failed.
struct ModelStat {
  std::string name;
  std::int64_t version = 0;
  std::string state;         // queued, loading, ready, draining, unloading, failed
  std::int64_t in_use = 0;   // requests that hold it right now
  bool pinned = false;       // never evicted
  std::uint64_t device_bytes = 0, host_bytes = 0, mapped_bytes = 0;
  std::uint64_t window_bytes = 0;  // of the mapped bytes, a window on weights larger than the budget
  std::optional<WallTime> last_used, loaded_at;
  std::uint64_t hits = 0;
  std::vector<PhaseStat> load_phases;  // of its latest load
  LoadStat load = {};                  // likewise
  std::uint64_t requests_succeeded = 0, requests_failed = 0;
  double mean_request_seconds = 0, mean_infer_seconds = 0;
  std::string error;  // why its latest load failed

  double load_milliseconds() const {
    double sum = 0;
    for (const PhaseStat& phase : load_phases) sum += phase.milliseconds;
    return sum;
  }
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
  absl::Status Load(const std::string& model);
  absl::Status Unload(const std::string& model);
  absl::StatusOr<std::vector<IndexEntry>> Index(bool ready_only = false);
  // What is resident and how it fares. `model`: only this one. UNIMPLEMENTED by servers other than
  // hearthd.
  absl::StatusOr<ServerStat> Stat(const std::string& model = "");

 private:
  struct Impl;
  explicit Client(std::unique_ptr<Impl> impl);
  const std::unique_ptr<Impl> impl_;
};

// Did the call fail because no server could be reached at all?
bool IsUnreachable(const absl::Status& status);

}  // namespace hearth::client
