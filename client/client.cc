#include "client/client.h"

#include <grpcpp/grpcpp.h>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdint>
#include <system_error>
#include <utility>

#include "absl/strings/cord.h"
#include "client/status_macros.h"
#include "client/strings.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "hearth/v1/cache.grpc.pb.h"
#include "hearth/v1/config.grpc.pb.h"
#include "inference.grpc.pb.h"

namespace hearth::client {
namespace {

using Service = inference::GRPCInferenceService;
using HealthService = grpc::health::v1::Health;
using HealthReply = grpc::health::v1::HealthCheckResponse;
using TimePoint = std::chrono::system_clock::time_point;

constexpr char kUnreachablePayload[] = "hearth.dev/unreachable";

absl::Status FromGrpc(const grpc::Status& status) {
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

// An HTTP proxy is never on the way to this machine itself, whatever http_proxy says.
bool IsLoopback(std::string_view address) {
  return address.starts_with("localhost:") || address.starts_with("127.") ||
         address.starts_with("[::1]") || address.starts_with("unix:");
}

// Whether a plain connection to HOST:PORT comes about; false as well for addresses of any other kind.
bool SomebodyListens(const std::string& address) {
  const std::size_t colon = address.rfind(':');
  if (colon == address.npos) return false;
  std::string host = address.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (::getaddrinfo(host.c_str(), address.c_str() + colon + 1, &hints, &found) != 0) return false;
  bool listens = false;
  for (const addrinfo* one = found; one != nullptr && !listens; one = one->ai_next) {
    const int fd = ::socket(one->ai_family, one->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, one->ai_protocol);
    if (fd < 0) continue;
    if (::connect(fd, one->ai_addr, one->ai_addrlen) == 0) {
      listens = true;
    } else if (errno == EINPROGRESS) {
      constexpr int kPatienceMs = 1000;
      pollfd ready{fd, POLLOUT, 0};
      int error = 0;
      socklen_t size = sizeof error;
      listens = ::poll(&ready, 1, kPatienceMs) == 1 && ::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error == 0;
    }
    ::close(fd);
  }
  ::freeaddrinfo(found);
  return listens;
}

std::shared_ptr<grpc::Channel> MakeChannel(const ClientOptions& options) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(options.max_message_bytes);
  arguments.SetMaxSendMessageSize(options.max_message_bytes);
  // Try again quickly: the server that is waited for has usually just been started. But one that is busy takes its time
  // to shake hands, and that is what the second of these limits, whatever its name says.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 20000);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  if (IsLoopback(options.address)) arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  if (!options.tls) return grpc::CreateCustomChannel(options.address, grpc::InsecureChannelCredentials(), arguments);
  if (!options.tls->server_name.empty()) arguments.SetSslTargetNameOverride(options.tls->server_name);
  return grpc::CreateCustomChannel(
      options.address,
      grpc::SslCredentials({options.tls->ca, options.tls->key, options.tls->certificate}), arguments);
}

std::vector<TensorInfo> ToInfos(
    const google::protobuf::RepeatedPtrField<inference::ModelMetadataResponse::TensorMetadata>& from) {
  std::vector<TensorInfo> infos;
  for (const auto& tensor : from) {
    infos.push_back({tensor.name(), tensor.datatype(), {tensor.shape().begin(), tensor.shape().end()}});
  }
  return infos;
}

template <typename Parameters>
void AddParameters(const InferRequest& request, Parameters& parameters) {
  if (!request.sequence.empty()) {
    std::int64_t number = 0;
    const char* const end = request.sequence.data() + request.sequence.size();
    const auto [stopped, error] = std::from_chars(request.sequence.data(), end, number);
    if (error == std::errc() && stopped == end) {
      parameters["sequence_id"].set_int64_param(number);
    } else {
      parameters["sequence_id"].set_string_param(request.sequence);
    }
    parameters["sequence_start"].set_bool_param(request.sequence_start);
    parameters["sequence_end"].set_bool_param(request.sequence_end);
  }
  if (request.priority > 0) parameters["priority"].set_uint64_param(static_cast<std::uint64_t>(request.priority));
}

absl::StatusOr<inference::ModelInferRequest> ToProto(const InferRequest& request) {
  inference::ModelInferRequest proto;
  proto.set_model_name(request.model);
  proto.set_model_version(request.version);
  proto.set_id(request.id);
  for (const NamedTensor& input : request.inputs) {
    if (absl::Status status = Validate(input.tensor); !status.ok()) {
      return absl::InvalidArgumentError(
          Cat("input '", input.name, "': ", std::string(status.message())));
    }
    auto* tensor = proto.add_inputs();
    tensor->set_name(input.name);
    tensor->set_datatype(std::string(ToString(input.tensor.datatype)));
    tensor->mutable_shape()->Add(input.tensor.shape.begin(), input.tensor.shape.end());
    proto.add_raw_input_contents(input.tensor.bytes);
  }
  for (const std::string& output : request.outputs) proto.add_outputs()->set_name(output);
  AddParameters(request, *proto.mutable_parameters());
  return proto;
}

// Some servers answer in typed contents, which the protocol allows them.
std::optional<std::string> TypedBytes(const inference::InferTensorContents& contents, DataType type) {
  const auto take = [&](const auto& field, auto element) {
    using T = decltype(element);
    return MakeTensor<T>({}, std::vector<T>(field.begin(), field.end())).bytes;
  };
  switch (type) {
    case DataType::kBool: return take(contents.bool_contents(), std::uint8_t{});
    case DataType::kUInt8: return take(contents.uint_contents(), std::uint8_t{});
    case DataType::kUInt16: return take(contents.uint_contents(), std::uint16_t{});
    case DataType::kUInt32: return take(contents.uint_contents(), std::uint32_t{});
    case DataType::kUInt64: return take(contents.uint64_contents(), std::uint64_t{});
    case DataType::kInt8: return take(contents.int_contents(), std::int8_t{});
    case DataType::kInt16: return take(contents.int_contents(), std::int16_t{});
    case DataType::kInt32: return take(contents.int_contents(), std::int32_t{});
    case DataType::kInt64: return take(contents.int64_contents(), std::int64_t{});
    case DataType::kFp32: return take(contents.fp32_contents(), float{});
    case DataType::kFp64: return take(contents.fp64_contents(), double{});
    case DataType::kBytes:
      return MakeBytesTensor({}, {contents.bytes_contents().begin(), contents.bytes_contents().end()})
          .bytes;
    case DataType::kFp16:
    case DataType::kBf16: break;  // travel raw only
  }
  return std::nullopt;
}

absl::StatusOr<InferResult> FromProto(inference::ModelInferResponse& proto) {
  InferResult result{proto.model_name(), proto.model_version(), proto.id(), {}};
  const bool raw = proto.raw_output_contents_size() > 0;
  if (raw && proto.raw_output_contents_size() != proto.outputs_size()) {
    return absl::InternalError(Cat("the server sent ", proto.outputs_size(), " outputs with the bytes of ",
                                   proto.raw_output_contents_size()));
  }
  for (int i = 0; i < proto.outputs_size(); ++i) {
    const auto& output = proto.outputs(i);
    const std::optional<DataType> type = ParseDataType(output.datatype());
    if (!type) {
      return absl::InternalError(Cat("the server sent output '", output.name(), "' as '",
                                     output.datatype(), "', a type that this client does not know"));
    }
    Tensor tensor{*type, {output.shape().begin(), output.shape().end()}, {}};
    if (raw) {
      tensor.bytes = std::move(*proto.mutable_raw_output_contents(i));
    } else if (std::optional<std::string> bytes = TypedBytes(output.contents(), *type)) {
      tensor.bytes = *std::move(bytes);
    }
    if (absl::Status status = Validate(tensor); !status.ok()) {
      return absl::InternalError(Cat("the server sent output '", output.name(),
                                     "' that contradicts itself: ", std::string(status.message())));
    }
    result.outputs.push_back({output.name(), std::move(tensor)});
  }
  return result;
}

WallTime ToWallTime(const google::protobuf::Timestamp& time) {
  return WallTime(std::chrono::duration_cast<WallTime::duration>(
      std::chrono::seconds(time.seconds()) + std::chrono::nanoseconds(time.nanos())));
}

ModelStat ToStat(const hearth::v1::Model& from) {
  ModelStat model;
  model.name = from.name();
  model.version = from.version();
  model.state = from.state();
  model.in_use = from.in_use();
  model.pinned = from.pinned();
  model.device_bytes = from.bytes().device();
  if (!from.bytes().devices().empty()) model.device = from.bytes().devices(0).device();
  model.host_bytes = from.bytes().host();
  model.mapped_bytes = from.bytes().mapped();
  model.window_bytes = from.bytes().window();
  model.hung = from.hung();
  if (from.has_last_used()) model.last_used = ToWallTime(from.last_used());
  if (from.has_loaded_at()) model.loaded_at = ToWallTime(from.loaded_at());
  model.hits = from.hits();
  for (const auto& phase : from.load_phases()) {
    model.load_phases.push_back({phase.name(), phase.milliseconds(), phase.start_milliseconds(),
                                 phase.cpu_milliseconds(), phase.bytes(), phase.minor_faults(),
                                 phase.major_faults()});
    for (const auto& part : phase.parts()) {
      model.load_phases.back().parts.push_back({part.start_milliseconds(), part.milliseconds()});
    }
  }
  model.load = {from.load().weight_bytes(), from.load().copied_bytes(), from.load().mapped_bytes(),
                from.load().cached_bytes(), from.load().kept_program(), from.load().shared_bytes(),
                from.load().from()};
  model.requests_succeeded = from.requests_succeeded();
  model.requests_failed = from.requests_failed();
  model.mean_request_seconds = from.mean_request_seconds();
  model.mean_infer_seconds = from.mean_infer_seconds();
  model.error = from.error();
  return model;
}

BytesStat ToStat(const hearth::v1::Bytes& from) {
  BytesStat bytes{from.device(), from.host(), from.mapped()};
  for (const auto& on : from.devices()) bytes.by_device[on.device()] = on.bytes();
  return bytes;
}

BudgetStat ToStat(const hearth::v1::Budget& from) {
  return {from.dimension(),       from.capacity_bytes(), from.used_bytes(), from.resident_bytes(), from.loading_bytes(),
          from.unloading_bytes(), from.device(),         from.lost_bytes()};
}

CacheEventStat ToStat(const hearth::v1::Event& from) {
  CacheEventStat event;
  event.sequence = from.sequence();
  event.time = ToWallTime(from.time());
  event.age_seconds = from.age_seconds();
  event.model = from.model();
  event.version = from.version();
  event.kind = from.kind();
  event.text = from.text();
  event.bytes = ToStat(from.bytes());
  event.load_seconds = from.load_seconds();
  event.waiters = from.waiters();
  event.tier = from.tier();
  event.error = from.error();
  event.code = from.code();
  event.reason = from.reason();
  event.resident_seconds = from.resident_seconds();
  event.idle_seconds = from.idle_seconds();
  event.away_seconds = from.away_seconds();
  event.hits = from.hits();
  if (from.has_cause()) {
    const auto& cause = from.cause();
    event.cause = EvictionCauseStat{cause.model(), cause.version(), ToStat(cause.needed()), cause.loss(),
                                    cause.rank(), cause.candidates(), cause.demand()};
  }
  return event;
}

}  // namespace

struct Client::Impl {
  explicit Impl(ClientOptions client_options)
      : options(std::move(client_options)),
        channel(MakeChannel(options)),
        service(Service::NewStub(channel)),
        cache(hearth::v1::Cache::NewStub(channel)),
        config(hearth::v1::Config::NewStub(channel)),
        health(HealthService::NewStub(channel)) {}

