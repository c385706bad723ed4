#include "server/app.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "server/app_options.h"
#include "server/base/bytes.h"
#include "server/base/file_watcher.h"
#include "server/base/log.h"
#include "server/base/mutex.h"
#include "server/base/service_manager.h"
#include "server/base/thread_pool.h"
#include "server/base/thread_priority.h"
#include "server/base/timer.h"
#include "server/config/config_diff.h"
#include "server/frontend/grpc_server.h"
#include "server/frontend/http_guard.h"
#include "server/frontend/http_routes.h"
#include "server/frontend/http_server.h"
#include "server/frontend/model_config_reader.h"
#include "server/frontend/rest_routes.h"
#include "server/metrics/metrics.h"
#include "server/residency/model_manager.h"
#include "server/serving/access.h"
#include "server/serving/cache_service.h"
#include "server/serving/infer_service.h"
#include "server/serving/preloader.h"
#include "server/serving/prewarmer.h"
#include "server/serving/repository_poller.h"
#include "server/serving/repository_service.h"
#include "server/serving/repository_watcher.h"
#include "server/serving/version_routes.h"
#include "server/storage/catalog.h"
#include "server/storage/mapped_files.h"
#include "server/tensor/buffer_pool.h"
#include "server/tensor/byte_allowance.h"
#include "server/torch_backend/aoti_loader.h"
#include "server/torch_backend/devices.h"
#include "server/torch_backend/rehearsal.h"
#include "server/torch_backend/runtime.h"
#include "server/torch_backend/torchscript_loader.h"

namespace hearth {
namespace {

void LogBudgets(const MemoryBudget::Capacity& capacity, const ListedDevices& devices, const MemoryLimit& limit) {
  for (DeviceNumber d = 0; d < devices.size(); ++d) {
    log::Info("device", {{"name", devices[d].name},
                         {"memory", FormatBytes(devices[d].memory_bytes)},
                         {"budget", FormatBytes(capacity.device_bytes[d])}});
  }
  log::Info("budgets", {{"device", FormatBytes(capacity.device_bytes.total())},
                        {"host", FormatBytes(capacity.host_bytes)},
                        {"mapped", FormatBytes(capacity.mapped_bytes)},
                        {"limit", FormatBytes(limit.bytes)},
                        {"limit_from", limit.source}});
}

// Of a budget that is smaller than what has to stay for now.
std::vector<std::string> StillHeld(const Bytes& excess, const DeviceNames& devices) {
  std::vector<std::string> notes;
  for (const Dimension dimension : Dimensions(excess.device_bytes.end())) {
    const std::uint64_t bytes = Of(excess, dimension);
    if (bytes == 0) continue;
    const bool on_device = dimension.kind == Dimension::kDevice;
    notes.push_back(StrCat(FormatBytes(bytes), " more than cache.budget.", ToString(dimension.kind),
                           on_device ? StrCat(" of ", NameOf(dimension, devices)) : "",
                           " are in use or pinned; they leave when they are idle and not pinned any more"));
  }
  return notes;
}

Bytes LostBytes(const Devices& devices) {
  Bytes lost;
  DeviceNumber device = 0;
  for (const std::uint64_t bytes : devices.LostBytes()) lost.device_bytes.Set(device++, bytes);
  return lost;
}

std::vector<Metrics::Sample> BackendSamples(const BackgroundVerifier& verifier, const KeptPrograms& kept) {
  const auto verified = [](const char* result, std::uint64_t count) {
    return Metrics::Sample{"hearth_verified_models_total",
                           "Models whose weights were compared with their checksums in the background.",
                           {{"result", result}},
                           static_cast<double>(count),
                           /*counter=*/true};
  };
  return {verified("whole", verifier.verified()), verified("damaged", verifier.damaged()),
          {"hearth_kept_programs", "Programs kept for models that come back, or have the same program.", {},
           static_cast<double>(kept.count.load())},
          {"hearth_kept_program_bytes", "Host memory set aside that kept programs are charged.", {},
           static_cast<double>(kept.bytes.load())}};
}

std::vector<Metrics::Sample> RunSamples(const RunScheduler::Counts& counts, bool triton_names) {
  std::map<std::string, double> waiting;  // versions of a model together
  for (const auto& [model, requests] : counts.waiting) waiting[model.name] += static_cast<double>(requests);
  std::vector<Metrics::Sample> samples = {
          {"hearth_runs", "Runs under way.", {}, static_cast<double>(counts.running)},
          {"hearth_overdue_runs", "Of those, the ones that take far longer than others of their model did.", {},
           static_cast<double>(counts.overdue)}};
  for (const auto& [model, requests] : waiting) {
    samples.push_back({"hearth_queued_requests", "Requests that wait for a compute thread.", {{"model", model}}, requests});
  }
  for (const auto& [model, requests] : counts.waiting) {
    if (!triton_names) break;
    samples.push_back({"nv_inference_pending_request_count", "Requests that wait for a run.",
                       {{"model", model.name}, {"version", std::to_string(model.version)}}, static_cast<double>(requests)});
  }
  return samples;
}

std::vector<Metrics::Sample> ResponseSamples(const ResponseCache::Counts& counts) {
  return {{"hearth_response_cache_bytes", "Inputs and answers that are kept.", {}, static_cast<double>(counts.bytes)},
          {"hearth_response_cache_entries", "Answers that are kept.", {}, static_cast<double>(counts.entries)},
          {"hearth_response_cache_evictions_total", "Answers that went to make room for others.", {},
           static_cast<double>(counts.evictions), true}};
}

std::vector<Metrics::Sample> RequestMemorySamples(const ByteAllowance& memory) {
  return {{"hearth_request_memory_bytes", "Tensors of requests under way, and answers that have not been sent.", {},
           static_cast<double>(memory.held())},
          {"hearth_request_memory_limit_bytes", "What they may be (limits.request_memory).", {},
           static_cast<double>(memory.most())}};
}

std::vector<Metrics::Sample> HeartbeatSamples(const Heartbeats& heartbeats) {
  std::vector<Metrics::Sample> samples;
  for (const Heartbeats::Silence& part : heartbeats.all()) {
    samples.push_back({"hearth_heartbeat_age_seconds",
                       "Since a part that must not stop said that it goes on, about once a second.",
                       {{"part", part.name}},
                       ToSeconds(part.since)});
  }
  return samples;
}

constexpr std::uint64_t kForSmallRequests = 16;  // of limits.request_memory
constexpr std::size_t kSlowOnReserve = 3;        // runs there that turn out to be slow, beside one more

// What became of the files that the configuration names.
struct SecretsRead {
  absl::Status tokens, certificates;

