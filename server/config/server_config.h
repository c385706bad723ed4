// The whole configuration of the daemon, as plain data with its defaults.
//
// config/hearth.yaml explains every key; a field is called as its key. Where a value comes from,
// the strongest first: the command line, HEARTH_* variables, the file, the defaults here.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "server/base/access_groups.h"
#include "server/base/clock.h"
#include "server/base/log.h"
#include "server/base/small_file.h"
#include "server/base/status.h"
#include "server/base/yaml_reader.h"
#include "server/config/machine_limits.h"

namespace hearth {

struct ServerConfig {
  struct Config {
    bool watch = false;  // reload when the file changes
  };
  enum class ModelReady { kLoadable, kResident };
  struct Server {
    std::string name = "hearth";  // ServerMetadata says it
    ModelReady model_ready = ModelReady::kLoadable;
  };
  struct Repository {
    std::vector<std::string> roots = {"/models"};
    bool watch = false;  // look when something is written there
    Duration poll{};     // between two looks at them; 0: only when told to
  };
  // One model to load before the server is ready, in the order of the list.
  struct Preload {
    std::string name;
    std::optional<std::int64_t> version = {};  // none: the highest
    bool required = true;                      // not ready without it
    bool pin = false;                          // never evicted
  };
  struct Cache {
    enum class Eviction { kGdsf, kLru };
    struct Budget {
      DeviceSizes device = {BytesOrPercent::Percent(90)};  // of that device's memory
      BytesOrPercent host = BytesOrPercent::Percent(50);    // of FindMemoryLimit()
      BytesOrPercent mapped = BytesOrPercent::Percent(80);  // of FindMemoryLimit()
    };
    Budget budget;
    BytesOrPercent mapped_window = BytesOrPercent::Percent(25);  // of budget.mapped; 0: refuse such models
    std::uint64_t kept_programs = std::uint64_t{64} << 20;  // host bytes set aside; 0: keep none
    int rests = 64;  // 0: nothing is left of models that leave a device
    bool drop_page_cache = false;
    std::uint64_t responses = 0;  // bytes of answers kept; 0: none
    Eviction eviction = Eviction::kGdsf;
    Duration demand_half_life = std::chrono::hours(1);
    Duration min_residency{};
    Duration idle_unload{};  // 0: never
    bool prewarm = false;
    Duration failure_backoff = std::chrono::seconds(5);
    Duration max_failure_backoff = std::chrono::minutes(2);
    Duration max_cold_wait = std::chrono::seconds(60);
    Duration load_timeout = std::chrono::minutes(10);  // 0: none
    bool refuse_hopeless = true;
  };
  struct Loading {
    int threads = 2;
    int background_threads = 1;
    bool populate = true;
  };
  struct Devices {
    struct Fake {
      static constexpr int kMost = 16;  // kMaxDevices, which is not for this folder to know
      int count = 0;
      std::uint64_t memory = std::uint64_t{4} << 30;  // of each
      std::uint64_t copy_rate = 0;                    // bytes a second; 0: as fast as memory
      int failing_frees = 0;                          // so many of the first on each
    };
    Fake fake;
  };
  struct Compute {
    int threads = 0;  // 0: FindCpuLimit() / intra_op_threads
    int intra_op_threads = 1;
    Duration busy_wait = std::chrono::microseconds(200);
  };
  // Who may call what; serving/access.h has the rules.
  struct Access {
    struct Role {
      std::string name;
      PlacedFile token_file;
      std::vector<std::string> certificate_names;
      AccessGroups groups;
    };
    AccessGroups open = {AccessGroup::kHealth, AccessGroup::kMetadata, AccessGroup::kInference, AccessGroup::kStatistics};
    AccessGroups local = {AccessGroup::kRepository, AccessGroup::kControl};
    std::vector<Role> roles;
  };
  struct Tls {
    PlacedFile certificate, key, client_ca;
  };
  // What a listener speaks. kAuto: TLS where tls.certificate is set, and a client's certificate where tls.client_ca is
  // (not on http: probes have none).
  enum class Encryption { kAuto, kOff, kServer, kRequest, kMutual };
  struct Grpc {
    struct Keepalive {
      Duration time = std::chrono::hours(2);
      Duration timeout = std::chrono::seconds(20);
      bool permit_without_calls = false;
      Duration min_recv_ping_interval = std::chrono::minutes(5);
      int max_ping_strikes = 2;
      Duration max_connection_age{};  // 0: no limit
    };
    std::string host = "0.0.0.0";
    int port = 8001;  // 0: any that is free
    Encryption tls = Encryption::kAuto;
    AccessGroups groups = AccessGroups::All();  // what is served here, of what access allows
    std::uint64_t max_message_bytes = 2147483647;
    std::uint64_t max_messages_bytes = std::uint64_t{4} << 30;  // of all that are being received
    bool reflection = true;
    bool client_shared_memory = false;
    std::vector<std::string> model_headers = {"mm-model-id"};
    int completion_queues = 1;
    int max_in_flight = 1024;
    int max_calls_per_connection = 1024;
    Duration stall_timeout = std::chrono::minutes(5);  // of an answer; 0: none
    std::uint64_t buffer_pool = std::uint64_t{256} << 20;  // BufferPool's max_kept_bytes
    Keepalive keepalive;
  };
  struct Http {
    std::string host = "0.0.0.0";
    int port = 8002;  // 0: any that is free
    Encryption tls = Encryption::kAuto;
    AccessGroups groups = {AccessGroup::kHealth, AccessGroup::kStatistics};
  };
  struct Rest {
    bool enabled = true;
    std::string host = "0.0.0.0";
    int port = 8000;  // 0: any that is free
    Encryption tls = Encryption::kAuto;
    AccessGroups groups = AccessGroups::All();
    int threads = 1;
    std::uint64_t max_body_bytes = std::uint64_t{64} << 20;
    std::uint64_t max_bodies_bytes = std::uint64_t{1} << 30;
    int max_connections = 1024;
    Duration idle_timeout = std::chrono::seconds(60);
    Duration stall_timeout = std::chrono::seconds(30);
  };
  struct Metrics {
    bool triton_names = false;
  };
  struct Tracing {
    std::string endpoint;  // of an OTLP/HTTP collector; empty: none
    int one_in = 0;        // of so many requests that belong to no trace one begins one; 0: none
  };
  struct Logging {
    log::Level level = log::Level::kInfo;
    log::Format format = log::Format::kText;
    bool access = false;  // one line per request
  };
  struct Limits {
    int max_tensors = 1024;   // inputs of one request, and outputs asked for
    int max_dimensions = 32;  // of one tensor
    BytesOrPercent request_memory = BytesOrPercent::Percent(25);  // of FindMemoryLimit()
  };
  struct Shutdown {
    Duration delay{};  // between "not ready" and refusing new requests
    Duration drain_timeout = std::chrono::seconds(30);
  };