  std::optional<TimePoint> Deadline() const {
    if (options.timeout.count() <= 0) return std::nullopt;
    return std::chrono::system_clock::now() + options.timeout;
  }

  // Waits until the channel is connected. Done before the call, because afterwards UNAVAILABLE from a
  // server cannot be told from UNAVAILABLE for want of one.
  absl::Status Connect(std::optional<TimePoint> deadline) {
    const TimePoint patience = std::chrono::system_clock::now() + options.wait_for_server;
    const TimePoint forever = TimePoint::max();
    while (true) {
      const grpc_connectivity_state state = channel->GetState(/*try_to_connect=*/true);
      if (state == GRPC_CHANNEL_READY) return absl::OkStatus();
      const TimePoint now = std::chrono::system_clock::now();
      const bool refused = state == GRPC_CHANNEL_TRANSIENT_FAILURE && now >= patience;
      if (refused || state == GRPC_CHANNEL_SHUTDOWN) break;
      if (deadline && now >= *deadline) {
        if (state == GRPC_CHANNEL_TRANSIENT_FAILURE) break;
        return absl::DeadlineExceededError(Cat("no connection to ", options.address, " in time; is it busy, or far away?"));
      }
      TimePoint until = deadline.value_or(forever);
      if (state == GRPC_CHANNEL_TRANSIENT_FAILURE) until = std::min(until, patience);
      channel->WaitForStateChange(state, until);
    }
    absl::Status status = absl::UnavailableError(WhyNot());
    status.SetPayload(kUnreachablePayload, absl::Cord());
    return status;
  }

