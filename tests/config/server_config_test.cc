#include "server/config/server_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>

namespace hearth {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using namespace std::chrono_literals;

absl::StatusOr<ServerConfig> Parse(std::string_view text, std::vector<YamlOverride> settings = {},
                                   const Environment& environment = {}) {
  return ParseServerConfig(text, "f", settings, environment);
}

std::string Mistakes(std::string_view text, std::vector<YamlOverride> settings = {},
                     const Environment& environment = {}) {
  const auto config = Parse(text, std::move(settings), environment);
  return std::string(config.status().message());
}

std::vector<std::string> ChangedKeys(const ServerConfig& before, const ServerConfig& after) {
  const std::vector<ConfigValue> old_values = ConfigValues(before);
  std::vector<std::string> changed;
  for (std::size_t i = 0; const ConfigValue& value : ConfigValues(after)) {  // the same keys in the same order
    if (value.value != old_values[i++].value) changed.push_back(value.key);
  }
  return changed;
}

// Every key with a value that is not its default.
constexpr char kEverythingDifferent[] = R"(
config: {watch: true}
server: {name: "other: one", model_ready: resident}
repository: {roots: ["/a b", './c "d"', "null"], watch: true, poll: 15s}
torch_libraries: [/opt/x.so]
models:
- vad
- {name: resnet-50, version: 3, required: false, pin: true}
- {name: resnet-50, version: 4}
cache:
  budget: {device: 1GiB, host: 33.3%, mapped: 1234567}
  mapped_window: 3MiB
  kept_programs: 8MiB
  rests: 7
  drop_page_cache: true
  responses: 16MiB
  eviction: lru
  demand_half_life: 90s
  min_residency: 4s
  idle_unload: 15m
  failure_backoff: 1s
  max_failure_backoff: 90s
  max_cold_wait: 1500ms
  load_timeout: 3m
  prewarm: true
  refuse_hopeless: false
loading: {threads: 3, background_threads: 2, populate: false}
devices: {fake: {count: 2, memory: 6MiB, copy_rate: 1KiB, failing_frees: 3}}
compute: {threads: 5, intra_op_threads: 2, busy_wait: 50us}
access:
  open: [health, statistics]
  local: []
  roles:
  - {name: ops, token_file: /run/secrets/ops, groups: [repository, control]}
  - {name: by-certificate, certificate_names: [ops.example, "CN: x"], groups: []}
tls: {certificate: /tls.crt, key: /tls.key, client_ca: /ca.crt}
grpc:
  host: "[::1]"
  port: 0
  tls: request
  groups: [inference]
  max_message_bytes: 64MiB
  max_messages_bytes: 65MiB
  reflection: false
  client_shared_memory: true
  model_headers: [x-model]
  completion_queues: 3
  max_in_flight: 7
  max_calls_per_connection: 8
  stall_timeout: 9s
  buffer_pool: 0
  keepalive:
    time: 10s
    timeout: 1s
    permit_without_calls: true
    min_recv_ping_interval: 0s
    max_ping_strikes: 0
    max_connection_age: 1h
http: {host: localhost, port: 9002, tls: server, groups: [health]}
rest: {enabled: false, host: "::1", port: 9000, tls: 'off', groups: [], threads: 3, max_body_bytes: 1MiB, max_bodies_bytes: 3MiB, max_connections: 9, idle_timeout: 5s, stall_timeout: 6s}
metrics: {triton_names: true}
tracing: {endpoint: "http://collector:4318", one_in: 100}
logging: {level: error, format: json, access: true}
limits: {max_tensors: 8, max_dimensions: 4, request_memory: 70MiB}
shutdown: {delay: 5s, drain_timeout: 0s}
)";

TEST(ServerConfig, HasItsDefaultsWithoutAnyFile) {
  const auto config = LoadServerConfig("", {}, {});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_THAT(ChangedKeys(ServerConfig{}, *config), IsEmpty());
  EXPECT_EQ(config->grpc.port, 8001);
  EXPECT_EQ(config->http.port, 8002);
  EXPECT_EQ(config->rest.port, 8000);
}

