#include "server/frontend/http_server.h"

#include <pthread.h>

#include <atomic>
#include <boost/asio/dispatch.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/string.hpp>
#include <boost/beast/http.hpp>
#include <optional>
#include <set>
#include <thread>
#include <utility>

#include "server/base/log.h"
#include "server/frontend/http_body.h"
#include "server/frontend/json_writer.h"

namespace hearth {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using asio::ip::tcp;
using ErrorCode = boost::system::error_code;
using WorkGuard = asio::executor_work_guard<asio::io_context::executor_type>;

constexpr std::size_t kReadBytes = 64 * 1024;
constexpr std::size_t kLingerBytes = 1 << 20;
constexpr std::chrono::seconds kLingerTime(1);
constexpr std::chrono::milliseconds kAcceptPause(100);
constexpr std::size_t kOwnBufferBytes = 1 << 20;

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

// Finds the route and runs it; a 405 says which methods the path has.
HttpResponse AnswerByRoute(const std::vector<HttpRoute>& routes, const HttpRequest& request) {
  const std::string_view method = request.method == "HEAD" ? "GET" : std::string_view(request.method);
  std::string allow;
  for (const HttpRoute& route : routes) {
    if (route.path != request.path) continue;
    if (route.method == method) return route.handler(request);
    if (!allow.empty()) allow += ", ";
    allow += route.method == "GET" ? "GET, HEAD" : route.method;
  }
  if (!allow.empty()) {
    HttpResponse refusal = HttpError(405, "this path does not take that method");
    refusal.headers.emplace_back("Allow", allow);
    return refusal;
  }
  std::vector<std::string_view> paths;
  for (const HttpRoute& known : routes) paths.push_back(known.path);
  return HttpError(404, StrCat("there is nothing here; this port serves ", QuotedList(paths)));
}

// The answer's first lines. `version`: 10 or 11.
std::string HeaderOf(const HttpResponse& answer, std::size_t length, bool keep_alive, unsigned version) {
  const auto reason = http::obsolete_reason(http::int_to_status(static_cast<unsigned>(answer.status)));
  std::string header = StrCat("HTTP/1.", version % 10, " ", answer.status, " ",
                              std::string_view(reason.data(), reason.size()), "\r\nServer: hearth\r\nContent-Type: ",
                              answer.content_type, "\r\nCache-Control: no-store\r\n");
  for (const auto& [name, value] : answer.headers) header += StrCat(name, ": ", value, "\r\n");
  if (!keep_alive) header += "Connection: close\r\n";
  if (keep_alive && version < 11) header += "Connection: keep-alive\r\n";
  return header + StrCat("Content-Length: ", length, "\r\n\r\n");
}

}  // namespace

const std::string* HttpRequest::Header(std::string_view name) const {
  for (const auto& [key, value] : headers) {
    if (beast::iequals({key.data(), key.size()}, {name.data(), name.size()})) return &value;
  }
  return nullptr;
}

HttpResponse HttpError(int status, std::string_view message) {
  HttpResponse response{status, "application/json", "{\"error\":"};
  AppendJsonString(message, response.body);
  response.body += '}';
  return response;
}

// A thread, and the connections that live on it: what is here is confined to it while it runs.
struct HttpServer::Worker {
  asio::io_context io{1};
  std::optional<WorkGuard> work{io.get_executor()};  // keeps the thread there between connections
  std::vector<std::shared_ptr<Connection>> All() const;  // stay while they are told to close

  std::set<Connection*> connections;
  std::function<void()> on_closed = [] {};
  bool stopping = false;
  std::thread thread;
};

// What the threads, the listener and all connections look at. Constant once listening, where nothing else is said.
struct HttpServer::Shared {
  Shared(Options o, HttpCallHandler h)
      : options(std::move(o)), handler(std::move(h)), workers(static_cast<std::size_t>(options.threads)) {}

  BufferPool& buffers() { return options.buffers != nullptr ? *options.buffers : own_buffers; }

  const Options options;
  const HttpCallHandler handler;
  BufferPool own_buffers{kOwnBufferBytes};
  std::vector<Worker> workers;              // the acceptor is the first one's
  tcp::acceptor acceptor{workers[0].io};
  std::atomic<std::size_t> connections{0};  // accepted and not yet gone
  std::atomic<std::size_t> calls{0};        // not yet answered
  std::function<void()> made_room = [] {};  // wakes a listener that waits for it; the first worker's
  std::uint16_t port = 0;
};

