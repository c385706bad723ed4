#include "server/frontend/grpc_server.h"

#include <google/protobuf/stubs/logging.h>
#include <grpc/support/log.h>
#include <grpc/grpc.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/resource_quota.h>
#include <netdb.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <future>
#include <utility>

#include "absl/synchronization/mutex.h"
#include "server/base/log.h"
#include "server/base/unique_fd.h"
#include "server/frontend/admin_rpc.h"
#include "server/frontend/cache_control_rpc.h"
#include "server/frontend/cache_rpc.h"
#include "server/frontend/grpc_inflate.h"
#include "server/frontend/inference_rpc.h"
#include "server/frontend/model_rpc.h"
#include "server/frontend/settings_rpc.h"
#include "server/frontend/shared_memory_rpc.h"
#include "server/frontend/tls_credentials.h"

namespace hearth {
namespace {

// What clients can have it say is no error of ours, and they hear so themselves.
void LogOfProtobuf(google::protobuf::LogLevel, const char*, int, const std::string& message) {
  log::Debug("protobuf", {{"message", message}});
}

// Nor is what clients do to their connections: a handshake that fails is a line for whoever connects.
void LogOfGrpc(gpr_log_func_args* args) { log::Debug("grpc", {{"message", args->message}}); }

constexpr Duration kCancelGrace = std::chrono::milliseconds(500);
// For clients to close the connections they were asked to close.
constexpr Duration kCloseGrace = std::chrono::milliseconds(500);

// gRPC's reflection registers itself with every server of a process that links it. This takes it
// out again, or puts it in where linking was lazy.
class ReflectionOption final : public grpc::ServerBuilderOption {
 public:
  explicit ReflectionOption(bool enabled) : enabled_(enabled) {}

  void UpdateArguments(grpc::ChannelArguments*) override {}
  void UpdatePlugins(std::vector<std::unique_ptr<grpc::ServerBuilderPlugin>>* plugins) override {
    auto reflection = std::make_unique<grpc::reflection::ProtoServerReflectionPlugin>();
    std::erase_if(*plugins, [&](const auto& p) { return p->name() == reflection->name(); });
    if (enabled_) plugins->push_back(std::move(reflection));
  }

 private:
  const bool enabled_;
};

std::string HostAndPort(const std::string& host, int port) {
  const bool ipv6 = host.find(':') != std::string::npos && host.front() != '[';
  return StrCat(ipv6 ? "[" : "", host, ipv6 ? "]:" : ":", port);
}

// Why `host`:`port` cannot be listened on; empty: it can. gRPC itself only says that it could not,
// is content with some of a name's addresses, and complains on stderr.
std::string WhyNotListening(const std::string& host, int port) {
  const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
  const std::string name = bracketed ? host.substr(1, host.size() - 2) : host;
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  if (const int error = getaddrinfo(name.c_str(), std::to_string(port).c_str(), &hints, &found)) {
    return gai_strerror(error);
  }
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> addresses(found, &freeaddrinfo);
  std::string why;
  bool one_is_good = false;
  for (const addrinfo* a = found; a != nullptr; a = a->ai_next) {
    const UniqueFd fd(::socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol));
    const int yes = 1;
    if (fd && ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) == 0 &&
        ::bind(fd.get(), a->ai_addr, a->ai_addrlen) == 0) {
      one_is_good = true;
      continue;
    }
    const int error = errno;
    why = std::string(FromAbsl(ErrnoStatus(error, "bind").message()));
    // Half of a port would send some clients to somebody else.
    if (error == EADDRINUSE) return why;
  }
  return one_is_good ? "" : why;
}

absl::Status CannotListen(const std::string& address, const std::string& why) {
  return absl::UnavailableError(
      StrCat("gRPC cannot listen on ", address, ": ", why,
             "; stop what uses the port, or choose another address or port"));
}

void SetKeepalive(const GrpcServer::Keepalive& keepalive, grpc::ServerBuilder& builder) {
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, keepalive.time_ms);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, keepalive.timeout_ms);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS,
                             keepalive.permit_without_calls);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA,
                             keepalive.max_pings_without_data);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                             keepalive.min_recv_ping_interval_ms);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PING_STRIKES, keepalive.max_ping_strikes);
  if (keepalive.max_connection_age_ms > 0) {
    builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_MS, keepalive.max_connection_age_ms);
  }
  if (keepalive.max_connection_age_grace_ms > 0) {
    builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_GRACE_MS,
                               keepalive.max_connection_age_grace_ms);
  }
}

}  // namespace

GrpcServer::GrpcServer(const Deps& deps, const Options& options)
    : deps_(deps),
      options_(options),
      started_(deps.clock.Now()),
      guard_(deps.access),
      shares_(deps.buffers.allowance()),
      streams_(inference_, {deps.infer, deps.buffers, deps.shared_memory, deps.clock, options_.model_headers, shares_}),
      watch_(std::make_shared<WatchRpc>(cache_, deps.cache.events(), deps.cache.devices(), deps.clock)),
      health_({"", inference::GRPCInferenceService::service_full_name(),
               hearth::v1::Cache::service_full_name(), hearth::v1::Config::service_full_name(), "readiness"}) {}

absl::StatusOr<std::unique_ptr<GrpcServer>> GrpcServer::Start(const Deps& deps,
                                                              const Options& options) {
  // Debian builds Abseil with its deadlock detector on, which takes a lock of its own for every lock
  // that gRPC takes. It finds bugs in gRPC, not in us.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  google::protobuf::SetLogHandler(LogOfProtobuf);
  gpr_set_log_function(LogOfGrpc);
  std::unique_ptr<GrpcServer> server(new GrpcServer(deps, options));
  HEARTH_RETURN_IF_ERROR(server->Listen());
  server->Serve();
  return server;
}

