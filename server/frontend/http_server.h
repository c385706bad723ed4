// A small HTTP/1.1 server: metrics and health for machines, on one thread.
//
// It knows sockets, timeouts and limits; what a path answers comes in as routes, so it decides
// nothing. Any number of idle keep-alive connections cost a descriptor and a few kilobytes each,
// and a client that sends or reads slowly delays nobody: every step is asynchronous and has a time
// limit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "server/base/clock.h"
#include "server/base/status.h"

namespace hearth {

struct HttpRequest {
  std::string method;  // "GET"
  std::string path;    // "/metrics", as sent, without query
  std::string query;   // what follows "?", without it
  std::string body;
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  std::string body;
};

// {"error":"<message>"}, the protocol's error body.
HttpResponse HttpError(int status, std::string_view message);

// Called on the server's thread: it must not block. What it throws becomes a 500.
using HttpHandler = std::function<HttpResponse(const HttpRequest&)>;

// One exact path and what it answers, by method. A route for GET answers HEAD too.
struct HttpRoute {
  std::string method;
  std::string path;
  HttpHandler handler;
};

// Thread-safe. Owns its thread.
class HttpServer {
 public:
  struct Options {
    std::string host = "0.0.0.0";
    std::uint16_t port = 8002;                          // 0: any free one
    Duration idle_timeout = std::chrono::seconds(60);   // between requests of a connection
    Duration read_timeout = std::chrono::seconds(10);   // from a request's first byte to its last
    Duration write_timeout = std::chrono::seconds(10);  // for an answer to be taken
    Duration stop_grace = std::chrono::seconds(1);      // Stop(): for answers under way
    std::size_t max_header_bytes = 16 * 1024;           // else 431
    std::size_t max_body_bytes = 64 * 1024;             // else 413
    std::size_t max_connections = 1024;                 // more wait in the kernel's queue
  };

  // The routes of every server: GET /metrics, /v2/health/live and /v2/health/ready (200 or 503,
  // with a reason).
  struct Handlers {
    std::function<std::string()> metrics;  // Prometheus' text format
    std::function<bool()> live;
    std::function<std::string()> why_not_ready;  // empty: ready
  };
  static std::vector<HttpRoute> OperationalRoutes(Handlers handlers);

  // Listening when this returns. ALREADY_EXISTS: the port is taken; INVALID_ARGUMENT: a bad host.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(Options options,
                                                           std::vector<HttpRoute> routes);
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(Options options, Handlers handlers) {
    return Start(std::move(options), OperationalRoutes(std::move(handlers)));
  }

  ~HttpServer();  // Stop()

  std::uint16_t port() const;

  // Stops accepting, closes idle connections, lets answers under way be finished within
  // `stop_grace`, joins the thread. Idempotent. REQUIRES: not called from a handler, nor twice at
  // once.
  void Stop();

 private:
  class Listener;
  class Connection;
  struct Shared;

  explicit HttpServer(std::shared_ptr<Shared> shared);

  const std::shared_ptr<Shared> shared_;
  std::thread thread_;
};

}  // namespace hearth