  // The likely reason for which there is no connection.
  std::string WhyNot() const {
    if (!SomebodyListens(options.address)) {
      return Cat("no server answers at ", options.address, ": is hearthd running there?");
    }
    if (!options.tls) {
      return Cat("somebody listens at ", options.address,
                 ", but speaks no gRPC without TLS: does it want --tls, and --ca with whoever signed its certificate?");
    }
    return Cat("somebody listens at ", options.address,
               ", but TLS does not come about: does it speak TLS at all, does --ca trust its certificate, and does that have "
               "this name? If it wants a certificate of yours, give --cert and --key");
  }

  void Prepare(grpc::ClientContext& context, const std::optional<TimePoint>& deadline) const {
    if (deadline) context.set_deadline(*deadline);
    if (!options.token.empty()) context.AddMetadata("authorization", "Bearer " + options.token);
  }

  // One unary call, `method` of `stub`.
  template <typename Stub, typename Request, typename Response>
  absl::Status Call(Stub& stub,
                    grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                    const Request& request, Response* response) {
    const std::optional<TimePoint> deadline = Deadline();
    CLIENT_RETURN_IF_ERROR(Connect(deadline));
    grpc::ClientContext context;
    Prepare(context, deadline);
    return FromGrpc((stub.*method)(&context, request, response));
  }

