// The gRPC front end as a whole: port, services, threads, shutdown.
#pragma once

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "hearth/v1/cache.grpc.pb.h"
#include "hearth/v1/config.grpc.pb.h"
#include "server/base/clock.h"
#include "server/base/status.h"
#include "server/base/tls_files.h"
#include "server/frontend/config_rpc.h"
#include "server/frontend/event_loop.h"
#include "server/frontend/health_rpc.h"
#include "server/frontend/inference_rpc.h"
#include "server/frontend/request_memory.h"
#include "server/frontend/stream_rpc.h"
#include "server/frontend/watch_rpc.h"
#include "server/metrics/metrics.h"
#include "server/serving/access.h"
#include "server/serving/cache_service.h"
#include "server/serving/infer_service.h"
#include "server/serving/repository_service.h"
#include "server/serving/shared_memory.h"
#include "server/tensor/buffer_pool.h"

namespace hearth {

// Converts and calls serving/; decides nothing. Model code never runs on its threads. Thread-safe
// but for Shutdown().
class GrpcServer {
 public:
  struct Keepalive {
    int time_ms = 7'200'000;  // ping a silent client this often
    int timeout_ms = 20'000;  // and drop it when it does not answer for so long
    bool permit_without_calls = false;
    int max_pings_without_data = 2;           // 0: no limit
    int min_recv_ping_interval_ms = 300'000;  // a client that pings more often is sent away
    int max_ping_strikes = 2;
    int max_connection_age_ms = 0;        // 0: no limit; rebalances clients behind a TCP balancer
    int max_connection_age_grace_ms = 0;  // 0: no limit
  };
  struct Options {
    std::string address = "0.0.0.0";  // host name or IP address
    int port = 8001;                  // 0: any free one, see port()
    int threads = 2;                  // completion queues, each with its thread
    int max_receive_bytes = std::numeric_limits<int>::max();
    int max_send_bytes = std::numeric_limits<int>::max();
    std::uint64_t max_messages_bytes = std::uint64_t{4} << 30;  // of all messages that are being received
    int max_calls_per_connection = 1024;
    Duration stall_timeout = std::chrono::minutes(5);  // SendWatch's patience
    bool reflection = true;  // where access has metadata open when the server starts: it asks nobody who they are
    std::vector<std::string> model_headers;  // metadata keys, in lower case, that may name an inference's model
    const TlsSource* tls = nullptr;  // outlives the server. Null: it speaks plainly
    ClientCertificates client_certificates = ClientCertificates::kNone;
    Keepalive keepalive;
    std::string server_name = "hearth";  // ServerMetadata
    std::string server_version = "unknown";
  };
  // All outlive the server.
  struct Deps {
    InferService& infer;
    RepositoryService& repository;
    CacheService& cache;
    BufferPool& buffers;
    SharedMemory& shared_memory;
    Metrics& metrics;
    const Clock& clock;
    Access& access;
    ReloadConfig reload{};
    Heartbeats* heartbeats = nullptr;  // each completion queue has one
  };

  // Binds and answers from now on; health says NOT_SERVING until SetServing(true).
  // UNAVAILABLE: the address cannot be listened on (another process has the port); the text names
  // it.
  static absl::StatusOr<std::unique_ptr<GrpcServer>> Start(const Deps& deps,
                                                           const Options& options);

  // Shutdown without a deadline. REQUIRES: every request that serving/ has accepted will be
  // answered.
  ~GrpcServer();

  // The port in use.
  int port() const { return port_; }

  // What the health service says of everything but "liveness".
  void SetServing(bool serving) { health_.SetServing(serving); }

  // Health turns NOT_SERVING, the port closes, calls under way go on until `deadline`, then they
  // are cancelled and have half a second more. What nobody waits for an answer on, a silent
  // connection or an open stream of reflection, gets half a second to go away by itself. OK:
  // nothing is left. DEADLINE_EXCEEDED: so many calls have not been answered by serving/ (a model
  // hangs); the process should exit without destroying this object. May be called again, by one
  // thread at a time.
  absl::Status Shutdown(Deadline deadline);

 private:
  GrpcServer(const Deps& deps, const Options& options);
  absl::Status Listen();
  void Serve();
  void Close(Deadline deadline);

  const Deps deps_;
  const Options options_;
  const TimePoint started_;
  int port_ = 0;

  // Destroyed from the last to the first: the loops' calls refer to the services.
  CallCount calls_;
  const RpcGuard guard_;
  InferenceAsyncService inference_;
  AnswerShares shares_;
  StreamRpc streams_;
  hearth::v1::Cache::AsyncService cache_;
  std::shared_ptr<WatchRpc> watch_;  // shared with the journal while it tells of an event
  hearth::v1::Config::AsyncService config_;
  HealthRpc health_;
  std::unique_ptr<grpc::Server> server_;
  std::vector<std::unique_ptr<EventLoop>> loops_;
};

}  // namespace hearth