  absl::Status together() const {
    if (tokens.ok()) return certificates;
    if (certificates.ok()) return tokens;
    return absl::Status(tokens.code(), StrCat(FromAbsl(tokens.message()), "\n", FromAbsl(certificates.message())));
  }
};

// After the first time. Each stays as it was for itself.
void TellSecrets(const SecretsRead& read) {
  if (read.together().ok()) return log::Info("tokens and certificates read again", {});
  const auto tell = [](std::string_view what, const absl::Status& status) {
    if (status.ok()) return log::Info(StrCat(what, " read again"), {});
    log::Error(StrCat(what, " not read again; the old ones stay in use"), {{"reason", FromAbsl(status.message())}});
  };
  tell("tokens", read.tokens);
  tell("certificates", read.certificates);
}

std::vector<Metrics::Sample> TrustSamples(const Access& access, const TlsSource* tls) {
  std::vector<Metrics::Sample> samples = access.Samples();
  if (tls == nullptr) return samples;
  samples.push_back({"hearth_certificate_expiry_timestamp_seconds", "When the certificate of the server expires.", {},
                     ToSeconds(tls->current()->expires.time_since_epoch())});
  return samples;
}

// What somebody who has only just started hearthd needs to know.
constexpr char kNoRepository[] =
    "; name the directory with your models: --model-repository DIR, or repository.roots in the "
    "configuration";

std::vector<std::filesystem::path> Paths(const std::vector<std::string>& texts) {
  return {texts.begin(), texts.end()};
}

}  // namespace

struct App::Parts {
  Parts(ServerConfig c, ReadConfig read, std::string file)
      : read_config(std::move(read)), config_file(std::move(file)), config(std::move(c)) {}

  const ReadConfig read_config;
  const std::string config_file;
  const ServiceManager service_manager;
  const SteadyClock clock;

