#include "tests/client/fake_server.h"

#include <chrono>
#include <utility>

namespace hearth::client {

using grpc::ServerContext;
using grpc::Status;
using grpc::StatusCode;

class FakeServer::Inference final : public inference::GRPCInferenceService::Service {
 public:
  explicit Inference(Options options) : options_(std::move(options)) {}

  Status ServerLive(ServerContext*, const inference::ServerLiveRequest*,
                    inference::ServerLiveResponse* response) override {
    response->set_live(true);
    return Status::OK;
  }
  Status ServerReady(ServerContext*, const inference::ServerReadyRequest*,
                     inference::ServerReadyResponse* response) override {
    response->set_ready(options_.ready);
    return Status::OK;
  }
  Status ModelReady(ServerContext*, const inference::ModelReadyRequest* request,
                    inference::ModelReadyResponse* response) override {
    response->set_ready(request->name() == "echo" && request->version() != "9");
    return Status::OK;
  }
  Status ServerMetadata(ServerContext*, const inference::ServerMetadataRequest*,
                        inference::ServerMetadataResponse* response) override {
    response->set_name("fake");
    response->set_version("1.2.3");
    response->add_extensions("model_repository");
    return Status::OK;
  }

  Status ModelMetadata(ServerContext*, const inference::ModelMetadataRequest* request,
                       inference::ModelMetadataResponse* response) override {
    if (request->name() == "listed") {
      response->add_outputs()->set_name("z");
      return Status::OK;
    }
    if (request->name() != "echo") return Unknown(request->name());
    response->set_name("echo");
    response->add_versions("1");
    response->add_versions("3");
    response->set_platform("pytorch_libtorch");
    const auto add = [&](const char* name, const char* type, std::initializer_list<int> shape) {
      auto* input = response->add_inputs();
      input->set_name(name);
      input->set_datatype(type);
      for (const int dim : shape) input->add_shape(dim);
    };
    add("x", "FP32", {-1, -1});
    add("sr", "INT64", {1});
    add("text", "BYTES", {-1});
    add("any", "", {});
    (*response->mutable_properties())["residency"] = "mapped";
    return Status::OK;
  }

  Status ModelInfer(ServerContext*, const inference::ModelInferRequest* request,
                    inference::ModelInferResponse* response) override {
    {
      const std::lock_guard lock(mu_);
      last_request_ = *request;
    }
    const std::string& model = request->model_name();
    response->set_model_name(model);
    response->set_model_version("3");
    response->set_id(request->id());
    if (model == "stuck") return WaitForRelease();
    if (model == "echo") return Echo(*request, response);
    if (model == "typed") return Typed(response);
    if (model == "verbose") return Status(StatusCode::INVALID_ARGUMENT, "first line\nhearth: forged");
    if (model != "liar") return Unknown(model);
    auto* output = response->add_outputs();
    output->set_name("y");
    output->set_datatype("FP32");
    output->add_shape(3);
    response->add_raw_output_contents("four");
    return Status::OK;
  }

  Status RepositoryIndex(ServerContext*, const inference::RepositoryIndexRequest* request,
                         inference::RepositoryIndexResponse* response) override {
    const auto add = [&](const char* name, const char* version, const char* state,
                         const std::string& reason) {
      if (request->ready() && std::string(state) != "READY") return;
      auto* model = response->add_models();
      model->set_name(name);
      model->set_version(version);
      model->set_state(state);
      model->set_reason(reason);
    };
    add("broken", "1", "UNAVAILABLE", options_.reason);
    add("echo", "3", "READY", "");
    add("other", "", "", "");
    return Status::OK;
  }
  Status RepositoryModelLoad(ServerContext*, const inference::RepositoryModelLoadRequest* request,
                             inference::RepositoryModelLoadResponse*) override {
    return ChangeModel(request->model_name());
  }
  Status RepositoryModelUnload(ServerContext*, const inference::RepositoryModelUnloadRequest* request,
                               inference::RepositoryModelUnloadResponse*) override {
    return ChangeModel(request->model_name());
  }