TEST(ServerConfig, ReadsEveryKey) {
  const auto config = Parse(kEverythingDifferent);
  ASSERT_TRUE(config.ok()) << config.status();
  // All of them differ from their defaults, so none was overlooked ...
  EXPECT_EQ(ChangedKeys(ServerConfig{}, *config), ConfigKeys());
  // ... and each went where it belongs.
  EXPECT_TRUE(config->config.watch);
  EXPECT_EQ(config->server.name, "other: one");
  EXPECT_EQ(config->server.model_ready, ServerConfig::ModelReady::kResident);
  EXPECT_EQ(config->repository.poll, 15s);
  EXPECT_THAT(config->repository.roots, ElementsAre("/a b", "./c \"d\"", "null"));
  EXPECT_THAT(config->torch_libraries, ElementsAre("/opt/x.so"));
  ASSERT_EQ(config->models.size(), 3u);
  EXPECT_EQ(config->models[0].name, "vad");
  EXPECT_EQ(config->models[0].version, std::nullopt);
  EXPECT_TRUE(config->models[0].required);
  EXPECT_FALSE(config->models[0].pin);
  EXPECT_EQ(config->models[1].name, "resnet-50");
  EXPECT_EQ(config->models[1].version, 3);
  EXPECT_FALSE(config->models[1].required);
  EXPECT_TRUE(config->models[1].pin);
  EXPECT_EQ(config->access.open, (AccessGroups{AccessGroup::kHealth, AccessGroup::kStatistics}));
  EXPECT_EQ(config->access.local, AccessGroups{});
  ASSERT_EQ(config->access.roles.size(), 2u);
  EXPECT_EQ(config->access.roles[0].name, "ops");
  EXPECT_EQ(config->access.roles[0].token_file.path, "/run/secrets/ops");
  EXPECT_THAT(config->access.roles[0].token_file.where, HasSubstr("f:"));
  EXPECT_EQ(config->access.roles[0].groups, (AccessGroups{AccessGroup::kRepository, AccessGroup::kControl}));
  EXPECT_THAT(config->access.roles[1].certificate_names, ElementsAre("ops.example", "CN: x"));
  EXPECT_EQ(config->access.roles[1].groups, AccessGroups{});
  EXPECT_EQ(config->tls.certificate.path, "/tls.crt");
  EXPECT_EQ(config->tls.key.path, "/tls.key");
  EXPECT_EQ(config->tls.client_ca.path, "/ca.crt");
  EXPECT_THAT(config->tls.key.where, HasSubstr(": key 'tls.key'"));
  EXPECT_EQ(config->grpc.tls, ServerConfig::Encryption::kRequest);
  EXPECT_EQ(config->http.tls, ServerConfig::Encryption::kServer);
  EXPECT_EQ(config->rest.tls, ServerConfig::Encryption::kOff);
  EXPECT_EQ(config->grpc.groups, AccessGroups{AccessGroup::kInference});
  EXPECT_EQ(config->http.groups, AccessGroups{AccessGroup::kHealth});
  EXPECT_EQ(config->rest.groups, AccessGroups{});
  EXPECT_EQ(config->cache.budget.device, DeviceSizes{BytesOrPercent::Bytes(1 << 30)});
  EXPECT_EQ(config->cache.budget.host, BytesOrPercent::Percent(33.3));
  EXPECT_EQ(config->cache.budget.mapped, BytesOrPercent::Bytes(1234567));
  EXPECT_EQ(config->cache.mapped_window.bytes, std::uint64_t{3} << 20);
  EXPECT_EQ(config->cache.kept_programs, std::uint64_t{8} << 20);
  EXPECT_EQ(config->cache.rests, 7);
  EXPECT_EQ(config->cache.failure_backoff, 1s);
  EXPECT_EQ(config->cache.max_failure_backoff, 90s);
  EXPECT_EQ(config->cache.max_cold_wait, 1500ms);
  EXPECT_EQ(config->cache.load_timeout, std::chrono::minutes(3));
  EXPECT_FALSE(config->cache.refuse_hopeless);
  EXPECT_EQ(config->loading.threads, 3);
  EXPECT_EQ(config->loading.background_threads, 2);
  EXPECT_FALSE(config->loading.populate);
  EXPECT_TRUE(config->cache.drop_page_cache);
  EXPECT_EQ(config->cache.responses, std::uint64_t{16} << 20);
  EXPECT_EQ(config->cache.eviction, ServerConfig::Cache::Eviction::kLru);
  EXPECT_EQ(config->cache.demand_half_life, 90s);
  EXPECT_EQ(config->cache.min_residency, 4s);
  EXPECT_EQ(config->cache.idle_unload, 15min);
  EXPECT_EQ(config->devices.fake.count, 2);
  EXPECT_EQ(config->devices.fake.memory, std::uint64_t{6} << 20);
  EXPECT_EQ(config->devices.fake.copy_rate, 1024u);
  EXPECT_EQ(config->devices.fake.failing_frees, 3);
  EXPECT_EQ(config->compute.threads, 5);
  EXPECT_EQ(config->compute.intra_op_threads, 2);
  EXPECT_EQ(config->compute.busy_wait, std::chrono::microseconds(50));
  EXPECT_EQ(config->grpc.host, "[::1]");
  EXPECT_EQ(config->grpc.port, 0);
  EXPECT_EQ(config->grpc.max_message_bytes, 64u << 20);
  EXPECT_FALSE(config->grpc.reflection);
  EXPECT_TRUE(config->grpc.client_shared_memory);
  EXPECT_EQ(config->grpc.model_headers, std::vector<std::string>{"x-model"});
  EXPECT_EQ(config->grpc.completion_queues, 3);
  EXPECT_EQ(config->grpc.max_in_flight, 7);
  EXPECT_EQ(config->grpc.buffer_pool, 0u);
  EXPECT_EQ(config->grpc.keepalive.time, 10s);
  EXPECT_EQ(config->grpc.keepalive.timeout, 1s);
  EXPECT_TRUE(config->grpc.keepalive.permit_without_calls);
  EXPECT_EQ(config->grpc.keepalive.min_recv_ping_interval, 0s);
  EXPECT_EQ(config->grpc.keepalive.max_ping_strikes, 0);
  EXPECT_EQ(config->grpc.keepalive.max_connection_age, 1h);
  EXPECT_EQ(config->http.host, "localhost");
  EXPECT_EQ(config->http.port, 9002);
  EXPECT_FALSE(config->rest.enabled);
  EXPECT_EQ(config->rest.host, "::1");
  EXPECT_EQ(config->rest.port, 9000);
  EXPECT_EQ(config->rest.threads, 3);
  EXPECT_EQ(config->rest.max_bodies_bytes, std::uint64_t{3} << 20);
  EXPECT_EQ(config->rest.max_body_bytes, 1u << 20);
  EXPECT_EQ(config->rest.max_connections, 9);
  EXPECT_EQ(config->rest.idle_timeout, 5s);
  EXPECT_EQ(config->rest.stall_timeout, 6s);
  EXPECT_TRUE(config->metrics.triton_names);
  EXPECT_EQ(config->tracing.endpoint, "http://collector:4318");
  EXPECT_EQ(config->tracing.one_in, 100);
  EXPECT_EQ(config->logging.level, log::Level::kError);
  EXPECT_EQ(config->logging.format, log::Format::kJson);
  EXPECT_TRUE(config->logging.access);
  EXPECT_EQ(config->limits.max_tensors, 8);
  EXPECT_EQ(config->limits.max_dimensions, 4);
  EXPECT_EQ(config->limits.request_memory, BytesOrPercent::Bytes(70 << 20));
  EXPECT_EQ(config->grpc.max_messages_bytes, std::uint64_t{65} << 20);
  EXPECT_EQ(config->grpc.max_calls_per_connection, 8);
  EXPECT_EQ(config->grpc.stall_timeout, 9s);
  EXPECT_EQ(config->shutdown.delay, 5s);
  EXPECT_EQ(config->shutdown.drain_timeout, 0s);
}