// One client: read a request, have it answered, again. On its worker's thread only. What is under way keeps it alive:
// at most one read, one write, one wait of its timer, and a call that is being answered.
class HttpServer::Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(tcp::socket socket, std::shared_ptr<Shared> shared, Worker& worker)
      : shared_(std::move(shared)),
        worker_(worker),
        socket_(std::move(socket)),
        timer_(worker.io),
        // A header that is cut off by the end of a read, and that read.
        buffer_(shared_->options.max_header_bytes + 2 * kReadBytes) {
    worker_.connections.insert(this);
  }

  ~Connection() {
    worker_.connections.erase(this);
    worker_.on_closed();
    --shared_->connections;
    asio::dispatch(shared_->workers[0].io, [shared = shared_.get()] { shared->made_room(); });
  }

  void Run() {
    if (worker_.stopping) return CloseNow();
    WaitForRequest();
  }

  // Closes now if no request is under way, else once it is answered.
  void StopSoon() {
    if (state_ == State::kIdle) CloseNow();
  }
  void CloseNow() {
    closed_ = true;
    ErrorCode ignored;
    socket_.close(ignored);
    timer_.cancel();
    stop_.request_stop();
  }

 private:
  enum class State { kIdle, kHeader, kBody, kAnswering, kWriting, kLingering };

  // The duty to answer; it is work of the connection's thread, which stays there until it is done.
  class Exchange : public HttpExchange {
   public:
    explicit Exchange(std::shared_ptr<Connection> connection)
        : shared_(connection->shared_), connection_(std::move(connection)), work_(connection_->worker_.io.get_executor()) {
      ++shared_->calls;
    }
    ~Exchange() override { --shared_->calls; }
    void Answer(HttpResponse response) override {
      Connection& connection = *connection_;
      asio::dispatch(connection.worker_.io, [self = std::move(connection_), response = std::move(response)]() mutable {
        self->Write(std::move(response));
      });
      work_.reset();
    }

   private:
    const std::shared_ptr<Shared> shared_;  // the thread that Answer() lets go must not be gone before it returns
    std::shared_ptr<Connection> connection_;
    WorkGuard work_;
  };

  // --- time ---

  // Hangs up unless it is called again, or Forever() is, within `time`.
  void Expire(Duration time) {
    timer_.expires_after(time);
    timer_.async_wait([self = shared_from_this()](ErrorCode error) {
      // One that rang and was set again before its ring was heard is not over.
      if (!error && self->timer_.expiry() <= asio::steady_timer::clock_type::now()) self->CloseNow();
    });
  }
  void Forever() { timer_.expires_at(asio::steady_timer::time_point::max()); }

  // --- reading ---

  void WaitForRequest() {
    state_ = State::kIdle;
    parser_.reset();
    Expire(shared_->options.idle_timeout);
    if (buffer_.size() > 0) return Parse();  // pipelined
    Read();
  }

  void Read() {
    if (reading_ || closed_) return;
    reading_ = true;
    socket_.async_read_some(buffer_.prepare(kReadBytes), [self = shared_from_this()](ErrorCode error, std::size_t bytes) {
      self->reading_ = false;
      if (self->closed_) return;
      if (error) return self->ReadFailed();
      self->buffer_.commit(bytes);
      self->Received(bytes);
    });
  }

  void ReadFailed() {
    // A client that will send nothing more may still wait for what is being sent.
    if (state_ == State::kWriting) {
      keep_alive_ = false;
      return;
    }
    CloseNow();
  }

  void Received(std::size_t bytes) {
    switch (state_) {
      case State::kIdle:
      case State::kHeader:
      case State::kBody:
        return Parse();
      case State::kAnswering:
        return Watch();
      case State::kWriting:
        return;
      case State::kLingering:
        drained_ += bytes;
        if (drained_ >= kLingerBytes) return CloseNow();
        return Drain();
    }
  }

  // Notices a client that goes away, unless it has sent its next request already: that waits in `buffer_` for its turn, for
  // which no read may be under way.
  void Watch() {
    if (buffer_.size() == 0) Read();
  }

  // Takes what is there. REQUIRES: no read is under way.
  void Parse() {
    while (buffer_.size() > 0) {
      if (state_ == State::kIdle) {
        parser_.emplace();
        parser_->header_limit(static_cast<std::uint32_t>(shared_->options.max_header_bytes));
        parser_->body_limit(shared_->options.max_body_bytes);
        parser_->get().body().emplace(shared_->buffers());
        state_ = State::kHeader;
        Expire(shared_->options.read_timeout);
      }
      ErrorCode error;
      buffer_.consume(parser_->put(buffer_.data(), error));
      if (error == http::error::need_more) break;
      if (error) return Refuse(error);
      if (parser_->is_done()) return Dispatch();
      if (state_ == State::kHeader && parser_->is_header_done()) {
        state_ = State::kBody;
        const auto expect = parser_->get()[http::field::expect];
        if (beast::iequals(expect, "100-continue")) return Continue();
      }
    }
    if (state_ == State::kBody) Expire(shared_->options.read_timeout);
    Read();
  }

  // The client waits for this before it sends the body.
  void Continue() {
    static constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
    Expire(shared_->options.write_timeout);
    asio::async_write(socket_, asio::buffer(kContinue.data(), kContinue.size()),
                      [self = shared_from_this()](ErrorCode error, std::size_t) {
                        if (self->closed_) return;
                        if (error) return self->CloseNow();
                        self->Expire(self->shared_->options.read_timeout);
                        if (self->buffer_.size() > 0) return self->Parse();
                        self->Read();
                      });
  }

  void Refuse(const ErrorCode& error) {
    const Options& options = shared_->options;
    version_ = 11;
    head_ = keep_alive_ = false;
    if (error == http::error::header_limit) {
      return Write(HttpError(431, StrCat("the request's header is larger than ", options.max_header_bytes, " bytes")));
    }
    if (error == http::error::body_limit) {
      return Write(HttpError(413, StrCat("the request's body is larger than ", options.max_body_bytes, " bytes")));
    }
    if (error == boost::system::errc::not_enough_memory) {
      return Write(HttpError(503, "no memory for the body of this request"));
    }
    Write(HttpError(400, StrCat("not an HTTP request: ", error.message())));
  }

  // --- answering ---

  void Dispatch() {
    auto& message = parser_->get();
    version_ = message.version();
    keep_alive_ = message.keep_alive();
    head_ = message.method() == http::verb::head;
    state_ = State::kAnswering;
    stop_ = std::stop_source();
    auto exchange = std::make_unique<Exchange>(shared_from_this());
    exchange->stop = stop_;
    HttpRequest& request = exchange->request;
    request.method = std::string(message.method_string());
    SplitTarget({message.target().data(), message.target().size()}, request);
    for (const auto& field : message) {
      request.headers.emplace_back(std::string(field.name_string()), std::string(field.value()));
    }
    const BufferPool::Buffer body = message.body()->Take();
    request.body = {reinterpret_cast<const char*>(body.bytes.data()), body.bytes.size()};
    request.owner = body.owner;
    parser_.reset();
    Forever();
    Watch();
    try {
      shared_->handler(HttpCall(std::move(exchange)));  // which may answer at once
    } catch (const std::exception& e) {  // dropped, it has been answered
      log::Error("http handler failed", {{"error", e.what()}});
    }
  }

  void Write(HttpResponse answer) {
    if (closed_) return;
    state_ = State::kWriting;
    if (worker_.stopping) keep_alive_ = false;
    answer_ = std::move(answer);
    std::size_t length = answer_.body.size();
    for (const HttpPart& part : answer_.parts) length += part.bytes.size();
    header_ = HeaderOf(answer_, length, keep_alive_, version_);
    std::vector<asio::const_buffer> pieces = {asio::buffer(header_)};
    if (!head_) {
      pieces.push_back(asio::buffer(answer_.body));
      for (const HttpPart& part : answer_.parts) pieces.emplace_back(part.bytes.data(), part.bytes.size());
    }
    const auto go_on = [self = shared_from_this()](const ErrorCode& error, std::size_t) -> std::size_t {
      if (error || self->closed_) return 0;
      self->Expire(self->shared_->options.write_timeout);
      return asio::detail::default_max_transfer_size;
    };
    asio::async_write(socket_, pieces, go_on, [self = shared_from_this()](ErrorCode error, std::size_t) {
      if (self->closed_) return;
      if (error) return self->CloseNow();
      self->Written();
    });
  }

  void Written() {
    answer_ = {};
    if (!keep_alive_) return Linger();
    // Stop() may have been called since the answer promised to go on: then it ends here.
    if (worker_.stopping) return CloseNow();
    WaitForRequest();
  }

  // Ends our side and reads what the client is still sending: closing over unread bytes makes the
  // kernel send a reset, which can overtake the answer.
  void Linger() {
    state_ = State::kLingering;
    ErrorCode ignored;
    socket_.shutdown(tcp::socket::shutdown_send, ignored);
    Expire(kLingerTime);
    if (!reading_) Drain();
  }
  void Drain() {
    buffer_.clear();
    Read();
  }

  const std::shared_ptr<Shared> shared_;
  Worker& worker_;
  tcp::socket socket_;
  asio::steady_timer timer_;
  beast::flat_buffer buffer_;  // received and not yet taken; not touched while a read is under way
  State state_ = State::kIdle;
  bool reading_ = false;
  bool closed_ = false;
  std::size_t drained_ = 0;

  // Of the request under way.
  std::optional<http::request_parser<PooledBody>> parser_;
  unsigned version_ = 11;
  bool head_ = false;
  bool keep_alive_ = false;
  std::stop_source stop_;
  HttpResponse answer_;
  std::string header_;
};