  void Release() {
    const std::lock_guard lock(mu_);
    released_ = true;
    release_.notify_all();
  }
  inference::ModelInferRequest last_request() {
    const std::lock_guard lock(mu_);
    return last_request_;
  }

 private:
  static Status Unknown(const std::string& model) {
    return Status(StatusCode::NOT_FOUND, "Request for unknown model: '" + model + "' is not found");
  }
  Status ChangeModel(const std::string& model) {
    if (model == "stuck") return WaitForRelease();
    return model == "echo" ? Status::OK : Unknown(model);
  }
  Status WaitForRelease() {
    std::unique_lock lock(mu_);
    release_.wait(lock, [this] { return released_; });
    return Status::OK;
  }
  static Status Echo(const inference::ModelInferRequest& request, inference::ModelInferResponse* response) {
    for (int i = 0; i < request.inputs_size(); ++i) {
      auto* output = response->add_outputs();
      output->set_name(request.inputs(i).name());
      output->set_datatype(request.inputs(i).datatype());
      *output->mutable_shape() = request.inputs(i).shape();
      response->add_raw_output_contents(request.raw_input_contents(i));
    }
    return Status::OK;
  }
  static Status Typed(inference::ModelInferResponse* response) {
    auto* bytes = response->add_outputs();
    bytes->set_name("small");
    bytes->set_datatype("INT8");
    bytes->add_shape(2);
    bytes->mutable_contents()->add_int_contents(-1);
    bytes->mutable_contents()->add_int_contents(7);
    return Status::OK;
  }

  const Options options_;
  std::mutex mu_;
  std::condition_variable release_;
  bool released_ = false;
  inference::ModelInferRequest last_request_;
};

class FakeServer::Cache final : public hearth::v1::Cache::Service {
 public:
  Cache(bool ready, bool with_devices) : ready_(ready), with_devices_(with_devices) {}

  Status Stat(ServerContext*, const hearth::v1::StatRequest* request,
              hearth::v1::StatResponse* response) override {
    response->mutable_server()->set_name("fake");
    response->mutable_server()->set_version("1.2.3");
    response->mutable_server()->set_uptime_seconds(11220);
    response->mutable_server()->set_ready(ready_);
    response->mutable_server()->set_in_flight(2);
    auto* budget = response->add_budgets();
    budget->set_dimension("mapped");
    budget->set_capacity_bytes(std::uint64_t{8} << 30);
    budget->set_used_bytes(std::uint64_t{3} << 30);
    budget->set_resident_bytes(std::uint64_t{2} << 30);
    budget->set_loading_bytes(std::uint64_t{1} << 30);
    if (request->model().empty() || request->model() == "echo") {
      AddModels(request->model().empty(), response);
    }
    if (with_devices_) AddDevices(response);
    return Status::OK;
  }

