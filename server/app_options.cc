#include "server/app_options.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <thread>

#include "server/app.h"
#include "server/base/token_file.h"

namespace hearth {

static_assert(ServerConfig::Devices::Fake::kMost == kMaxDevices);

namespace {

constexpr std::size_t kLearnedModels = 4096;  // some hundred bytes each

// What `encryption` means, as a listener's options have it.
template <typename Options>
void SetTls(ServerConfig::Encryption encryption, ClientCertificates usual, const TlsSource* tls, Options& options) {
  using Encryption = ServerConfig::Encryption;
  if (encryption == Encryption::kOff) return;
  options.tls = tls;
  options.client_certificates = encryption == Encryption::kAuto      ? usual
                                : encryption == Encryption::kRequest ? ClientCertificates::kRequest
                                : encryption == Encryption::kMutual  ? ClientCertificates::kMutual
                                                                     : ClientCertificates::kNone;
}

ClientCertificates UsualOf(const ServerConfig& c) {
  return c.tls.client_ca.path.empty() ? ClientCertificates::kNone : ClientCertificates::kMutual;
}

// Of the mapped budget, what a model gets that is larger.
std::uint64_t MappedWindow(const ServerConfig::Cache& cache, const MemoryBudget::Capacity& capacity) {
  return std::min(cache.mapped_window.Of(capacity.mapped_bytes), capacity.mapped_bytes);
}

// That this process may use.
int Processors() { return FindCpuLimit(static_cast<int>(std::max(1U, std::thread::hardware_concurrency()))); }

}  // namespace

std::uint64_t KeptProgramBytes(const ServerConfig::Cache& cache, const MemoryLimit& limit) {
  return std::min(cache.kept_programs, cache.budget.host.Of(limit.bytes) / 8);
}

MemoryBudget::Capacity CapacityOf(const ServerConfig::Cache& cache, const MemoryLimit& limit,
                                  const ListedDevices& devices, std::uint64_t kept_programs) {
  const std::uint64_t host = cache.budget.host.Of(limit.bytes);
  MemoryBudget::Capacity capacity{.host_bytes = host - std::min(kept_programs, host),
                                  .mapped_bytes = cache.budget.mapped.Of(limit.bytes)};
  for (DeviceNumber d = 0; d < devices.size(); ++d) {
    capacity.device_bytes.Set(d, cache.budget.device.Of(devices[d].name, devices[d].memory_bytes));
  }
  return capacity;
}

DeviceNames NamesOf(const ListedDevices& devices) {
  DeviceNames names;
  for (const Devices::Listed& device : devices) names.push_back(device.name);
  return names;
}

absl::Status CheckDeviceBudgets(const ServerConfig::Cache& cache, const ListedDevices& devices) {
  const DeviceNames names = NamesOf(devices);
  const std::string there = names.empty() ? "this machine has no device at all" : StrCat("there are ", QuotedList(names));
  std::string lines;
  for (const DeviceSizes::Named& own : cache.budget.device.named) {
    if (std::find(names.begin(), names.end(), own.device) != names.end()) continue;
    lines += StrCat(lines.empty() ? "" : "\n", own.where, ": key 'cache.budget.device.", own.device,
                    "': there is no such device; ", there);
  }
  if (lines.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(lines);
}

const EvictionPolicy& PolicyOf(const ServerConfig::Cache& cache) {
  static const GdsfPolicy gdsf;  // both are stateless
  static const LruPolicy lru;
  if (cache.eviction == ServerConfig::Cache::Eviction::kLru) return lru;
  return gdsf;
}

ModelManager::Options ManagerOptions(const ServerConfig::Cache& cache, const MemoryBudget::Capacity& capacity) {
  return {.capacity = capacity,
          .failure_backoff = cache.failure_backoff,
          .max_failure_backoff = cache.max_failure_backoff,
          .max_cold_wait = cache.max_cold_wait,
          .demand_half_life = cache.demand_half_life,
          .min_residency = cache.min_residency,
          .mapped_window = MappedWindow(cache, capacity),
          .refuse_hopeless = cache.refuse_hopeless,
          .idle_unload = cache.idle_unload,
          .load_timeout = cache.load_timeout,
          .rests = static_cast<std::size_t>(cache.rests),
          .gaps = cache.prewarm ? kLearnedModels : 0};
}

InferService::Options InferOptions(const ServerConfig& c) {
  return {.limits = {.max_tensors = static_cast<std::size_t>(c.limits.max_tensors),
                     .max_dims = static_cast<std::size_t>(c.limits.max_dimensions)},
          .max_in_flight = c.grpc.max_in_flight,
          .access_log = c.logging.access,
          .response_cache_bytes = c.cache.responses};
}

Preloader::Options PreloaderOptions(const ServerConfig::Cache& cache) {
  return {cache.failure_backoff, cache.max_failure_backoff};
}

absl::StatusOr<OtlpExporter::Options> TracingOptions(const ServerConfig& config) {
  OtlpExporter::Options options;
  auto endpoint = ParseOtlpEndpoint(config.tracing.endpoint);
  if (!endpoint.ok()) return Annotate(endpoint.status(), "tracing.endpoint");
  options.endpoint = *std::move(endpoint);
  std::array<char, 256> host{};
  if (::gethostname(host.data(), host.size() - 1) != 0) host[0] = '\0';
  options.resource = {config.server.name, Version(), host.data()};
  if (config.tracing.one_in > 0) options.sample = 1.0 / config.tracing.one_in;
  return options;
}

int ComputeThreads(const ServerConfig::Compute& compute) {
  if (compute.threads > 0) return compute.threads;
  return std::max(1, Processors() / compute.intra_op_threads);
}

Duration ComputeBusyWait(const ServerConfig::Compute& compute) {
  return Processors() > 1 ? compute.busy_wait : Duration::zero();
}

absl::StatusOr<AccessPolicy> AccessPolicyOf(const ServerConfig& c) {
  AccessPolicy policy{.open = c.access.open, .local = c.access.local, .roles = {}, .served = {}};
  const auto serve = [&policy](Listener listener, AccessGroups groups) {
    policy.served[static_cast<std::size_t>(listener)] = groups;
  };
  serve(Listener::kGrpc, c.grpc.groups);
  serve(Listener::kRest, c.rest.groups);
  serve(Listener::kHttp, c.http.groups);
  std::string mistakes;
  for (const ServerConfig::Access::Role& role : c.access.roles) {
    AccessPolicy::Role& known = policy.roles.emplace_back(role.name, std::vector<std::string>{}, role.certificate_names,
                                                          role.groups);
    if (role.token_file.path.empty()) continue;
    absl::StatusOr<std::vector<std::string>> tokens = ReadTokenFile(role.token_file.path);
    if (tokens.ok()) {
      known.tokens = *std::move(tokens);
    } else {
      mistakes += StrCat(mistakes.empty() ? "" : "\n", role.token_file.where, ": the token_file of the role '", role.name,
                         "': ", FromAbsl(tokens.status().message()));
    }
  }
  if (!mistakes.empty()) return absl::InvalidArgumentError(mistakes);
  return policy;
}

absl::StatusOr<std::optional<TlsMaterial>> TlsMaterialOf(const ServerConfig& c) {
  if (c.tls.certificate.path.empty()) return std::nullopt;
  HEARTH_ASSIGN_OR_RETURN(TlsMaterial material, ReadTlsFiles({c.tls.certificate, c.tls.key, c.tls.client_ca}));
  return material;
}

absl::Status CheckSecrets(const ServerConfig& c) {
  const absl::Status tokens = AccessPolicyOf(c).status(), certificates = TlsMaterialOf(c).status();
  if (tokens.ok()) return certificates;
  if (certificates.ok()) return tokens;
  return absl::InvalidArgumentError(StrCat(FromAbsl(tokens.message()), "\n", FromAbsl(certificates.message())));
}

std::vector<PreloadItem> PreloadItems(const std::vector<ServerConfig::Preload>& models) {
  std::vector<PreloadItem> items;
  for (const auto& model : models) items.push_back({model.name, model.version, model.required, model.pin});
  return items;
}

GrpcServer::Options GrpcOptions(const ServerConfig& config, const TlsSource* tls) {
  const auto ms = [](Duration d) {
    return static_cast<int>(std::chrono::duration_cast<std::chrono::milliseconds>(d).count());
  };
  const ServerConfig::Grpc& grpc = config.grpc;
  GrpcServer::Options options;
  options.address = grpc.host;
  options.port = grpc.port;
  SetTls(grpc.tls, UsualOf(config), tls, options);
  options.threads = grpc.completion_queues;
  options.max_receive_bytes = static_cast<int>(grpc.max_message_bytes);
  options.max_send_bytes = static_cast<int>(grpc.max_message_bytes);
  options.max_messages_bytes = grpc.max_messages_bytes;
  options.max_calls_per_connection = grpc.max_calls_per_connection;
  options.stall_timeout = grpc.stall_timeout;
  options.reflection = grpc.reflection;
  options.model_headers = grpc.model_headers;
  options.keepalive.time_ms = ms(grpc.keepalive.time);
  options.keepalive.timeout_ms = ms(grpc.keepalive.timeout);
  options.keepalive.permit_without_calls = grpc.keepalive.permit_without_calls;
  options.keepalive.min_recv_ping_interval_ms = ms(grpc.keepalive.min_recv_ping_interval);
  options.keepalive.max_ping_strikes = grpc.keepalive.max_ping_strikes;
  options.keepalive.max_connection_age_ms = ms(grpc.keepalive.max_connection_age);
  options.server_name = config.server.name;
  options.server_version = Version();
  return options;
}

HttpServer::Options HttpOptions(const ServerConfig::Http& http, const TlsSource* tls) {
  HttpServer::Options options;
  options.host = http.host;
  options.port = static_cast<std::uint16_t>(http.port);
  SetTls(http.tls, ClientCertificates::kNone, tls, options);
  return options;
}

HttpServer::Options RestOptions(const ServerConfig& config, BufferPool& buffers, const TlsSource* tls) {
  const ServerConfig::Rest& rest = config.rest;
  HttpServer::Options options;
  SetTls(rest.tls, UsualOf(config), tls, options);
  options.name = "rest";
  options.host = rest.host;
  options.port = static_cast<std::uint16_t>(rest.port);
  options.threads = rest.threads;
  options.buffers = &buffers;
  options.idle_timeout = rest.idle_timeout;
  options.read_timeout = rest.stall_timeout;
  options.write_timeout = rest.stall_timeout;
  options.max_body_bytes = rest.max_body_bytes;
  options.max_body_setting = "rest.max_body_bytes";
  options.max_bodies_bytes = rest.max_bodies_bytes;
  options.max_connections = static_cast<std::size_t>(rest.max_connections);
  return options;
}

}  // namespace hearth