TEST(ServerConfig, IsPrintedAsYamlThatReadsBackTheSame) {
  for (const std::string_view text : {std::string_view(), std::string_view(kEverythingDifferent)}) {
    const auto config = Parse(text);
    ASSERT_TRUE(config.ok()) << config.status();
    const std::string printed = PrintServerConfig(*config);
    const auto again = Parse(printed);
    ASSERT_TRUE(again.ok()) << again.status() << "\n" << printed;
    EXPECT_EQ(PrintServerConfig(*again), printed);
    EXPECT_THAT(ChangedKeys(*config, *again), IsEmpty());
  }
}

TEST(ServerConfig, DevicesMayHaveBudgetsOfTheirOwn) {
  for (const char* text : {"devices: {fake: {count: 1}}\ncache: {budget: {device: {fake:0: 4GiB, \"cuda:1\": 60%}}}\n",
                           "devices: {fake: {count: 1}}\ncache:\n  budget:\n    device:\n      fake:0: 4GiB\n      cuda:1: 60%\n"}) {
    const auto config = Parse(text);
    ASSERT_TRUE(config.ok()) << config.status();
    const DeviceSizes& sizes = config->cache.budget.device;
    EXPECT_EQ(sizes.Of("fake:0", 100), std::uint64_t{4} << 30);
    EXPECT_EQ(sizes.Of("cuda:1", 1000), 600u) << "of that device's own memory";
    EXPECT_EQ(sizes.Of("cuda:2", 1000), 900u) << "what is not named has the default";
    const auto again = Parse(PrintServerConfig(*config));
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_EQ(again->cache.budget.device, sizes);
  }
  const auto set = Parse("devices: {fake: {count: 2}}", {{"cache.budget.device", "{fake:1: 1GiB}", "--set cache.budget.device"}});
  ASSERT_TRUE(set.ok()) << set.status();
  EXPECT_EQ(set->cache.budget.device.Of("fake:1", 1), std::uint64_t{1} << 30);
}