  Status Prefetch(ServerContext*, const hearth::v1::PrefetchRequest* request,
                  hearth::v1::PrefetchResponse* response) override {
    response->set_state(request->model() == "echo" ? "ready" : "absent");
    return Known(request->model());
  }
  Status Pin(ServerContext*, const hearth::v1::PinRequest* request, hearth::v1::PinResponse* response) override {
    response->set_version(request->version().empty() ? 3 : std::stoi(request->version()));
    return Known(request->model());
  }
  Status Unpin(ServerContext*, const hearth::v1::UnpinRequest* request,
               hearth::v1::UnpinResponse* response) override {
    response->set_version(3);
    return Known(request->model());
  }
  Status Evict(ServerContext*, const hearth::v1::EvictRequest* request,
               hearth::v1::EvictResponse* response) override {
    if (request->model() == "echo") {
      return Status(StatusCode::FAILED_PRECONDITION, "model 'echo' version 3 is in use");
    }
    response->set_was_resident(false);
    return Known(request->model());
  }
  Status Explain(ServerContext*, const hearth::v1::ExplainRequest* request,
                 hearth::v1::ExplainResponse* response) override {
    response->set_model(request->model());
    response->set_version(3);
    response->set_state("absent");
    response->set_sentence("not resident: evicted 5m ago for other:1: 1 GiB needed");
    response->set_evictions(2);
    *response->mutable_last() = Evicted(9);
    *response->mutable_last_eviction() = Evicted(9);
    *response->mutable_last_failure() = Failed(4);
    return Known(request->model());
  }
  Status Plan(ServerContext*, const hearth::v1::PlanRequest*, hearth::v1::PlanResponse* response) override {
    response->set_half_life_seconds(3600);
    hearth::v1::MemoryPlan* host = response->add_plans();
    host->set_dimension("host");
    host->set_capacity_bytes(1ULL << 30);
    host->set_loads(20);
    host->set_load_seconds(40);
    hearth::v1::MemoryPlan* mapped = response->add_plans();
    *mapped = *host;
    mapped->set_dimension("mapped");
    mapped->set_returns(10);
    for (const auto& [gib, loads] : {std::pair{1, 4.0}, {2, 4.5}, {3, 9.0}, {8, 10.0}}) {
      hearth::v1::PlanPoint* point = mapped->add_points();
      point->set_more_bytes(static_cast<std::uint64_t>(gib) << 30);
      point->set_loads(loads);
      point->set_load_seconds(3 * loads);
    }
    return Status::OK;
  }
  Status Watch(ServerContext*, const hearth::v1::WatchRequest* request,
               grpc::ServerWriter<hearth::v1::WatchResponse>* writer) override {
    hearth::v1::WatchResponse response;
    response.set_dropped(7);
    *response.mutable_event() = Failed(4);
    if (request->history() && request->model() != "other") writer->Write(response);
    response.Clear();
    *response.mutable_event() = Evicted(9);
    if (request->history() && request->model() != "other") writer->Write(response);
    if (request->until_now()) return Status::OK;
    return Status(StatusCode::UNAVAILABLE, "Server exiting");
  }

 private:
  static Status Known(const std::string& model) {
    const bool known = model == "echo" || model == "other";
    return known ? Status::OK : Status(StatusCode::NOT_FOUND, "Request for unknown model: '" + model + "' is not found");
  }
  // Of today, a moment ago.
  static hearth::v1::Event Event(std::uint64_t sequence, const std::string& kind, const std::string& text) {
    hearth::v1::Event event;
    event.set_sequence(sequence);
    event.mutable_time()->set_seconds(std::chrono::system_clock::to_time_t(std::chrono::system_clock::now()));
    event.set_model("echo");
    event.set_version(3);
    event.set_kind(kind);
    event.set_text(text);
    return event;
  }
  static hearth::v1::Event Evicted(std::uint64_t sequence) {
    hearth::v1::Event event = Event(sequence, "evicted", "for other:1: 1 GiB needed");
    event.set_reason("capacity");
    event.mutable_bytes()->set_mapped(1024);
    event.mutable_cause()->set_model("other");
    event.mutable_cause()->set_version(1);
    event.mutable_cause()->set_rank(1);
    return event;
  }
  static hearth::v1::Event Failed(std::uint64_t sequence) {
    hearth::v1::Event event = Event(sequence, "failed", "after 3ms: no \x1b[31m archive (INVALID_ARGUMENT)");
    event.set_error("no archive");
    event.set_code("INVALID_ARGUMENT");
    return event;
  }
  static void AddDevices(hearth::v1::StatResponse* response) {
    auto* sum = response->add_budgets();
    sum->set_dimension("device");
    sum->set_capacity_bytes(std::uint64_t{24} << 30);
    for (const auto& [name, lost] : {std::pair{"cuda:0", 0}, {"cuda:1", 1}}) {
      auto* device = response->add_devices();
      device->set_dimension("device");
      device->set_device(name);
      device->set_capacity_bytes(std::uint64_t{12} << 30);
      device->set_lost_bytes(static_cast<std::uint64_t>(lost) << 30);
    }
    for (auto& model : *response->mutable_models()) {
      if (model.state() != "ready") continue;
      model.mutable_bytes()->set_device(std::uint64_t{3} << 30);
      auto* on = model.mutable_bytes()->add_devices();
      on->set_device("cuda:1");
      on->set_bytes(std::uint64_t{3} << 30);
    }
  }
  static void AddModels(bool all, hearth::v1::StatResponse* response) {
    if (all) {
      auto* broken = response->add_models();
      broken->set_name("broken");
      broken->set_version(1);
      broken->set_state("failed");
      broken->set_error("not a zip archive");
    }
    auto* echo = response->add_models();
    echo->set_name("echo");
    echo->set_version(3);
    echo->set_state("ready");
    echo->set_in_use(2);
    echo->set_pinned(true);
    echo->mutable_bytes()->set_host(1536);
    echo->mutable_bytes()->set_mapped(std::uint64_t{2} << 30);
    echo->mutable_bytes()->set_window(std::uint64_t{2} << 30);
    echo->mutable_load()->set_mapped_bytes(std::uint64_t{64} << 30);
    echo->set_hits(41);
    // Far enough from the hour's borders that the answer does not depend on how long the test takes.
    const auto used = std::chrono::system_clock::now() - std::chrono::minutes(150);
    echo->mutable_last_used()->set_seconds(std::chrono::system_clock::to_time_t(used));
    auto* phase = echo->add_load_phases();
    phase->set_name("map");
    phase->set_milliseconds(1.5);
    phase = echo->add_load_phases();
    phase->set_name("parse");
    phase->set_milliseconds(40.500000000000007);
    echo->set_requests_succeeded(42);
    echo->set_requests_failed(1);
    echo->set_mean_request_seconds(0.0123);
    echo->set_mean_infer_seconds(0.0008);
  }