  // One of the Cache service's calls about one version of a model.
  template <typename Request, typename Response>
  absl::Status CallForModel(grpc::Status (hearth::v1::Cache::Stub::*method)(grpc::ClientContext*, const Request&,
                                                                            Response*),
                            const std::string& model, const std::string& version, Response* response) {
    Request request;
    request.set_model(model);
    request.set_version(version);
    return Call(*cache, method, request, response);
  }

  const ClientOptions options;
  const std::shared_ptr<grpc::Channel> channel;
  const std::unique_ptr<Service::Stub> service;
  const std::unique_ptr<hearth::v1::Cache::Stub> cache;
  const std::unique_ptr<hearth::v1::Config::Stub> config;
  const std::unique_ptr<HealthService::Stub> health;
};

Client::Client(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Client::~Client() = default;

std::unique_ptr<Client> Client::Create(ClientOptions options) {
  return std::unique_ptr<Client>(new Client(std::make_unique<Impl>(std::move(options))));
}

absl::StatusOr<bool> Client::Live() {
  inference::ServerLiveResponse response;
  CLIENT_RETURN_IF_ERROR(
      impl_->Call(*impl_->service, &Service::Stub::ServerLive, inference::ServerLiveRequest(), &response));
  return response.live();
}

absl::StatusOr<bool> Client::Ready() {
  inference::ServerReadyResponse response;
  CLIENT_RETURN_IF_ERROR(impl_->Call(*impl_->service, &Service::Stub::ServerReady,
                                     inference::ServerReadyRequest(), &response));
  return response.ready();
}

absl::StatusOr<bool> Client::ModelReady(const std::string& model, const std::string& version) {
  inference::ModelReadyRequest request;
  request.set_name(model);
  request.set_version(version);
  inference::ModelReadyResponse response;
  CLIENT_RETURN_IF_ERROR(impl_->Call(*impl_->service, &Service::Stub::ModelReady, request, &response));
  return response.ready();
}

absl::StatusOr<bool> Client::Healthy(const std::string& service) {
  grpc::health::v1::HealthCheckRequest request;
  request.set_service(service);
  HealthReply response;
  CLIENT_RETURN_IF_ERROR(impl_->Call(*impl_->health, &HealthService::Stub::Check, request, &response));
  return response.status() == HealthReply::SERVING;
}

absl::StatusOr<ServerInfo> Client::ServerMetadata() {
  inference::ServerMetadataResponse response;
  CLIENT_RETURN_IF_ERROR(impl_->Call(*impl_->service, &Service::Stub::ServerMetadata,
                                     inference::ServerMetadataRequest(), &response));
  return ServerInfo{response.name(), response.version(),
                    {response.extensions().begin(), response.extensions().end()}};
}

absl::StatusOr<ModelInfo> Client::ModelMetadata(const std::string& model, const std::string& version) {
  inference::ModelMetadataRequest request;
  request.set_name(model);
  request.set_version(version);
  inference::ModelMetadataResponse response;
  CLIENT_RETURN_IF_ERROR(
      impl_->Call(*impl_->service, &Service::Stub::ModelMetadata, request, &response));
  return ModelInfo{response.name(),
                   {response.versions().begin(), response.versions().end()},
                   response.platform(),
                   ToInfos(response.inputs()),
                   ToInfos(response.outputs()),
                   {response.properties().begin(), response.properties().end()}};
}

absl::StatusOr<InferResult> Client::Infer(const InferRequest& request) {
  CLIENT_ASSIGN_OR_RETURN(const inference::ModelInferRequest proto, ToProto(request));
  inference::ModelInferResponse response;
  CLIENT_RETURN_IF_ERROR(impl_->Call(*impl_->service, &Service::Stub::ModelInfer, proto, &response));
  return FromProto(response);
}

absl::Status Client::Load(const std::string& model, const std::string& config) {
  inference::RepositoryModelLoadRequest request;
  request.set_model_name(model);
  if (!config.empty()) (*request.mutable_parameters())["config"].set_string_param(config);
  inference::RepositoryModelLoadResponse response;
  return impl_->Call(*impl_->service, &Service::Stub::RepositoryModelLoad, request, &response);
}

absl::Status Client::Unload(const std::string& model) {
  inference::RepositoryModelUnloadRequest request;
  request.set_model_name(model);
  inference::RepositoryModelUnloadResponse response;
  return impl_->Call(*impl_->service, &Service::Stub::RepositoryModelUnload, request, &response);
}

absl::StatusOr<std::vector<IndexEntry>> Client::Index(bool ready_only) {
  inference::RepositoryIndexRequest request;
  request.set_ready(ready_only);
  inference::RepositoryIndexResponse response;
  CLIENT_RETURN_IF_ERROR(
      impl_->Call(*impl_->service, &Service::Stub::RepositoryIndex, request, &response));
  std::vector<IndexEntry> entries;
  for (const auto& model : response.models()) {
    entries.push_back({model.name(), model.version(), model.state(), model.reason()});
  }
  return entries;
}

absl::StatusOr<ServerStat> Client::Stat(const std::string& model) {
  hearth::v1::StatRequest request;
  request.set_model(model);
  hearth::v1::StatResponse response;
  CLIENT_RETURN_IF_ERROR(impl_->Call(*impl_->cache, &hearth::v1::Cache::Stub::Stat, request, &response));
  const hearth::v1::Server& server = response.server();
  ServerStat stat{server.name(), server.version(), server.uptime_seconds(), server.ready(),
                  server.in_flight(), {}, {}, server.not_ready_reason(), {}, server.not_loading_reason()};
  for (const auto& budget : response.budgets()) stat.budgets.push_back(ToStat(budget));
  for (const auto& budget : response.devices()) stat.devices.push_back(ToStat(budget));
  for (const auto& from : response.models()) stat.models.push_back(ToStat(from));
  return stat;
}

absl::StatusOr<std::string> Client::Prefetch(const std::string& model, const std::string& version) {
  hearth::v1::PrefetchResponse response;
  CLIENT_RETURN_IF_ERROR(impl_->CallForModel(&hearth::v1::Cache::Stub::Prefetch, model, version, &response));
  return response.state();
}

absl::StatusOr<std::int64_t> Client::Pin(const std::string& model, const std::string& version) {
  hearth::v1::PinResponse response;
  CLIENT_RETURN_IF_ERROR(impl_->CallForModel(&hearth::v1::Cache::Stub::Pin, model, version, &response));
  return response.version();
}

absl::StatusOr<std::int64_t> Client::Unpin(const std::string& model, const std::string& version) {
  hearth::v1::UnpinResponse response;
  CLIENT_RETURN_IF_ERROR(impl_->CallForModel(&hearth::v1::Cache::Stub::Unpin, model, version, &response));
  return response.version();
}

absl::StatusOr<bool> Client::Evict(const std::string& model, const std::string& version) {
  hearth::v1::EvictResponse response;
  CLIENT_RETURN_IF_ERROR(impl_->CallForModel(&hearth::v1::Cache::Stub::Evict, model, version, &response));
  return response.was_resident();
}

absl::StatusOr<ExplanationStat> Client::Explain(const std::string& model, const std::string& version) {
  hearth::v1::ExplainResponse response;
  CLIENT_RETURN_IF_ERROR(impl_->CallForModel(&hearth::v1::Cache::Stub::Explain, model, version, &response));
  ExplanationStat stat{response.model(), response.version(), response.state(), response.sentence(),
                       response.pinned_by_configuration(), response.pinned_on_request(), response.unloaded(),
                       response.refused(), response.evictions(), {}, {}, {}};
  if (response.has_last()) stat.last = ToStat(response.last());
  if (response.has_last_eviction()) stat.last_eviction = ToStat(response.last_eviction());
  if (response.has_last_failure()) stat.last_failure = ToStat(response.last_failure());
  return stat;
}

absl::StatusOr<PlanStat> Client::Plan() {
  hearth::v1::PlanResponse response;
  CLIENT_RETURN_IF_ERROR(
      impl_->Call(*impl_->cache, &hearth::v1::Cache::Stub::Plan, hearth::v1::PlanRequest(), &response));
  PlanStat stat{response.half_life_seconds(), {}};
  for (const hearth::v1::MemoryPlan& wire : response.plans()) {
    MemoryPlanStat memory{wire.dimension(), wire.capacity_bytes(), wire.loads(), wire.load_seconds(), wire.returns(), {},
                          wire.device()};
    for (const hearth::v1::PlanPoint& point : wire.points()) {
      memory.points.push_back({point.more_bytes(), point.loads(), point.load_seconds()});
    }
    stat.memories.push_back(std::move(memory));
  }
  return stat;
}

absl::Status Client::Watch(const WatchOptions& options,
                           const std::function<bool(const CacheEventStat&)>& on_event,
                           const std::function<bool(std::uint64_t)>& on_dropped) {
  const std::optional<TimePoint> deadline = impl_->Deadline();
  CLIENT_RETURN_IF_ERROR(impl_->Connect(deadline));
  hearth::v1::WatchRequest request;
  request.set_model(options.model);
  request.set_history(options.history);
  request.set_until_now(options.until_now);
  grpc::ClientContext context;
  impl_->Prepare(context, deadline);
  const auto reader = impl_->cache->Watch(&context, request);
  hearth::v1::WatchResponse response;
  while (reader->Read(&response)) {
    const bool more = (response.dropped() == 0 || on_dropped(response.dropped())) &&
                      (!response.has_event() || on_event(ToStat(response.event())));
    if (more) continue;
    context.TryCancel();
    while (reader->Read(&response)) {
    }
    (void)reader->Finish();
    return absl::OkStatus();
  }
  return FromGrpc(reader->Finish());
}

absl::StatusOr<ReloadResult> Client::Reload(bool dry_run) {
  hearth::v1::ReloadRequest request;
  request.set_dry_run(dry_run);
  hearth::v1::ReloadResponse response;
  CLIENT_RETURN_IF_ERROR(
      impl_->Call(*impl_->config, &hearth::v1::Config::Stub::Reload, request, &response));
  ReloadResult result;
  for (const auto& from : response.changes()) {
    result.changes.push_back({from.key(), from.before(), from.after(), from.needs_restart()});
  }
  result.notes.assign(response.notes().begin(), response.notes().end());
  return result;
}

bool IsUnreachable(const absl::Status& status) {
  return status.GetPayload(kUnreachablePayload).has_value();
}

}  // namespace hearth::client