  Mutex mu;
  CondVar stop_changed;
  bool stop_requested ABSL_GUARDED_BY(mu) = false;
  bool draining ABSL_GUARDED_BY(mu) = false;
  bool announced ABSL_GUARDED_BY(mu) = false;  // READY=1 was sent
  ServerConfig config ABSL_GUARDED_BY(mu);  // in force
  MemoryLimit limit;                        // constant once started, as is the next
  std::uint64_t kept_program_bytes = 0;

  // From the bottom of the include direction to its top; destroyed from the top down.
  std::unique_ptr<Metrics> metrics;
  Heartbeats heartbeats{clock};
  std::unique_ptr<BufferPool> buffers;
  std::shared_ptr<ByteAllowance> request_memory;
  std::unique_ptr<BufferPool> request_buffers;  // of the same, counted against it
  std::unique_ptr<SharedMemory> shared_memory;
  std::unique_ptr<Catalog> catalog;
  std::shared_ptr<Devices> devices;
  std::unique_ptr<Loader> torchscript;
  std::unique_ptr<Loader> aoti;
  std::unique_ptr<ThreadTimer> timer;
  std::unique_ptr<ThreadPool> load_pool;
  std::unique_ptr<ThreadPool> background_pool;
  std::unique_ptr<ThreadPool> unload_pool;
  std::unique_ptr<ThreadPool> compute_pool;
  std::unique_ptr<ThreadPool> reserve_pool;
  std::unique_ptr<ThreadPool> answers_pool;
  std::unique_ptr<ThreadPool> config_pool;  // one thread: reloads and looks at the repository
  std::unique_ptr<ModelManager> manager;
  std::unique_ptr<VersionRoutes> versions;
  std::unique_ptr<OtlpExporter> traces;  // null unless it is configured
  std::unique_ptr<InferService> infer;
  std::unique_ptr<RepositoryService> repository;
  std::unique_ptr<CacheService> cache;
  std::unique_ptr<Preloader> preloader;
  std::unique_ptr<Prewarmer> prewarmer;
  std::unique_ptr<RepositoryPoller> poller;
  std::unique_ptr<RepositoryWatcher> repository_watcher;  // config_pool's, once started
  std::unique_ptr<FileWatcher> watcher;  // config_pool's
  std::unique_ptr<Access> access;
  std::unique_ptr<TlsSource> tls;  // null without certificates. Set before anything listens
  std::unique_ptr<FileWatcher> secrets_watcher;  // config_pool's, once started
  std::unique_ptr<HttpServer> http;
  std::unique_ptr<HttpServer> rest;  // null unless it is configured
  std::unique_ptr<GrpcServer> grpc;

