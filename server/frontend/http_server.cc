#include "server/frontend/http_server.h"

#include <pthread.h>

#include <algorithm>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <optional>
#include <set>
#include <utility>

#include "server/base/log.h"

namespace hearth {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using asio::ip::tcp;
using ErrorCode = boost::system::error_code;

constexpr std::size_t kLingerBytes = 1 << 20;
constexpr std::chrono::seconds kLingerTime(1);
constexpr std::chrono::milliseconds kAcceptPause(100);

// Quoted for JSON; control characters and bytes outside ASCII are replaced.
std::string JsonString(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c >= 0x20 && c < 0x7f ? c : '?';
  }
  return out + '"';
}

// "/a?b" and "http://host/a?b" (a proxy's form) into path and query.
void SplitTarget(std::string_view target, HttpRequest& request) {
  if (const auto scheme = target.find("://"); !target.starts_with('/') && scheme != target.npos) {
    const auto path = target.find('/', scheme + 3);
    target = path == target.npos ? "/" : target.substr(path);
  }
  const auto question = target.find('?');
  request.path = std::string(target.substr(0, question));
  if (question != target.npos) request.query = std::string(target.substr(question + 1));
}

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

HttpResponse HttpError(int status, std::string_view message) {
  return {status, "application/json", StrCat("{\"error\":", JsonString(message), "}")};
}

// What the thread, the listener and all connections look at. Confined to the server's thread while
// that runs, `port` (constant once listening) and asio's own thread-safe calls apart.
struct HttpServer::Shared {
  Shared(Options o, std::vector<HttpRoute> r) : options(std::move(o)), routes(std::move(r)) {}

  HttpResponse Answer(const HttpRequest& request, std::string& allow) const;

  const Options options;
  const std::vector<HttpRoute> routes;
  asio::io_context io{1};
  // Keeps the thread there between connections; given up by Stop().
  std::optional<asio::executor_work_guard<asio::io_context::executor_type>> work{io.get_executor()};
  tcp::acceptor acceptor{io};
  std::uint16_t port = 0;
  bool stopping = false;
  std::set<Connection*> connections;
  std::function<void()> on_closed;  // wakes a listener that waits for room
};

// Finds the route and runs it. `allow`: set where the path is right and the method is not.
HttpResponse HttpServer::Shared::Answer(const HttpRequest& request, std::string& allow) const {
  const std::string_view method =
      request.method == "HEAD" ? "GET" : std::string_view(request.method);
  for (const HttpRoute& route : routes) {
    if (route.path != request.path) continue;
    if (route.method != method) {
      if (!allow.empty()) allow += ", ";
      allow += route.method == "GET" ? "GET, HEAD" : route.method;
      continue;
    }
    allow.clear();
    try {
      return route.handler(request);
    } catch (const std::exception& e) {
      log::Error("http handler failed", {{"path", route.path}, {"error", e.what()}});
      return HttpError(500, "internal error; the server's log says more");
    }
  }
  if (!allow.empty()) return HttpError(405, "this path does not take that method");
  std::vector<std::string_view> paths;
  for (const HttpRoute& known : routes) paths.push_back(known.path);
  return HttpError(404, StrCat("there is nothing here; this port serves ", QuotedList(paths)));
}

