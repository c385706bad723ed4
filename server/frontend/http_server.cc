#include "server/frontend/http_server.h"

#include <pthread.h>

#include <boost/asio/dispatch.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <thread>
#include <utility>

#include "server/base/log.h"
#include "server/frontend/http_connection.h"
#include "server/frontend/tls_context.h"

namespace hearth {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using ErrorCode = boost::system::error_code;

constexpr std::chrono::milliseconds kAcceptPause(100);

absl::Status ListenError(const ErrorCode& error, const HttpServer::Options& options,
                         std::string_view step) {
  const std::string where = StrCat("HTTP port ", options.port, " on ", options.host);
  if (error == boost::system::errc::address_in_use) {
    return absl::AlreadyExistsError(StrCat(
        where, " is already in use: stop the process that listens there (ss -ltnp 'sport = :",
        options.port, "' names it), or configure another port"));
  }
  return ErrnoStatus(error.value(), StrCat(where, ": ", step));
}

}  // namespace

// A context, and what it was made of.
struct HttpServer::Tls {
  std::shared_ptr<const TlsMaterial> made_of;
  std::shared_ptr<asio::ssl::context> context;
};

std::vector<std::shared_ptr<HttpConnection>> HttpWorker::All() const {
  std::vector<std::shared_ptr<HttpConnection>> all;
  for (HttpConnection* connection : connections) all.push_back(connection->weak_from_this().lock());
  std::erase(all, nullptr);
  return all;
}

// Accepts while there is room, for each worker in turn. On the first one's thread.
class HttpServer::Listener : public std::enable_shared_from_this<Listener> {
 public:
  Listener(std::shared_ptr<Shared> shared, Tls tls)
      : shared_(std::move(shared)), tls_(std::move(tls)), pause_(shared_->workers[0].io) {}

  void Run() {
    // Also what keeps the listener there while it waits for room; Stop() replaces it.
    shared_->made_room = [self = shared_from_this()] { self->Accept(); };
    Accept();
  }

 private:
  void Accept() {
    if (accepting_ || !shared_->acceptor.is_open() || shared_->connections >= shared_->options.max_connections) return;
    accepting_ = true;
    HttpWorker& worker = shared_->workers[next_++ % shared_->workers.size()];
    shared_->acceptor.async_accept(worker.io, [self = shared_from_this(), &worker](ErrorCode error, tcp::socket socket) {
      self->accepting_ = false;
      self->Accepted(error, std::move(socket), worker);
    });
  }

  void Accepted(const ErrorCode& error, tcp::socket socket, HttpWorker& worker) {
    if (error == asio::error::operation_aborted) return;
    if (error) {
      // Out of descriptors, most likely: trying again at once would spin.
      log::Warning("http accept failed", {{"error", error.message()}});
      accepting_ = true;
      pause_.expires_after(kAcceptPause);
      pause_.async_wait([self = shared_from_this()](ErrorCode) {
        self->accepting_ = false;
        self->Accept();
      });
      return;
    }
    ErrorCode ignored;
    socket.set_option(tcp::no_delay(true), ignored);
    ++shared_->connections;
    // A worker that has ended never runs this: it must not own what owns the worker.
    asio::dispatch(worker.io, [weak = std::weak_ptr<Shared>(shared_), &worker, tls = CurrentTls(),
                               socket = std::move(socket)]() mutable {
      RunHttpConnection(std::move(socket), std::move(tls), weak.lock(), worker);
    });
    Accept();
  }

  // What the next connection speaks; null: plainly.
  std::shared_ptr<asio::ssl::context> CurrentTls() {
    const Options& options = shared_->options;
    if (options.tls == nullptr) return nullptr;
    if (std::shared_ptr<const TlsMaterial> now = options.tls->current(); now != tls_.made_of) {
      const auto next = MakeTlsContext(*now, options.client_certificates);
      if (next.ok()) tls_.context = *next;
      if (!next.ok()) log::Error("certificate not taken", {{"reason", FromAbsl(next.status().message())}});
      tls_.made_of = std::move(now);  // or each connection would try again
    }
    return tls_.context;
  }

