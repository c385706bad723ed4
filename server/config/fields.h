// The keys of the configuration, once: what reads them, prints them and compares them walks this
// list. config/ only.
#pragma once

#include <array>
#include <string_view>
#include <utility>

#include "server/config/server_config.h"

namespace hearth {

inline constexpr std::array<std::pair<std::string_view, log::Level>, 4> kLogLevels = {{
    {"debug", log::Level::kDebug},
    {"info", log::Level::kInfo},
    {"warning", log::Level::kWarning},
    {"error", log::Level::kError},
}};
inline constexpr std::array<std::pair<std::string_view, log::Format>, 2> kLogFormats = {{
    {"text", log::Format::kText},
    {"json", log::Format::kJson},
}};

inline constexpr std::array<std::pair<std::string_view, ServerConfig::Cache::Eviction>, 2> kEvictions = {{
    {"gdsf", ServerConfig::Cache::Eviction::kGdsf},
    {"lru", ServerConfig::Cache::Eviction::kLru},
}};

inline constexpr std::array<std::pair<std::string_view, ServerConfig::ModelReady>, 2> kModelReady = {{
    {"loadable", ServerConfig::ModelReady::kLoadable},
    {"resident", ServerConfig::ModelReady::kResident},
}};

inline constexpr std::array<std::pair<std::string_view, ServerConfig::Encryption>, 5> kEncryptions = {{
    {"auto", ServerConfig::Encryption::kAuto},
    {"off", ServerConfig::Encryption::kOff},
    {"server", ServerConfig::Encryption::kServer},
    {"request", ServerConfig::Encryption::kRequest},
    {"mutual", ServerConfig::Encryption::kMutual},
}};

// Times go to libraries as milliseconds in an int: 24 days.
inline constexpr Duration kLongestTime = std::chrono::hours(24 * 24);
inline constexpr Duration kShortestTime = std::chrono::milliseconds(1);

// `Config` is ServerConfig or const ServerConfig. A Visitor has
//   Section(key, fields)          a mapping; calls `fields` unless there is nothing to visit
//   Text(key, string)             not empty
//   MaybeText(key, string)        may be empty
//   Texts(key, strings)           none of them empty
//   Flag(key, bool)  Int(key, int, min, max)  Time(key, Duration, min)  Size(key, BytesOrPercent)
//   DeviceSizes(key, DeviceSizes)
//   Bytes(key, uint64, min, max)  Word(key, enum, names)  Models(key, preloads)
//   Groups(key, AccessGroups)  Roles(key, roles)  File(key, PlacedFile)
template <typename Visitor, typename Config>
void VisitGrpcFields(Visitor& v, Config& grpc) {
  v.Text("host", grpc.host);
  v.Int("port", grpc.port, 0, 65535);
  v.Word("tls", grpc.tls, kEncryptions);
  v.Groups("groups", grpc.groups);
  v.Bytes("max_message_bytes", grpc.max_message_bytes, 1, 2147483647);
  v.Bytes("max_messages_bytes", grpc.max_messages_bytes, std::uint64_t{1} << 20, std::uint64_t{1} << 40);
  v.Flag("reflection", grpc.reflection);
  v.Flag("client_shared_memory", grpc.client_shared_memory);
  v.Texts("model_headers", grpc.model_headers);
  v.Int("completion_queues", grpc.completion_queues, 1, 64);
  v.Int("max_in_flight", grpc.max_in_flight, 0, 1 << 20);
  v.Int("max_calls_per_connection", grpc.max_calls_per_connection, 1, 1 << 20);
  v.Time("stall_timeout", grpc.stall_timeout, Duration{});
  v.Bytes("buffer_pool", grpc.buffer_pool, 0, std::uint64_t{1} << 40);
  v.Section("keepalive", [&] {
    auto& keepalive = grpc.keepalive;
    v.Time("time", keepalive.time, kShortestTime);
    v.Time("timeout", keepalive.timeout, kShortestTime);
    v.Flag("permit_without_calls", keepalive.permit_without_calls);
    v.Time("min_recv_ping_interval", keepalive.min_recv_ping_interval, Duration{});
    v.Int("max_ping_strikes", keepalive.max_ping_strikes, 0, 1000);
    v.Time("max_connection_age", keepalive.max_connection_age, Duration{});
  });
}

template <typename Visitor, typename Config>
void VisitCacheFields(Visitor& v, Config& cache) {
  v.Section("budget", [&] {
    v.DeviceSizes("device", cache.budget.device);
    v.Size("host", cache.budget.host);
    v.Size("mapped", cache.budget.mapped);
  });
  v.Size("mapped_window", cache.mapped_window);
  v.Bytes("kept_programs", cache.kept_programs, 0, std::uint64_t{1} << 40);
  v.Int("rests", cache.rests, 0, 100000);
  v.Flag("drop_page_cache", cache.drop_page_cache);
  v.Bytes("responses", cache.responses, 0, std::uint64_t{1} << 40);
  v.Word("eviction", cache.eviction, kEvictions);
  v.Time("demand_half_life", cache.demand_half_life, kShortestTime);
  v.Time("min_residency", cache.min_residency, Duration{});
  v.Time("idle_unload", cache.idle_unload, Duration{});
  v.Flag("prewarm", cache.prewarm);
  v.Time("failure_backoff", cache.failure_backoff, kShortestTime);
  v.Time("max_failure_backoff", cache.max_failure_backoff, kShortestTime);
  v.Time("max_cold_wait", cache.max_cold_wait, kShortestTime);
  v.Time("load_timeout", cache.load_timeout, Duration{});
  v.Flag("refuse_hopeless", cache.refuse_hopeless);
}

template <typename Visitor, typename Config>
void VisitFields(Visitor& v, Config& config) {
  v.Section("config", [&] { v.Flag("watch", config.config.watch); });
  v.Section("server", [&] {
    v.Text("name", config.server.name);
    v.Word("model_ready", config.server.model_ready, kModelReady);
  });
  v.Section("repository", [&] {
    v.Texts("roots", config.repository.roots);
    v.Flag("watch", config.repository.watch);
    v.Time("poll", config.repository.poll, Duration{});
  });
  v.Texts("torch_libraries", config.torch_libraries);
  v.Models("models", config.models);
  v.Section("cache", [&] { VisitCacheFields(v, config.cache); });
  v.Section("loading", [&] {
    v.Int("threads", config.loading.threads, 1, 256);
    v.Int("background_threads", config.loading.background_threads, 1, 256);
    v.Flag("populate", config.loading.populate);
  });
  v.Section("devices", [&] {
    v.Section("fake", [&] {
      v.Int("count", config.devices.fake.count, 0, ServerConfig::Devices::Fake::kMost);
      v.Bytes("memory", config.devices.fake.memory, 1, std::uint64_t{1} << 50);
      v.Bytes("copy_rate", config.devices.fake.copy_rate, 0, std::uint64_t{1} << 50);
      v.Int("failing_frees", config.devices.fake.failing_frees, 0, 1 << 20);
    });
  });
  v.Section("compute", [&] {
    v.Int("threads", config.compute.threads, 0, 4096);
    v.Int("intra_op_threads", config.compute.intra_op_threads, 1, 1024);
    v.Time("busy_wait", config.compute.busy_wait, Duration{});
  });
  v.Section("access", [&] {
    v.Groups("open", config.access.open);
    v.Groups("local", config.access.local);
    v.Roles("roles", config.access.roles);
  });
  v.Section("tls", [&] {
    v.File("certificate", config.tls.certificate);
    v.File("key", config.tls.key);
    v.File("client_ca", config.tls.client_ca);
  });
  v.Section("grpc", [&] { VisitGrpcFields(v, config.grpc); });
  v.Section("http", [&] {
    v.Text("host", config.http.host);
    v.Int("port", config.http.port, 0, 65535);
    v.Word("tls", config.http.tls, kEncryptions);
    v.Groups("groups", config.http.groups);
  });
  v.Section("rest", [&] {
    v.Flag("enabled", config.rest.enabled);
    v.Text("host", config.rest.host);
    v.Int("port", config.rest.port, 0, 65535);
    v.Word("tls", config.rest.tls, kEncryptions);
    v.Groups("groups", config.rest.groups);
    v.Int("threads", config.rest.threads, 1, 64);
    v.Bytes("max_body_bytes", config.rest.max_body_bytes, 1, std::uint64_t{1} << 40);
    v.Bytes("max_bodies_bytes", config.rest.max_bodies_bytes, 1, std::uint64_t{1} << 40);
    v.Int("max_connections", config.rest.max_connections, 1, 1 << 20);
    v.Time("idle_timeout", config.rest.idle_timeout, kShortestTime);
    v.Time("stall_timeout", config.rest.stall_timeout, kShortestTime);
  });
  v.Section("metrics", [&] { v.Flag("triton_names", config.metrics.triton_names); });
  v.Section("tracing", [&] {
    v.MaybeText("endpoint", config.tracing.endpoint);
    v.Int("one_in", config.tracing.one_in, 0, 1'000'000'000);
  });
  v.Section("logging", [&] {
    v.Word("level", config.logging.level, kLogLevels);
    v.Word("format", config.logging.format, kLogFormats);
    v.Flag("access", config.logging.access);
  });
  v.Section("limits", [&] {
    v.Int("max_tensors", config.limits.max_tensors, 1, 1 << 20);
    v.Int("max_dimensions", config.limits.max_dimensions, 1, 1024);
    v.Size("request_memory", config.limits.request_memory);
  });
  v.Section("shutdown", [&] {
    v.Time("delay", config.shutdown.delay, Duration{});
    v.Time("drain_timeout", config.shutdown.drain_timeout, Duration{});
  });
}

}  // namespace hearth