// One client: wait for a byte, read a request, answer, again. Keeps itself alive by the operation
// under way, of which there is always exactly one.
class HttpServer::Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(tcp::socket socket, std::shared_ptr<Shared> shared)
      : shared_(std::move(shared)),
        stream_(std::move(socket)),
        buffer_(shared_->options.max_header_bytes + shared_->options.max_body_bytes) {
    shared_->connections.insert(this);
  }

  ~Connection() {
    shared_->connections.erase(this);
    if (shared_->on_closed) shared_->on_closed();
  }

  void Run() { WaitForRequest(); }

  // Closes now if no request is under way, else once it is answered.
  void StopSoon() {
    if (idle_) CloseNow();
  }
  void CloseNow() { stream_.close(); }

 private:
  void WaitForRequest() {
    if (buffer_.size() > 0) return ReadHeader();  // pipelined
    idle_ = true;
    stream_.expires_after(shared_->options.idle_timeout);
    stream_.async_read_some(buffer_.prepare(4096),
                            [self = shared_from_this()](ErrorCode error, std::size_t bytes) {
                              if (error) return;
                              self->buffer_.commit(bytes);
                              self->idle_ = false;
                              self->ReadHeader();
                            });
  }

  void ReadHeader() {
    parser_.emplace();
    parser_->header_limit(static_cast<std::uint32_t>(shared_->options.max_header_bytes));
    parser_->body_limit(shared_->options.max_body_bytes);
    stream_.expires_after(shared_->options.read_timeout);
    http::async_read_header(stream_, buffer_, *parser_,
                            [self = shared_from_this()](ErrorCode error, std::size_t) {
                              if (error) return self->ReadFailed(error);
                              self->ReadBody();
                            });
  }

  void ReadBody() {
    if (parser_->is_done()) return Answer();
    http::async_read(stream_, buffer_, *parser_,
                     [self = shared_from_this()](ErrorCode error, std::size_t) {
                       if (error) return self->ReadFailed(error);
                       self->Answer();
                     });
  }

  void ReadFailed(const ErrorCode& error) {
    if (error == http::error::header_limit || error == http::error::buffer_overflow) {
      return Refuse(431, StrCat("the request's header is larger than ",
                                shared_->options.max_header_bytes, " bytes"));
    }
    if (error == http::error::body_limit) {
      return Refuse(413, StrCat("the request's body is larger than ",
                                shared_->options.max_body_bytes, " bytes"));
    }
    // What else the parser dislikes; not a connection that ended, broke or was too slow.
    if (error.category() == http::make_error_code(http::error::bad_method).category() &&
        error != http::error::end_of_stream && error != http::error::partial_message) {
      return Refuse(400, StrCat("not an HTTP request: ", error.message()));
    }
  }

  void Refuse(int status, std::string_view message) {
    Write(HttpError(status, message), "", /*head=*/false, /*keep_alive=*/false, 11);
  }

  void Answer() {
    const auto& message = parser_->get();
    HttpRequest request;
    request.method = std::string(message.method_string());
    SplitTarget({message.target().data(), message.target().size()}, request);
    request.body = std::move(parser_->get().body());
    std::string allow;
    const HttpResponse response = shared_->Answer(request, allow);
    Write(response, allow, request.method == "HEAD", message.keep_alive() && !shared_->stopping,
          message.version());
  }

  void Write(const HttpResponse& answer, const std::string& allow, bool head, bool keep_alive,
             unsigned version) {
    response_ = {};
    response_.version(version);
    response_.result(static_cast<unsigned>(answer.status));
    response_.set(http::field::server, "hearth");
    response_.set(http::field::content_type, answer.content_type);
    response_.set(http::field::cache_control, "no-store");
    if (!allow.empty()) response_.set(http::field::allow, allow);
    response_.keep_alive(keep_alive);
    response_.content_length(answer.body.size());
    if (!head) response_.body() = answer.body;
    serializer_.emplace(response_);
    stream_.expires_after(shared_->options.write_timeout);
    const auto done = [self = shared_from_this(), keep_alive](ErrorCode error, std::size_t) {
      if (error) return;
      if (!keep_alive) return self->Linger();
      // Stop() may have been called since the answer promised to go on: then it ends here.
      if (!self->shared_->stopping) self->WaitForRequest();
    };
    if (head) {
      http::async_write_header(stream_, *serializer_, done);
    } else {
      http::async_write(stream_, *serializer_, done);
    }
  }

  // Ends our side and reads what the client is still sending: closing over unread bytes makes the
  // kernel send a reset, which can overtake the answer.
  void Linger() {
    ErrorCode ignored;
    stream_.socket().shutdown(tcp::socket::shutdown_send, ignored);
    stream_.expires_after(kLingerTime);
    Drain();
  }
  void Drain() {
    buffer_.clear();
    stream_.async_read_some(buffer_.prepare(4096),
                            [self = shared_from_this()](ErrorCode error, std::size_t bytes) {
                              self->drained_ += bytes;
                              if (!error && self->drained_ < kLingerBytes) self->Drain();
                            });
  }

  const std::shared_ptr<Shared> shared_;
  beast::tcp_stream stream_;
  beast::flat_buffer buffer_;
  std::optional<http::request_parser<http::string_body>> parser_;  // of the request under way
  http::response<http::string_body> response_;
  std::optional<http::response_serializer<http::string_body>> serializer_;
  std::size_t drained_ = 0;
  bool idle_ = false;  // waiting for the first byte of a request
};

