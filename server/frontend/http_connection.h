// Inside HttpServer: its threads, and the connections on them.
#pragma once

#include <atomic>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "server/frontend/http_call.h"
#include "server/frontend/http_server.h"
#include "server/tensor/buffer_pool.h"
#include "server/tensor/byte_allowance.h"

namespace hearth {

using HttpWorkGuard = boost::asio::executor_work_guard<boost::asio::io_context::executor_type>;

// A client's connection. Confined to its worker's thread.
class HttpConnection : public std::enable_shared_from_this<HttpConnection> {
 public:
  virtual ~HttpConnection() = default;
  // Closes now if no request is under way, else once it is answered.
  virtual void StopSoon() = 0;
  virtual void CloseNow() = 0;
};

// A thread, and the connections that live on it: what is here is confined to it while it runs.
struct HttpWorker {
  boost::asio::io_context io{1};
  std::optional<HttpWorkGuard> work{io.get_executor()};      // keeps the thread there between connections
  std::vector<std::shared_ptr<HttpConnection>> All() const;  // stay while they are told to close

  std::set<HttpConnection*> connections;
  std::function<void()> on_closed = [] {};
  bool stopping = false;
  std::thread thread;
};

// What the threads, the listener and all connections look at. Constant once listening, where nothing else is said.
struct HttpServer::Shared {
  Shared(Options o, HttpCallHandler h)
      : options(std::move(o)),
        handler(std::move(h)),
        bodies(std::make_shared<ByteAllowance>(options.max_bodies_bytes)),
        workers(static_cast<std::size_t>(options.threads)) {}

  BufferPool& buffers() { return options.buffers != nullptr ? *options.buffers : own_buffers; }

  static constexpr std::size_t kOwnBufferBytes = 1 << 20;

  const Options options;
  const HttpCallHandler handler;
  const std::shared_ptr<ByteAllowance> bodies;  // of requests that are received or read
  BufferPool own_buffers{kOwnBufferBytes};
  std::vector<HttpWorker> workers;  // the acceptor is the first one's
  boost::asio::ip::tcp::acceptor acceptor{workers[0].io};
  std::atomic<std::size_t> connections{0};  // accepted and not yet gone
  std::atomic<std::size_t> calls{0};        // not yet answered
  std::function<void()> made_room = [] {};  // wakes a listener that waits for it; the first worker's
  std::uint16_t port = 0;
};

// Serves a client until it goes or is told to. On `worker`'s thread, which outlives the connection. `tls`: null speaks
// plainly.
void RunHttpConnection(boost::asio::ip::tcp::socket socket, std::shared_ptr<boost::asio::ssl::context> tls,
                       std::shared_ptr<HttpServer::Shared> shared, HttpWorker& worker);

}  // namespace hearth