absl::Status GrpcServer::Listen() {
  const std::string address = HostAndPort(options_.address, options_.port);
  const std::string why = WhyNotListening(options_.address, options_.port);
  if (!why.empty()) return CannotListen(address, why);
  grpc::ServerBuilder builder;
  // gRPC's default lets two daemons share a port, each getting some of the connections.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.SetMaxReceiveMessageSize(options_.max_receive_bytes);
  builder.SetMaxSendMessageSize(options_.max_send_bytes);
  LimitInflation(static_cast<std::uint64_t>(options_.max_receive_bytes), options_.max_messages_bytes);
  grpc::ResourceQuota quota("hearth");
  quota.Resize(static_cast<std::size_t>(options_.max_messages_bytes));
  builder.SetResourceQuota(quota);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, options_.max_calls_per_connection);
  SetKeepalive(options_.keepalive, builder);
  const bool may_list = deps_.access.IsOpen(Listener::kGrpc, AccessGroup::kMetadata);
  builder.SetOption(std::make_unique<ReflectionOption>(options_.reflection && may_list));
  // Reflection is the only synchronous service: one thread for it is plenty.
  builder.SetSyncServerOption(grpc::ServerBuilder::NUM_CQS, 1);
  builder.SetSyncServerOption(grpc::ServerBuilder::MIN_POLLERS, 1);
  builder.SetSyncServerOption(grpc::ServerBuilder::MAX_POLLERS, 1);
  builder.RegisterService(&inference_);
  builder.RegisterService(&cache_);
  builder.RegisterService(&config_);
  builder.RegisterService(&health_.service());
  builder.AddListeningPort(address,
                           options_.tls == nullptr ? grpc::InsecureServerCredentials()
                                                   : MakeTlsCredentials(*options_.tls, options_.client_certificates),
                           &port_);
  for (int i = 0; i < std::max(options_.threads, 1); ++i) {
    Heartbeats::Pulse* pulse = deps_.heartbeats == nullptr ? nullptr : &deps_.heartbeats->Add(StrCat("grpc-", i));
    loops_.push_back(std::make_unique<EventLoop>(builder.AddCompletionQueue(), calls_, guard_, deps_.clock, options_.stall_timeout, pulse));
  }
  server_ = builder.BuildAndStart();
  if (server_ && port_ > 0) return absl::OkStatus();
  return CannotListen(address, "somebody else was faster");
}

void GrpcServer::Serve() {
  const InferenceRpcDeps inference{deps_.infer, deps_.buffers, deps_.shared_memory, deps_.clock, options_.model_headers, shares_};
  const AdminRpcDeps admin{deps_.repository, deps_.clock, options_.server_name,
                           options_.server_version, deps_.shared_memory.allowed()};
  const CacheRpcDeps cache{deps_.infer, deps_.repository,     deps_.metrics,          deps_.clock,
                           started_,    options_.server_name, options_.server_version};
  const ModelRpcDeps models{deps_.repository, deps_.metrics, deps_.clock};
  deps_.cache.events().Listen(watch_);
  for (std::size_t i = 0; i < loops_.size(); ++i) {
    EventLoop& loop = *loops_[i];
    ServeInference(loop, inference_, inference);
    streams_.Serve(loop);
    ServeAdmin(loop, inference_, admin);
    ServeModels(loop, inference_, models);
    ServeSharedMemory(loop, inference_, deps_.shared_memory);
    ServeSettings(loop, inference_);
    ServeCache(loop, cache_, cache);
    ServeCacheControl(loop, cache_, deps_.cache);
    watch_->Serve(loop);
    ServeConfig(loop, config_, deps_.reload);
    health_.Serve(loop);
    loop.Start(static_cast<int>(i));
  }
}

GrpcServer::~GrpcServer() { (void)Shutdown(kNoDeadline); }

// gRPC's own shutdown waits for every connection: one that was opened and never used, or one with a
// stream of reflection on it, would cost all the time there is. So it runs beside, and is cut short
// once everybody who asked something has heard.
void GrpcServer::Close(Deadline deadline) {
  std::future<void> closed = std::async(std::launch::async, [this] { server_->Shutdown(); });
  if (!calls_.WaitForAnswers(deadline)) {
    log::Warning("gRPC calls are cut off", {{"calls", calls_.unanswered()}});
  }
  while (closed.wait_for(kCloseGrace) != std::future_status::ready) {
    log::Info("gRPC connections that do not end are cut off", {});
    grpc_server_cancel_all_calls(server_->c_server());
  }
}

absl::Status GrpcServer::Shutdown(Deadline deadline) {
  if (!server_) return absl::OkStatus();
  health_.SetServing(false);
  health_.EndWatches();
  watch_->End();
  streams_.End();
  Close(deadline);
  // Cancelled calls are there until serving/ has answered them, and those that no client came for
  // until the loops have seen that none will: a moment for both.
  if (!calls_.WaitForNone(std::max(deadline, std::chrono::steady_clock::now() + kCancelGrace))) {
    return absl::DeadlineExceededError(
        StrCat("gRPC calls that nobody has answered: ", calls_.count()));
  }
  for (const auto& loop : loops_) loop->Shutdown();
  return absl::OkStatus();
}

}  // namespace hearth