  const bool ready_;
  const bool with_devices_;
};

class FakeServer::Config final : public hearth::v1::Config::Service {
 public:
  explicit Config(bool bad) : bad_(bad) {}
  Status Reload(ServerContext*, const hearth::v1::ReloadRequest* request,
                hearth::v1::ReloadResponse* response) override {
    if (bad_) return Status(StatusCode::INVALID_ARGUMENT, "f:1:1: unknown key\nf:2:1: unknown key");
    auto* budget = response->add_changes();
    budget->set_key("cache.budget.host");
    budget->set_before("50%");
    budget->set_after("4GiB");
    auto* port = response->add_changes();
    port->set_key("grpc.port");
    port->set_before("8001");
    port->set_after("9001");
    port->set_needs_restart(true);
    if (!request->dry_run()) response->add_notes("1 GiB is in use.");
    return Status::OK;
  }

 private:
  const bool bad_;
};

class FakeServer::Health final : public grpc::health::v1::Health::Service {
 public:
  explicit Health(bool ready) : ready_(ready) {}
  Status Check(ServerContext*, const grpc::health::v1::HealthCheckRequest* request,
               grpc::health::v1::HealthCheckResponse* response) override {
    if (!request->service().empty()) return Status(StatusCode::NOT_FOUND, "unknown service");
    response->set_status(ready_ ? grpc::health::v1::HealthCheckResponse::SERVING
                                : grpc::health::v1::HealthCheckResponse::NOT_SERVING);
    return Status::OK;
  }

 private:
  const bool ready_;
};

FakeServer::FakeServer(Options options)
    : inference_(std::make_unique<Inference>(options)),
      cache_(std::make_unique<Cache>(options.ready, options.with_devices)),
      config_(std::make_unique<Config>(options.bad_config)),
      health_(std::make_unique<Health>(options.ready)) {
  grpc::EnableDefaultHealthCheckService(false);
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.SetMaxReceiveMessageSize(-1);
  builder.AddListeningPort(options.address, grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(inference_.get());
  if (options.with_cache) builder.RegisterService(cache_.get());
  if (options.with_cache) builder.RegisterService(config_.get());
  builder.RegisterService(health_.get());
  server_ = builder.BuildAndStart();
  address_ = "127.0.0.1:" + std::to_string(port);
}

FakeServer::~FakeServer() {
  Release();
  server_->Shutdown();
}

void FakeServer::Release() { inference_->Release(); }

inference::ModelInferRequest FakeServer::last_request() { return inference_->last_request(); }

}  // namespace hearth::client