TEST(ServerConfig, ASettingTakesThePlaceOfTheDevicesOfTheFileAndTheOtherWayRound) {
  const auto size = Parse("cache: {budget: {device: {cuda:0: 4GiB}}}\n",
                          {{"cache.budget.device", "20MiB", "--set cache.budget.device"}});
  ASSERT_TRUE(size.ok()) << size.status();
  EXPECT_EQ(size->cache.budget.device, DeviceSizes{BytesOrPercent::Bytes(20 << 20)});
  const auto mapping = Parse("cache: {budget: {device: 20MiB}}\n",
                             {{"cache.budget.device", "{cuda:0: 4GiB}", "--set cache.budget.device"}});
  ASSERT_TRUE(mapping.ok()) << mapping.status();
  EXPECT_EQ(mapping->cache.budget.device.Of("cuda:0", 1), std::uint64_t{4} << 30);
  EXPECT_THAT(Mistakes("cache: {budget: {host: 1GiB}}\n", {{"cache.budget", "20MiB", "--set cache.budget"}}, {}),
              HasSubstr("--set cache.budget: key 'cache.budget': is a mapping; set a key in it, such as cache.budget.host"));
}

TEST(ServerConfig, WhatCanBeNoDeviceIsNamedWithItsPlace) {
  for (const char* name : {"cuda", "cpu:0", "gpu 0", "cuda:x", "cuda:01", "cuda:-1", "CUDA:0", ":0", "cuda:"}) {
    const std::string mistakes = Mistakes(StrCat("cache:\n  budget:\n    device:\n      \"", name, "\": 1GiB\n"));
    EXPECT_THAT(mistakes, HasSubstr(StrCat("f:4:", 11 + std::string_view(name).size(), ": key 'cache.budget.device.", name, "': '",
                                           name, "' is no device that memory can be counted of; write cuda:0"))) << name;
  }
}

TEST(ServerConfig, ATestDeviceThatIsNotThereIsNamedWithItsPlaceAndAllOfThemAre) {
  EXPECT_EQ(Mistakes("devices: {fake: {count: 1}}\ncache: {budget: {device: {fake:0: 1GiB, fake:1: 1GiB, cuda:7: 1GiB}}}\n",
                     {{"cache.budget.device.fake:9", "1GiB", "--set cache.budget.device.fake:9"}}, {}),
            "f:2:49: key 'cache.budget.device.fake:1': there is no such device; devices.fake.count is 1\n"
            "--set cache.budget.device.fake:9: key 'cache.budget.device.fake:9': there is no such device; "
            "devices.fake.count is 1");
}

TEST(ServerConfig, ADevicesBudgetKnowsWhereItWasSaid) {
  const auto config = Parse("cache: {budget: {device: {cuda:0: 1GiB}}}\n",
                            {{"cache.budget.device.cuda:1", "1GiB", "--set cache.budget.device.cuda:1"}});
  ASSERT_TRUE(config.ok()) << config.status();
  ASSERT_EQ(config->cache.budget.device.named.size(), 2u);
  EXPECT_EQ(config->cache.budget.device.named[0].where, "f:1:35");
  EXPECT_EQ(config->cache.budget.device.named[1].where, "--set cache.budget.device.cuda:1");
}