std::vector<std::shared_ptr<HttpServer::Connection>> HttpServer::Worker::All() const {
  std::vector<std::shared_ptr<Connection>> all;
  for (Connection* connection : connections) all.push_back(connection->weak_from_this().lock());
  std::erase(all, nullptr);
  return all;
}

// Accepts while there is room, for each worker in turn. On the first one's thread.
class HttpServer::Listener : public std::enable_shared_from_this<Listener> {
 public:
  explicit Listener(std::shared_ptr<Shared> shared) : shared_(std::move(shared)), pause_(shared_->workers[0].io) {}

  void Run() {
    // Also what keeps the listener there while it waits for room; Stop() replaces it.
    shared_->made_room = [self = shared_from_this()] { self->Accept(); };
    Accept();
  }

 private:
  void Accept() {
    if (accepting_ || !shared_->acceptor.is_open() || shared_->connections >= shared_->options.max_connections) return;
    accepting_ = true;
    Worker& worker = shared_->workers[next_++ % shared_->workers.size()];
    shared_->acceptor.async_accept(worker.io, [self = shared_from_this(), &worker](ErrorCode error, tcp::socket socket) {
      self->accepting_ = false;
      self->Accepted(error, std::move(socket), worker);
    });
  }

  void Accepted(const ErrorCode& error, tcp::socket socket, Worker& worker) {
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
    asio::dispatch(worker.io, [weak = std::weak_ptr<Shared>(shared_), &worker, socket = std::move(socket)]() mutable {
      std::make_shared<Connection>(std::move(socket), weak.lock(), worker)->Run();
    });
    Accept();
  }

  const std::shared_ptr<Shared> shared_;
  asio::steady_timer pause_;
  std::size_t next_ = 0;
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
    HttpResponse response{503, "application/json", "{\"ready\":false,\"reason\":"};
    AppendJsonString(why_not, response.body);
    response.body += '}';
    return response;
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

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(Options options, std::vector<HttpRoute> routes) {
  return Start(std::move(options), [routes = std::move(routes)](HttpCall call) {
    HttpResponse answer;
    try {
      answer = AnswerByRoute(routes, call.request());
    } catch (const std::exception& e) {
      log::Error("http handler failed", {{"path", call.request().path}, {"error", e.what()}});
      answer = HttpError(500, "internal error; the server's log says more");
    }
    std::move(call).Finish(std::move(answer));
  });
}

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
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(shared)));
}

HttpServer::HttpServer(std::shared_ptr<Shared> shared) : shared_(std::move(shared)) {
  std::make_shared<Listener>(shared_)->Run();
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
  for (Worker& worker : shared_->workers) {
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
  for (Worker& worker : shared_->workers) worker.thread.join();  // run() ends when nothing is left to wait for
  for (Worker& worker : shared_->workers) worker.on_closed = [] {};
}

}  // namespace hearth