  absl::Status BuildCore(const ServerConfig& c);
  absl::Status BuildServices(const ServerConfig& c);
  absl::Status Listen(const ServerConfig& c);
  // On config_pool.
  absl::StatusOr<ConfigReload> Reload(bool dry_run);
  std::vector<std::string> Apply(const ServerConfig& c);
  void Watch(bool wanted);
  SecretsRead ReadSecrets(const ServerConfig& c);
  absl::Status TakeCertificates(const ServerConfig& c);
  void WatchSecrets(const ServerConfig& c);
  void StopReloads();
  void ReadinessMayHaveChanged();
  absl::Status Drain();
  absl::Status WaitUntil(Deadline deadline, const std::function<bool()>& done);
  absl::Status WhatHangs() const;
};

App::App(ServerConfig config, ReadConfig read_config, std::string config_file)
    : parts_(std::make_unique<Parts>(std::move(config), std::move(read_config), std::move(config_file))) {}

App::~App() {
  parts_->StopReloads();
  parts_->grpc.reset();
  parts_->rest.reset();
  parts_->http.reset();
  parts_->preloader.reset();
  // A run that is queued holds a handle, and a handle must not outlive the manager.
  if (parts_->compute_pool != nullptr) parts_->compute_pool->Shutdown();
  if (parts_->reserve_pool != nullptr) parts_->reserve_pool->Shutdown();
  if (parts_->answers_pool != nullptr) parts_->answers_pool->Shutdown();
}

absl::Status App::Start() {
  ServerConfig config;
  {
    MutexLock lock(parts_->mu);
    config = parts_->config;
  }
  HEARTH_ASSIGN_OR_RETURN(parts_->limit, FindMemoryLimit());
  parts_->kept_program_bytes = KeptProgramBytes(config.cache, parts_->limit);
  HEARTH_RETURN_IF_ERROR(parts_->BuildCore(config));
  HEARTH_RETURN_IF_ERROR(parts_->BuildServices(config));
  HEARTH_RETURN_IF_ERROR(parts_->Listen(config));
  parts_->preloader->Apply(PreloadItems(config.models));
  parts_->prewarmer->SetEnabled(config.cache.prewarm);
  parts_->config_pool->Post([parts = parts_.get(), repository = config.repository] {
    parts->repository_watcher->Set({repository.watch, repository.poll});
  });
  if (config.config.watch) {
    parts_->config_pool->Post([parts = parts_.get(), config] {
      parts->Watch(true);
      // What changed before anybody watched.
      const absl::StatusOr<ServerConfig> now = parts->read_config();
      if (now.ok() && !DiffConfigs(config, *now).empty()) (void)parts->Reload(/*dry_run=*/false);
    });
  }
  return absl::OkStatus();
}

// What knows nothing of requests: numbers, memory, files, formats.
absl::Status App::Parts::BuildCore(const ServerConfig& c) {
  InitialiseTorch();
  RehearseLoad();
  HEARTH_RETURN_IF_ERROR(LoadOperatorLibraries(Paths(c.torch_libraries)));
  metrics = std::make_unique<Metrics>(Metrics::Options{.version = HEARTH_VERSION,
                                                       .commit = HEARTH_COMMIT,
                                                       .torch = TorchVersion(),
                                                       .grpc = grpc::Version(),
                                                       .triton_names = c.metrics.triton_names});
  metrics->ConfigReloaded(true, clock.WallNow());  // it was good, or we would not be here
  buffers = std::make_unique<BufferPool>(c.grpc.buffer_pool);
  request_memory = std::make_shared<ByteAllowance>(c.limits.request_memory.Of(limit.bytes), kForSmallRequests);
  request_buffers = std::make_unique<BufferPool>(*buffers, request_memory);
  metrics->AddCollector([memory = request_memory] { return RequestMemorySamples(*memory); });
  shared_memory = std::make_unique<SharedMemory>(c.grpc.client_shared_memory);
  catalog = std::make_unique<Catalog>(Paths(c.repository.roots), ReadModelConfig);
  if (const absl::Status scanned = catalog->Scan(); !scanned.ok()) {
    return absl::Status(scanned.code(), StrCat(FromAbsl(scanned.message()), kNoRepository));
  }
  // Models of both kinds share weights.
  const auto mapped_files = std::make_shared<MappedFiles>(
      c.cache.drop_page_cache ? MappedFile::AfterUse::kDropCached : MappedFile::AfterUse::kLeaveCached);
  const auto verifier = std::make_shared<BackgroundVerifier>(mapped_files);
  const ServerConfig::Devices::Fake& fake = c.devices.fake;
  devices = std::make_shared<Devices>(Devices::Fakes{fake.count, fake.memory, fake.copy_rate, fake.failing_frees});
  const auto kept_programs = std::make_shared<KeptPrograms>();
  metrics->AddCollector([verifier, kept_programs] { return BackendSamples(*verifier, *kept_programs); });
  torchscript = MakeTorchScriptLoader({.populate = c.loading.populate,
                                       .kept_program_bytes = kept_program_bytes,
                                       .kept_programs = kept_programs,
                                       .mapped_files = mapped_files,
                                       .verifier = verifier,
                                       .devices = devices});
  aoti = MakeAotiLoader({.populate = c.loading.populate,
                         .runs = ComputeThreads(c.compute),
                         .temporary = {},
                         .mapped_files = mapped_files,
                         .verifier = verifier,
                         .devices = devices});
  return absl::OkStatus();
}

// Threads, the cache, and the two services that every front end calls.
absl::Status App::Parts::BuildServices(const ServerConfig& c) {
  HEARTH_RETURN_IF_ERROR(CheckDeviceBudgets(c.cache, devices->list()));
  const MemoryBudget::Capacity capacity = CapacityOf(c.cache, limit, devices->list(), kept_program_bytes);
  LogBudgets(capacity, devices->list(), limit);
  const int intra_op = c.compute.intra_op_threads;
  const int processors = ComputeThreads(c.compute) * intra_op;
  const auto for_runs = [=] { ConfigureTorchThread(intra_op, processors); };
  const auto for_loads = [] { ConfigureTorchThread(1, 1); };
  timer = std::make_unique<ThreadTimer>();
  load_pool = std::make_unique<ThreadPool>(ThreadPool::Options{
      "load", static_cast<std::size_t>(c.loading.threads), for_loads,
      /*replacements=*/static_cast<std::size_t>(c.loading.threads)});
  background_pool = std::make_unique<ThreadPool>(
      ThreadPool::Options{"preload", static_cast<std::size_t>(c.loading.background_threads), [for_loads] {
                            RunThisThreadInBackground();
                            for_loads();
                          }, /*replacements=*/static_cast<std::size_t>(c.loading.background_threads)});
  unload_pool = std::make_unique<ThreadPool>(ThreadPool::Options{"unload", 1, {}, /*replacements=*/8});
  compute_pool = std::make_unique<ThreadPool>(ThreadPool::Options{
      .name = "compute",
      .threads = static_cast<std::size_t>(ComputeThreads(c.compute)),
      .on_thread_start = for_runs,
      .busy_wait = ComputeBusyWait(c.compute)});
  reserve_pool = std::make_unique<ThreadPool>(ThreadPool::Options{"reserve", 1, for_runs, /*replacements=*/kSlowOnReserve});
  answers_pool = std::make_unique<ThreadPool>(ThreadPool::Options{"answers", 1, {}});
  config_pool = std::make_unique<ThreadPool>(ThreadPool::Options{"config", 1, {}});
  manager = std::make_unique<ModelManager>(
      ModelManager::Deps{
          .find_spec = [this](const ModelId& id) { return catalog->Spec(id); },
          .find_loader = [this](std::string_view format) -> absl::StatusOr<const Loader*> {
            if (format == "torchscript") return torchscript.get();
            if (format == "aoti") return aoti.get();
            return absl::UnimplementedError(StrCat("no loader for the format '", format, "'"));
          },
          .load_executor = *load_pool,
          .timer = *timer,
          .clock = clock,
          .metrics = *metrics,
          .eviction = &PolicyOf(c.cache),
          .background_executor = background_pool.get(),
          .unload_executor = unload_pool.get(),
          .pulse = &heartbeats.Add("cache"),
          .devices = NamesOf(devices->list()),
          .lost_bytes = [this] { return LostBytes(*devices); }},
      ManagerOptions(c.cache, capacity));
  metrics->AddCollector([this] { return manager->Samples(); });
  metrics->AddCollector([this] { return HeartbeatSamples(heartbeats); });
  versions = std::make_unique<VersionRoutes>(VersionRoutes::Deps{*catalog, *manager});
  if (!c.tracing.endpoint.empty()) {
    HEARTH_ASSIGN_OR_RETURN(OtlpExporter::Options tracing, TracingOptions(c));
    traces = std::make_unique<OtlpExporter>(std::move(tracing));
    metrics->AddCollector([this] { return traces->Counts(); });
  }
  infer = std::make_unique<InferService>(
      InferService::Deps{*catalog, *manager, *compute_pool, *timer, clock, *metrics, *versions, *buffers, reserve_pool.get(),
                         answers_pool.get(), traces.get(), intra_op},
      InferOptions(c));
  metrics->AddCollector([this, triton = c.metrics.triton_names] { return RunSamples(infer->runs(), triton); });
  metrics->AddCollector([this] { return infer->SequenceSamples(); });
  metrics->AddCollector([this] { return ResponseSamples(infer->responses()); });
  repository = std::make_unique<RepositoryService>(RepositoryService::Deps{
      *catalog, *manager, clock, *versions, [this] { preloader->RenewPins(); }, &heartbeats,
      config_pool.get(), c.server.model_ready == ServerConfig::ModelReady::kLoadable});
  cache = std::make_unique<CacheService>(CacheService::Deps{*catalog, *manager, clock, *versions});
  preloader = std::make_unique<Preloader>(
      Preloader::Deps{*catalog, *manager, *timer, clock, config_pool.get()},
      PreloaderOptions(c.cache), [this] { ReadinessMayHaveChanged(); });
  prewarmer = std::make_unique<Prewarmer>(Prewarmer::Deps{
      *manager, *timer, clock, [this](const ModelId& id) { return catalog->Resolve(id.name, id.version).ok(); }});
  poller = std::make_unique<RepositoryPoller>(RepositoryPoller::Deps{
      *catalog, *manager, *timer, clock, *config_pool, [this] {
        versions->Rescanned();
        preloader->RenewPins();
      }, [this](const ModelId& id) { return versions->GoesOn(id); }});
  repository_watcher = std::make_unique<RepositoryWatcher>(
      RepositoryWatcher::Deps{Paths(c.repository.roots), *poller, *timer, clock});
  return absl::OkStatus();
}

absl::Status App::Parts::Listen(const ServerConfig& c) {
  access = std::make_unique<Access>(clock);
  HEARTH_RETURN_IF_ERROR(ReadSecrets(c).together());
  WatchSecrets(c);
  metrics->AddCollector([this] { return TrustSamples(*access, tls.get()); });
  HEARTH_ASSIGN_OR_RETURN(
      http, HttpServer::Start(
                HttpOptions(c.http, tls.get()),
                ServeRoutes(OperationalRoutes({.metrics = [this] { return metrics->Text(); },
                                               .live = [this] { return repository->live(); },
                                               .why_not_ready = [this] { return repository->why_not_ready(); }}),
                            [this](AccessGroup group, const HttpRequest& request) {
                              return RefusalOf(*access, Listener::kHttp, group, request);
                            })));
  HEARTH_ASSIGN_OR_RETURN(
      grpc, GrpcServer::Start({*infer, *repository, *cache, *request_buffers, *shared_memory, *metrics, clock, *access,
                               [this](bool dry_run, ReloadCallback done) {
                                 config_pool->Post([this, dry_run, done = std::move(done)]() mutable {
                                   std::move(done)(Reload(dry_run));
                                 });
                               }, &heartbeats},
                              GrpcOptions(c, tls.get())));
  if (c.rest.enabled) {
    HEARTH_ASSIGN_OR_RETURN(rest, HttpServer::Start(RestOptions(c, *buffers, tls.get()),
                                                    MakeRestHandler({*infer, *repository, *metrics, *request_buffers, *shared_memory, clock, *access,
                                                                     c.server.name, Version(), c.rest.max_body_bytes})));
  }
  log::Info("listening", {{"grpc_host", c.grpc.host},
                          {"grpc_port", grpc->port()},
                          {"http_host", c.http.host},
                          {"http_port", static_cast<int>(http->port())},
                          {"rest_host", c.rest.enabled ? c.rest.host : "off"},
                          {"rest_port", rest == nullptr ? 0 : static_cast<int>(rest->port())},
                          {"models", catalog->List().size()}});
  return absl::OkStatus();
}

void App::Parts::ReadinessMayHaveChanged() {
  const std::vector<std::string> waiting = preloader->waiting_for();
  const bool ready = waiting.empty();
  MutexLock lock(mu);  // orders two changes; below are only flags and datagrams
  if (draining || grpc == nullptr) return;
  const bool changed = repository->ready() != ready;
  const std::string why = ready ? "" : StrCat("waiting for ", QuotedList(waiting));
  repository->SetWhyNotReady(why);
  grpc->SetServing(ready);
  if (!ready) {
    service_manager.Status(why);
  } else if (!announced) {
    announced = true;
    service_manager.Ready("serving");
  }
  if (changed) log::Info(ready ? "ready" : "not ready", {{"waiting_for", QuotedList(waiting)}});
}

void App::Reload() {
  parts_->config_pool->Post([parts = parts_.get()] { (void)parts->Reload(/*dry_run=*/false); });
}

absl::StatusOr<ConfigReload> App::Parts::Reload(bool dry_run) {
  if (!dry_run) service_manager.Reloading();
  absl::StatusOr<ServerConfig> next = read_config();
  if (next.ok()) {
    const absl::Status known = CheckDeviceBudgets(next->cache, devices->list());
    if (!known.ok()) next = known;
  }
  if (next.ok()) {
    if (const absl::Status secrets = CheckSecrets(*next); !secrets.ok()) next = secrets;
  }
  ConfigReload reload;
  if (dry_run) {
    HEARTH_RETURN_IF_ERROR(next.status());
    MutexLock lock(mu);
    reload.changes = DiffConfigs(config, *next);
    return reload;
  }
  metrics->ConfigReloaded(next.ok(), clock.WallNow());
  if (next.ok()) {
    ServerConfig now;
    {
      MutexLock lock(mu);
      reload.changes = DiffConfigs(config, *next);
      config = TakeOver(config, *next);
      now = config;
    }
    reload.notes = Apply(now);
    std::vector<std::string> restart;
    for (const ConfigChange& change : reload.changes) {
      if (change.needs_restart) restart.push_back(change.key);
      log::Info("configuration changed", {{"key", change.key},
                                          {"before", change.before},
                                          {"after", change.after},
                                          {"needs_restart", change.needs_restart}});
    }
    for (const std::string& note : reload.notes) log::Warning("configuration applied in part", {{"reason", note}});
    log::Info("configuration reloaded", {{"needs_restart", QuotedList(restart)}});
  } else {
    log::Error("configuration not reloaded; the old one stays in force",
               {{"reason", FromAbsl(next.status().message())}});
  }
  {
    MutexLock lock(mu);
    if (announced) service_manager.Ready("serving");
  }
  HEARTH_RETURN_IF_ERROR(next.status());
  return reload;
}

// Everything, changed or not: to be told the same again is no change. Returns what else to know of it.
std::vector<std::string> App::Parts::Apply(const ServerConfig& c) {
  log::Configure(c.logging.level, c.logging.format);
  const MemoryBudget::Capacity capacity = CapacityOf(c.cache, limit, devices->list(), kept_program_bytes);
  if (capacity != manager->usage().configured) LogBudgets(capacity, devices->list(), limit);
  const Bytes excess = manager->Reconfigure(ManagerOptions(c.cache, capacity), &PolicyOf(c.cache));
  infer->SetOptions(InferOptions(c));
  request_memory->SetMost(c.limits.request_memory.Of(limit.bytes));
  preloader->SetOptions(PreloaderOptions(c.cache));
  prewarmer->SetEnabled(c.cache.prewarm);
  if (const absl::Status scanned = catalog->Scan(); !scanned.ok()) {
    log::Error("repository not rescanned", {{"reason", FromAbsl(scanned.message())}});
  }
  versions->Rescanned();
  preloader->Apply(PreloadItems(c.models));
  repository_watcher->Set({c.repository.watch, c.repository.poll});
  Watch(c.config.watch);
  if (const SecretsRead read = ReadSecrets(c); !read.together().ok()) TellSecrets(read);  // they were good a moment ago
  WatchSecrets(c);
  return StillHeld(excess, manager->devices());
}

void App::Parts::Watch(bool wanted) {
  if (!wanted || config_file.empty()) return watcher.reset();
  if (watcher != nullptr) return;
  auto started = FileWatcher::Start({config_file}, *timer, clock, {}, [this] {
    config_pool->Post([this] { (void)Reload(/*dry_run=*/false); });
  });
  if (started.ok()) {
    watcher = *std::move(started);
  } else {
    log::Error("configuration not watched", {{"reason", FromAbsl(started.status().message())}});
  }
}

// What the configuration leaves to files of their own: tokens and certificates. Of each, what is no good changes nothing.
SecretsRead App::Parts::ReadSecrets(const ServerConfig& c) {
  absl::StatusOr<AccessPolicy> policy = AccessPolicyOf(c);
  if (policy.ok()) access->Set(*std::move(policy));
  return {policy.status(), TakeCertificates(c)};
}

absl::Status App::Parts::TakeCertificates(const ServerConfig& c) {
  HEARTH_ASSIGN_OR_RETURN(std::optional<TlsMaterial> material, TlsMaterialOf(c));
  if (!material) return absl::OkStatus();
  log::Info("certificate", {{"subject", material->subject},
                            {"expires_in_days", ToSeconds(material->expires - clock.WallNow()) / (24 * 3600)}});
  if (tls != nullptr) return tls->Set(*std::move(material));
  HEARTH_ASSIGN_OR_RETURN(tls, TlsSource::Make(*std::move(material)));
  return absl::OkStatus();
}

// They change without the configuration.
void App::Parts::WatchSecrets(const ServerConfig& c) {
  std::vector<std::filesystem::path> files;
  for (const ServerConfig::Access::Role& role : c.access.roles) {
    if (!role.token_file.path.empty()) files.emplace_back(role.token_file.path);
  }
  for (const PlacedFile* file : {&c.tls.certificate, &c.tls.key, &c.tls.client_ca}) {
    if (!file->path.empty()) files.emplace_back(file->path);
  }
  if (files.empty()) return secrets_watcher.reset();
  auto started = FileWatcher::Start(std::move(files), *timer, clock, {}, [this] {
    config_pool->Post([this] {
      ServerConfig now;
      {
        MutexLock lock(mu);
        now = config;
      }
      TellSecrets(ReadSecrets(now));
    });
  });
  if (!started.ok()) {
    log::Error("tokens and certificates not watched; a reload reads them again", {{"reason", FromAbsl(started.status().message())}});
  }
  secrets_watcher = started.ok() ? *std::move(started) : nullptr;
}

// Waits for the one under way; whoever asked for those that wait hears that nobody answers.
void App::Parts::StopReloads() {
  if (config_pool != nullptr) config_pool->Shutdown();
  watcher.reset();
  secrets_watcher.reset();
  repository_watcher.reset();
  poller.reset();
}

void App::RequestStop() {
  MutexLock lock(parts_->mu);
  parts_->stop_requested = true;
  parts_->stop_changed.NotifyAll();
}

absl::Status App::Wait() {
  {
    MutexLock lock(parts_->mu);
    while (!parts_->stop_requested) parts_->stop_changed.Wait(parts_->mu);
  }
  return parts_->Drain();
}

// Not ready, then idle, then empty, then deaf. Each step ends before the next begins, all within
// one deadline. Models leave before connections do: a client that will not hang up is no reason to
// be killed with models half freed.
absl::Status App::Parts::Drain() {
  Duration delay{}, timeout{};
  {
    MutexLock lock(mu);
    draining = true;
    delay = config.shutdown.delay;
    timeout = config.shutdown.drain_timeout;
  }
  log::Info("draining", {{"in_flight", infer->in_flight()}, {"timeout_s", ToSeconds(timeout)}});
  service_manager.Stopping("draining");
  repository->SetWhyNotReady("draining");
  grpc->SetServing(false);
  if (delay > Duration::zero()) {  // balancers need a moment to notice
    const TimePoint until = clock.Now() + delay;
    MutexLock lock(mu);
    while (clock.Now() < until) stop_changed.WaitUntil(mu, until);
  }
  const Deadline deadline = clock.Now() + timeout;
  StopReloads();
  preloader->Stop();
  prewarmer->SetEnabled(false);
  // First, so that a request on an open connection hears UNAVAILABLE and not that its call was cut.
  infer->StopAccepting();
  HEARTH_RETURN_IF_ERROR(WaitUntil(deadline, [this] { return infer->in_flight() == 0; }));
  manager->Shutdown();
  HEARTH_RETURN_IF_ERROR(WaitUntil(deadline, [this] { return manager->idle(); }));
  HEARTH_RETURN_IF_ERROR(grpc->Shutdown(deadline));
  if (rest != nullptr) {
    rest->BeginStop();
    HEARTH_RETURN_IF_ERROR(WaitUntil(deadline, [this] { return rest->calls() == 0; }));
    rest->Stop();
  }
  http->Stop();
  log::Info("stopped", {});
  return absl::OkStatus();
}

absl::Status App::Parts::WaitUntil(Deadline deadline, const std::function<bool()>& done) {
  constexpr Duration kStep = std::chrono::milliseconds(5);
  while (!done()) {
    if (clock.Now() >= deadline) return WhatHangs();
    MutexLock lock(mu);
    stop_changed.WaitUntil(mu, clock.Now() + kStep);
  }
  return absl::OkStatus();
}

absl::Status App::Parts::WhatHangs() const {
  std::vector<std::string> busy;
  for (const ModelCache::Row& row : manager->Snapshot()) {
    if (row.pins > 0 || row.state != ModelState::kReady) {
      busy.push_back(StrCat(ToString(row.id), " (", ToString(row.state), ", ", row.pins, " in use)"));
    }
  }
  return absl::DeadlineExceededError(StrCat("shutdown.drain_timeout passed with ", infer->in_flight(),
                                            " requests in flight; not done: ", QuotedList(busy)));
}

std::string Version() { return HEARTH_VERSION; }

}  // namespace hearth