TEST(ServerConfig, ADevicesBudgetHasToBeASize) {
  EXPECT_THAT(Mistakes("cache: {budget: {device: {fake:0: lots}}}\n"),
              HasSubstr("'cache.budget.device.fake:0': 'lots' is not a size"));
  EXPECT_THAT(Mistakes("cache: {budget: {device: {fake:0: 1GiB, fake:0: 2GiB}}}\n"), HasSubstr("fake:0"));
  EXPECT_THAT(Mistakes("cache: {budget: {device: [1GiB]}}\n"), HasSubstr("cache.budget.device"));
}

TEST(ServerConfig, ReportsMistakesOfEverySourceAtOnce) {
  EXPECT_EQ(
      Mistakes("grpc:\n  prot: 1\ncompute: {threads: -1}\nlogging: {level: loud}\n",
               {{"http.port", "70000", "--http-port"}}, {{"HEARTH_CACHE__BUDGET__HOST", "lots"}}),
      "f:2:3: key 'grpc.prot': unknown key; did you mean 'port'?\n"
      "f:3:20: key 'compute.threads': -1 is out of range; it must be between 0 and 4096\n"
      "f:4:18: key 'logging.level': 'loud' is not one of 'debug', 'info', 'warning', 'error'\n"
      "$HEARTH_CACHE__BUDGET__HOST: key 'cache.budget.host': 'lots' is not a size; write a number "
      "with a unit or a percentage, such as 12GiB or 60%\n"
      "--http-port: key 'http.port': 70000 is out of range; it must be between 0 and 65535");
}

TEST(ServerConfig, LetsFlagsWinOverTheEnvironmentAndThatOverTheFile) {
  const std::string_view file = "grpc: {port: 1, max_in_flight: 1, completion_queues: 3}\n";
  const Environment environment = {{"HEARTH_GRPC__PORT", "2"}, {"HEARTH_GRPC__MAX_IN_FLIGHT", "2"}};
  const auto config = Parse(file, {{"grpc.port", "3", "--set grpc.port"}}, environment);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->grpc.port, 3);
  EXPECT_EQ(config->grpc.max_in_flight, 2);
  EXPECT_EQ(config->grpc.completion_queues, 3);
}

TEST(ServerConfig, LetsTheLimitOfRequestsInProgressBeLifted) {
  const auto config = Parse("grpc: {max_in_flight: 0}\n");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->grpc.max_in_flight, 0);
}

TEST(ServerConfig, TakesListsFromTheEnvironment) {
  const auto config = Parse("", {},
                            {{"HEARTH_REPOSITORY__ROOTS", "/models"},
                             {"HEARTH_MODELS", "[vad, {name: x, pin: true}]"},
                             {"HEARTH_TORCH_LIBRARIES", "[/a.so, /b.so]"}});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_THAT(config->repository.roots, ElementsAre("/models"));
  EXPECT_THAT(config->torch_libraries, ElementsAre("/a.so", "/b.so"));
  ASSERT_EQ(config->models.size(), 2u);
  EXPECT_TRUE(config->models[1].pin);
}

TEST(ServerConfig, RefusesVariablesThatNameNoKey) {
  EXPECT_EQ(Mistakes("", {}, {{"HEARTH_GRPC_PORT", "1"}}),
            "$HEARTH_GRPC_PORT: names no key; did you mean HEARTH_GRPC__PORT?");
  EXPECT_EQ(Mistakes("", {}, {{"HEARTH_COLOUR", "red"}}),
            "$HEARTH_COLOUR: names no key; '__' goes between levels, as in HEARTH_GRPC__PORT");
  EXPECT_THAT(Mistakes("", {}, {{"HEARTH_GRPC", "{port: 1}"}}),
              HasSubstr("$HEARTH_GRPC: names no key"));
}