  const std::shared_ptr<Shared> shared_;
  Tls tls_;
  asio::steady_timer pause_;
  std::size_t next_ = 0;
  bool accepting_ = false;  // an accept, or a pause before one, is under way
};

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(Options options, HttpCallHandler handler) {
  auto shared = std::make_shared<Shared>(std::move(options), std::move(handler));
  const Options& o = shared->options;
  ErrorCode error;
  const auto found = tcp::resolver(shared->workers[0].io)
                         .resolve(o.host, std::to_string(o.port),
                                  tcp::resolver::passive | tcp::resolver::numeric_service, error);
  if (error || found.empty()) {
    return absl::InvalidArgumentError(
        StrCat("HTTP host '", o.host, "' is not an address of this machine: ", error.message()));
  }
  const tcp::endpoint endpoint = found.begin()->endpoint();
  tcp::acceptor& acceptor = shared->acceptor;
  if (acceptor.open(endpoint.protocol(), error); error) return ListenError(error, o, "socket");
  // Lets a restarted server have its port back at once. Unlike SO_REUSEPORT it lets nobody share
  // it.
  acceptor.set_option(tcp::acceptor::reuse_address(true), error);
  if (acceptor.bind(endpoint, error); error) return ListenError(error, o, "bind");
  if (acceptor.listen(tcp::acceptor::max_listen_connections, error); error) {
    return ListenError(error, o, "listen");
  }
  shared->port = acceptor.local_endpoint(error).port();
  Tls tls;
  if (o.tls != nullptr) {
    tls.made_of = o.tls->current();
    HEARTH_ASSIGN_OR_RETURN(tls.context, MakeTlsContext(*tls.made_of, o.client_certificates));
  }
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(shared), std::move(tls)));
}

HttpServer::HttpServer(std::shared_ptr<Shared> shared, Tls tls) : shared_(std::move(shared)) {
  std::make_shared<Listener>(shared_, std::move(tls))->Run();
  for (std::size_t i = 0; i < shared_->workers.size(); ++i) {
    const Options& options = shared_->options;
    const std::string name = options.threads == 1 ? options.name : StrCat(options.name, "-", i);
    shared_->workers[i].thread = std::thread([s = shared_.get(), &worker = shared_->workers[i], name] {
      pthread_setname_np(pthread_self(), name.c_str());
      while (true) {
        try {
          worker.io.run();
          return;
        } catch (const std::exception& e) {
          // Out of memory while accepting or reading: that connection is gone, the others go on.
          log::Error("http server caught an exception", {{"error", e.what()}});
          asio::post(s->workers[0].io, [s] { s->made_room(); });
        }
      }
    });
  }
}

HttpServer::~HttpServer() { Stop(); }

std::uint16_t HttpServer::port() const { return shared_->port; }

std::size_t HttpServer::calls() const { return shared_->calls; }

void HttpServer::BeginStop() {
  if (std::exchange(stopping_, true)) return;
  asio::post(shared_->workers[0].io, [s = shared_.get()] {
    ErrorCode ignored;
    s->acceptor.close(ignored);
    s->made_room = [] {};
  });
  for (HttpWorker& worker : shared_->workers) {
    asio::post(worker.io, [grace_time = shared_->options.stop_grace, w = &worker] {
      w->stopping = true;
      w->work.reset();
      const auto grace = std::make_shared<asio::steady_timer>(w->io, grace_time);
      w->on_closed = [w, grace] {
        if (w->connections.empty()) grace->cancel();
      };
      grace->async_wait([w, grace](ErrorCode) {
        for (const auto& connection : w->All()) connection->CloseNow();
      });
      for (const auto& connection : w->All()) connection->StopSoon();
      w->on_closed();
    });
  }
}

void HttpServer::Stop() {
  BeginStop();
  if (!shared_->workers[0].thread.joinable()) return;
  for (HttpWorker& worker : shared_->workers) worker.thread.join();  // run() ends when nothing is left to wait for
  for (HttpWorker& worker : shared_->workers) worker.on_closed = [] {};
}

}  // namespace hearth
