// An HTTP/1.1 server: sockets, TLS, timeouts and limits. What a path answers is its handler's business.
//
// Any number of idle keep-alive connections cost a descriptor and a few kilobytes each, and a client that sends or
// reads slowly delays nobody: every step is asynchronous and has a time limit. While a request is worked on, its
// connection is watched: a client that goes away is noticed at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "server/base/clock.h"
#include "server/base/status.h"
#include "server/base/tls_files.h"
#include "server/frontend/http_call.h"
#include "server/tensor/buffer_pool.h"

namespace hearth {

// Called on one of the server's threads: it must not block. May keep the call and answer it later, on any thread.
// What it throws becomes a 500.
using HttpCallHandler = std::function<void(HttpCall)>;

// Thread-safe. Owns its threads.
class HttpServer {
 public:
  struct Shared;  // http_connection.h

  struct Options {
    std::string name = "http";  // of its threads, with a number when there are several
    std::string host = "0.0.0.0";
    std::uint16_t port = 8002;  // 0: any free one
    const TlsSource* tls = nullptr;  // outlives the server. Null: it speaks plainly
    ClientCertificates client_certificates = ClientCertificates::kNone;
    int threads = 1;
    BufferPool* buffers = nullptr;                      // for bodies; outlives the server. Null: memory of its own
    Duration idle_timeout = std::chrono::seconds(60);   // between requests of a connection
    Duration read_timeout = std::chrono::seconds(10);   // for a header, and between two pieces of a body
    Duration write_timeout = std::chrono::seconds(10);  // between two pieces of an answer
    Duration stop_grace = std::chrono::seconds(1);      // Stop(): for answers under way
    std::size_t max_header_bytes = 16 * 1024;           // else 431
    std::uint64_t max_body_bytes = 64 * 1024;           // else 413
    std::string_view max_body_setting = {};             // what the refusal says to change; empty: nothing does
    std::uint64_t max_bodies_bytes = std::uint64_t{1} << 30;  // of all bodies at a time, else 503
    std::size_t max_connections = 1024;                 // more wait in the kernel's queue
  };

  // Listening when this returns. ALREADY_EXISTS: the port is taken; INVALID_ARGUMENT: a bad host.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(Options options, HttpCallHandler handler);

  ~HttpServer();  // Stop()

  std::uint16_t port() const;

  // Calls that have not been answered yet.
  std::size_t calls() const;

  // Stops accepting, closes idle connections, lets answers under way be finished within
  // `stop_grace` and cuts off the others. Idempotent. REQUIRES: not called twice at once, as Stop().
  void BeginStop();
  // The same, and waits until every call is answered and the threads are gone. Idempotent. REQUIRES: not called from a
  // handler; whoever has a call will answer it.
  void Stop();

 private:
  class Listener;
  struct Tls;

  HttpServer(std::shared_ptr<Shared> shared, Tls tls);

  const std::shared_ptr<Shared> shared_;
  bool stopping_ = false;
};

}  // namespace hearth