TEST(ServerConfig, IgnoresVariablesThatAreNotMeantForIt) {
  const Environment environment = {
      {"HEARTH_CONFIG", "/etc/hearth.yaml"},
      {"HEARTH_ADDRESS", "localhost:8001"},
      {"HEARTH_TOKEN_FILE", "/run/secrets/token"},
      {"HEARTH_TLS", "1"},
      {"HEARTH_CA", "/etc/ca.pem"},
      {"HEARTH_CERT", "/etc/cert.pem"},
      {"HEARTH_KEY", "/etc/key.pem"},
      {"HEARTH_GRPC__PORT", ""},  // set to nothing
      {"PATH", "/bin"},
      // A Kubernetes Service called hearth, and one called hearth-grpc.
      {"HEARTH_SERVICE_HOST", "10.0.0.1"},
      {"HEARTH_SERVICE_PORT", "8001"},
      {"HEARTH_SERVICE_PORT_METRICS", "8002"},
      {"HEARTH_PORT", "tcp://10.0.0.1:8001"},
      {"HEARTH_PORT_8001_TCP", "tcp://10.0.0.1:8001"},
      {"HEARTH_PORT_8001_TCP_ADDR", "10.0.0.1"},
      {"HEARTH_GRPC_SERVICE_HOST", "10.0.0.2"},
      {"HEARTH_GRPC_PORT", "tcp://10.0.0.2:8001"},
  };
  const auto config = Parse("", {}, environment);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_THAT(ChangedKeys(ServerConfig{}, *config), IsEmpty());
}

TEST(ServerConfig, RefusesTwoListenersOnOnePort) {
  EXPECT_EQ(
      Mistakes("http: {port: 8001}\n"),
      "f:1:14: key 'http.port': 8001 is also grpc.port; each listener needs a port of its own");
  EXPECT_EQ(
      Mistakes("", {{"grpc.port", "8002", "--grpc-port"}}),
      "--grpc-port: key 'grpc.port': 8002 is also http.port; each listener needs a port of its "
      "own");
  EXPECT_EQ(Mistakes("rest: {port: 8001}\n"),
            "f:1:14: key 'rest.port': 8001 is also grpc.port; each listener needs a port of its own");
  EXPECT_TRUE(Parse("rest: {port: 8001, enabled: false}\n").ok());
  EXPECT_TRUE(Parse("http: {port: 0}\ngrpc: {port: 0}\nrest: {port: 0}\n").ok());
}

TEST(ServerConfig, ChecksTheListOfModels) {
  EXPECT_EQ(
      Mistakes("models:\n- ../etc/passwd\n- {version: 1}\n- {name: a, version: 0}\n"
               "- {name: b, pni: true}\n- b\n- [c]\n"),
      "f:2:3: key 'models[0]': '../etc/passwd' is not a model's name: letters, digits, '.', '_' "
      "and '-', the first a letter or digit, 128 at most\n"
      "f:3:3: key 'models[1].name': is required\n"
      "f:4:22: key 'models[2].version': 0 is out of range; it must be between 1 and "
      "9223372036854775807\n"
      "f:5:13: key 'models[3].pni': unknown key; did you mean 'pin'?\n"
      "f:6:3: key 'models[4]': 'b' is listed twice\n"
      "f:7:3: key 'models[5]': must be a mapping, not a list");
  EXPECT_TRUE(Parse("models: [{name: a, version: 1}, {name: a, version: 2}, a]\n").ok());
}

TEST(ServerConfig, ChecksGroupsAndRoles) {
  EXPECT_THAT(Mistakes("access: {open: [inferense]}"), HasSubstr("'inferense'"));
  EXPECT_THAT(Mistakes("access: {open: inference}"), HasSubstr("access.open"));
  EXPECT_THAT(Mistakes("access: {roles: [{name: ops, token_file: /t}]}"), HasSubstr("access.roles[0].groups': is required"));
  EXPECT_THAT(Mistakes("access: {roles: [{token_file: /t, groups: []}]}"), HasSubstr("access.roles[0].name': is required"));
  EXPECT_THAT(Mistakes("access: {roles: [{name: ops, groups: [control]}]}"), HasSubstr("nobody can have this role"));
  EXPECT_THAT(Mistakes("access: {roles: [{name: ops, token_file: '', groups: []}]}"), HasSubstr("must not be empty"));
  EXPECT_THAT(Mistakes("access: {roles: [{name: ops, token: secret, groups: []}]}"), HasSubstr("unknown key"));
  EXPECT_THAT(Mistakes("access: {roles: [{name: a, token_file: /t, groups: []}, {name: a, token_file: /t, groups: []}]}"),
              HasSubstr("'a' is listed twice"));
}