  Config config;
  Server server;
  Repository repository;
  std::vector<std::string> torch_libraries;
  std::vector<Preload> models;
  Cache cache;
  Loading loading;
  Devices devices;
  Compute compute;
  Access access;
  Tls tls;
  Grpc grpc;
  Http http;
  Rest rest;
  Metrics metrics;
  Tracing tracing;
  Logging logging;
  Limits limits;
  Shutdown shutdown;
};

using Environment = std::map<std::string, std::string>;

// The variables of this process.
Environment CurrentEnvironment();

// Reads `file` (empty: none, everything else still counts), applies `environment`'s HEARTH_*
// variables and then `settings`, and checks what can be checked without touching the machine.
// INVALID_ARGUMENT: every mistake, one a line; otherwise the file cannot be read.
//
// HEARTH_CACHE__BUDGET__HOST=4GiB sets cache.budget.host. A variable that is empty counts as unset;
// one that names no key is a mistake, except HEARTH_CONFIG, those of the client (HEARTH_ADDRESS), and
// those that Kubernetes makes for a Service whose name begins with "hearth".
absl::StatusOr<ServerConfig> LoadServerConfig(const std::string& file,
                                              const std::vector<YamlOverride>& settings,
                                              const Environment& environment);
// The same with the file's text at hand; `name` is for messages.
absl::StatusOr<ServerConfig> ParseServerConfig(std::string_view text, const std::string& name,
                                               const std::vector<YamlOverride>& settings,
                                               const Environment& environment);

// Every key with its value in effect, as YAML that ParseServerConfig reads back to the same.
std::string PrintServerConfig(const ServerConfig& config);

// Every key, as its dotted path, with its value as PrintServerConfig writes it; sections left out.
struct ConfigValue {
  std::string key;
  std::string value;
};
std::vector<ConfigValue> ConfigValues(const ServerConfig& config);

// The dotted paths of all keys, sections left out.
std::vector<std::string> ConfigKeys();

// `text` as YAML would read it back: in double quotes unless it is plain enough without.
std::string QuoteYaml(std::string_view text);

}  // namespace hearth