// Accepts while there is room.
class HttpServer::Listener : public std::enable_shared_from_this<Listener> {
 public:
  explicit Listener(std::shared_ptr<Shared> shared)
      : shared_(std::move(shared)), pause_(shared_->io) {}

  void Run() {
    // Also what keeps the listener there while it waits for room; Stop() replaces it.
    shared_->on_closed = [self = shared_from_this()] { self->Accept(); };
    Accept();
  }

 private:
  void Accept() {
    if (accepting_ || !shared_->acceptor.is_open() ||
        shared_->connections.size() >= shared_->options.max_connections) {
      return;
    }
    accepting_ = true;
    shared_->acceptor.async_accept(
        [self = shared_from_this()](ErrorCode error, tcp::socket socket) {
          self->accepting_ = false;
          self->Accepted(error, std::move(socket));
        });
  }

  void Accepted(const ErrorCode& error, tcp::socket socket) {
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
    std::make_shared<Connection>(std::move(socket), shared_)->Run();
    Accept();
  }

  const std::shared_ptr<Shared> shared_;
  asio::steady_timer pause_;
  bool accepting_ = false;  // an accept, or a pause before one, is under way
};

std::vector<HttpRoute> HttpServer::OperationalRoutes(Handlers handlers) {
  const auto live = [ask = std::move(handlers.live)](const HttpRequest&) -> HttpResponse {
    if (ask()) return {200, "application/json", "{\"live\":true}"};
    return {503, "application/json", "{\"live\":false}"};
  };
  const auto ready = [ask = std::move(handlers.why_not_ready)](const HttpRequest&) -> HttpResponse {
    const std::string why_not = ask();
    if (why_not.empty()) return {200, "application/json", "{\"ready\":true}"};
    return {503, "application/json",
            StrCat("{\"ready\":false,\"reason\":", JsonString(why_not), "}")};
  };
  return {
      {"GET", "/metrics",
       [metrics = std::move(handlers.metrics)](const HttpRequest&) -> HttpResponse {
         return {200, "text/plain; version=0.0.4; charset=utf-8", metrics()};
       }},
      {"GET", "/v2/health/live", live},
      {"GET", "/v2/health/ready", ready},
  };
}

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(Options options,
                                                              std::vector<HttpRoute> routes) {
  auto shared = std::make_shared<Shared>(std::move(options), std::move(routes));
  const Options& o = shared->options;
  ErrorCode error;
  const auto found = tcp::resolver(shared->io)
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
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(shared)));
}

HttpServer::HttpServer(std::shared_ptr<Shared> shared) : shared_(std::move(shared)) {
  std::make_shared<Listener>(shared_)->Run();
  thread_ = std::thread([s = shared_] {
    pthread_setname_np(pthread_self(), "http");
    while (true) {
      try {
        s->io.run();
        return;
      } catch (const std::exception& e) {
        // Out of memory while accepting or reading: that connection is gone, the others go on.
        log::Error("http server caught an exception", {{"error", e.what()}});
        if (s->on_closed) s->on_closed();
      }
    }
  });
}

HttpServer::~HttpServer() { Stop(); }

std::uint16_t HttpServer::port() const { return shared_->port; }

void HttpServer::Stop() {
  if (!thread_.joinable()) return;
  asio::post(shared_->io, [s = shared_.get()] {
    s->stopping = true;
    s->work.reset();
    ErrorCode ignored;
    s->acceptor.close(ignored);
    const auto grace = std::make_shared<asio::steady_timer>(s->io, s->options.stop_grace);
    s->on_closed = [s, grace] {
      if (s->connections.empty()) grace->cancel();
    };
    grace->async_wait([s, grace](ErrorCode) {
      for (Connection* connection : s->connections) connection->CloseNow();
    });
    for (Connection* connection : s->connections) connection->StopSoon();
    s->on_closed();
  });
  thread_.join();  // run() ends when nothing is left to wait for
  shared_->on_closed = nullptr;
}

}  // namespace hearth