TEST(ServerConfig, ChecksThatCertificatesAndWhatNeedsThemAreThere) {
  EXPECT_THAT(Mistakes("tls: {certificate: /c}"), HasSubstr("'tls.certificate': needs tls.key"));
  EXPECT_THAT(Mistakes("tls: {key: /k}"), HasSubstr("'tls.key': needs tls.certificate"));
  EXPECT_THAT(Mistakes("tls: {client_ca: /a}"), HasSubstr("'tls.client_ca': needs tls.certificate"));
  EXPECT_THAT(Mistakes("rest: {tls: server}"), HasSubstr("'rest.tls': needs tls.certificate"));
  EXPECT_THAT(Mistakes("tls: {certificate: /c, key: /k}\nhttp: {tls: mutual}"), HasSubstr("'http.tls': needs tls.client_ca"));
  EXPECT_THAT(Mistakes("access: {roles: [{name: a, certificate_names: [b], groups: []}]}"), HasSubstr("needs tls.client_ca"));
  EXPECT_TRUE(Parse("tls: {certificate: /c, key: /k}\ngrpc: {tls: 'off'}").ok());
}

TEST(ServerConfig, ChecksWhatKeysMeanTogetherAndAlone) {
  EXPECT_THAT(Mistakes("repository: {roots: []}\n"), HasSubstr("name at least one directory"));
  EXPECT_THAT(Mistakes("repository: {roots: ['']}\n"), HasSubstr("has an empty item"));
  EXPECT_THAT(Mistakes("grpc: {host: ''}\n"), HasSubstr("must not be empty"));
  EXPECT_THAT(Mistakes("cache: {failure_backoff: 3m}\n"),
              HasSubstr("3m is longer than cache.max_failure_backoff, 2m"));
  EXPECT_THAT(Mistakes("cache: {max_cold_wait: 0s}\n"), HasSubstr("between 1ms and 576h"));
  EXPECT_THAT(Mistakes("shutdown: {drain_timeout: 10000h}\n"), HasSubstr("between 0s and 576h"));
  EXPECT_THAT(Mistakes("cache: {budget: {host: 120%}}\n"), HasSubstr("between 0% and 100%"));
  EXPECT_THAT(Mistakes("grpc: {max_message_bytes: 4GiB}\n"), HasSubstr("between 1 and 2147483647"));
}

class ServerConfigFile : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "/hearth-config-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }
  std::filesystem::path directory_;
};

TEST_F(ServerConfigFile, IsReadFromDiskAndNamedInMessages) {
  const std::string file = directory_ / "hearth.yaml";
  std::ofstream(file) << "server: {name: disk}\n";
  auto config = LoadServerConfig(file, {}, {});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->server.name, "disk");

  std::ofstream(file) << "sever: {}\n";
  config = LoadServerConfig(file, {}, {});
  EXPECT_EQ(std::string(config.status().message()),
            file + ":1:1: key 'sever': unknown key; did you mean 'server'?");
}

TEST_F(ServerConfigFile, ThatIsMissingOrADirectoryIsRefused) {
  const auto missing = LoadServerConfig(directory_ / "no.yaml", {}, {});
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(missing.status().message()), HasSubstr("no.yaml: No such file"));
  const auto directory = LoadServerConfig(directory_, {}, {});
  EXPECT_EQ(directory.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(directory.status().message()), HasSubstr("is a directory"));
}

TEST(QuoteYaml, QuotesWhatYamlWouldReadOtherwise) {
  EXPECT_EQ(QuoteYaml("/models/a-b.c"), "/models/a-b.c");
  EXPECT_EQ(QuoteYaml("hearth"), "hearth");
  for (const std::string text : {"", "null", "~", "True", "0.0.0.0", "a b", "a: b", "[a", "- a",
                                 "#a", "a\"b\\c", "line\nbreak", "\x01", "*a", "übung"}) {
    const std::string quoted = QuoteYaml(text);
    EXPECT_EQ(quoted.front(), '"') << text;
    YamlReader yaml("k: " + quoted, "f");
    std::string back = "unread";
    yaml.root().Map([&](YamlMap& m) { m["k"].Read(back); });
    EXPECT_TRUE(yaml.status().ok()) << yaml.status();
    EXPECT_EQ(back, text);
  }
}

TEST(CurrentEnvironment, HasTheVariablesOfThisProcess) {
  ASSERT_EQ(setenv("CONFIG_TEST_VARIABLE", "a=b", 1), 0);
  EXPECT_EQ(CurrentEnvironment().at("CONFIG_TEST_VARIABLE"), "a=b");
  unsetenv("CONFIG_TEST_VARIABLE");
}

}  // namespace
}  // namespace hearth
