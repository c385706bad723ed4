#include "server/frontend/http_connection.h"

#include <boost/asio/dispatch.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/string.hpp>
#include <boost/beast/http.hpp>
#include <string>
#include <string_view>

#include "server/base/log.h"
#include "server/frontend/http_body.h"
#include "server/frontend/http_transport.h"
#include "server/frontend/tls_context.h"

namespace hearth {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using asio::ip::tcp;
using ErrorCode = boost::system::error_code;

constexpr std::size_t kReadBytes = 64 * 1024;
constexpr std::size_t kLingerBytes = 1 << 20;
constexpr std::chrono::seconds kLingerTime(1);

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

HttpPeer PeerAt(const asio::ip::address& address) {
  const bool mapped = address.is_v6() && address.to_v6().is_v4_mapped();
  const asio::ip::address plain =
      mapped ? asio::ip::make_address_v4(asio::ip::v4_mapped, address.to_v6()) : address;
  return {.address = plain.to_string(), .loopback = plain.is_loopback(), .certificate_names = {}};
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

// One client: read a request, have it answered, again. On its worker's thread only. What is under way keeps it alive:
// at most one read, one write, one wait of its timer, and a call that is being answered.
class Connection final : public HttpConnection {
 public:
  Connection(tcp::socket socket, std::shared_ptr<asio::ssl::context> tls, std::shared_ptr<HttpServer::Shared> shared,
             HttpWorker& worker)
      : shared_(std::move(shared)),
        worker_(worker),
        transport_(std::move(socket), std::move(tls)),
        timer_(worker.io),
        // A header that is cut off by the end of a read, and that read.
        buffer_(shared_->options.max_header_bytes + 2 * kReadBytes) {
    worker_.connections.insert(this);
    ErrorCode error;
    const asio::ip::address address = transport_.socket().remote_endpoint(error).address();
    if (!error) peer_ = std::make_shared<HttpPeer>(PeerAt(address));
  }

  ~Connection() override {
    worker_.connections.erase(this);
    worker_.on_closed();
    --shared_->connections;
    asio::dispatch(shared_->workers[0].io, [shared = shared_.get()] { shared->made_room(); });
  }

  void Run() {
    if (worker_.stopping) return CloseNow();
    if (!transport_.encrypted()) return WaitForRequest();
    state_ = State::kHandshake;
    Expire(shared_->options.read_timeout);
    transport_.Handshake([self = Self()](ErrorCode error) {
      if (self->closed_) return;
      if (error) return self->CloseNow();  // a scanner, or somebody who trusts another authority
      if (self->peer_ != nullptr) self->peer_->certificate_names = CertificateNames(self->transport_.connection());
      self->WaitForRequest();
    });
  }

  void StopSoon() override {
    if (state_ == State::kIdle || state_ == State::kHandshake) CloseNow();
  }
  void CloseNow() override {
    closed_ = true;
    ErrorCode ignored;
    transport_.socket().close(ignored);
    timer_.cancel();
    stop_.request_stop();
  }

 private:
  using Shared = HttpServer::Shared;
  using Options = HttpServer::Options;
  enum class State { kHandshake, kIdle, kHeader, kBody, kAnswering, kWriting, kLingering };

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
    HttpWorkGuard work_;
  };

  std::shared_ptr<Connection> Self() { return std::static_pointer_cast<Connection>(shared_from_this()); }

  // --- time ---

  // Hangs up unless it is called again, or Forever() is, within `time`.
  void Expire(Duration time) {
    timer_.expires_after(time);
    timer_.async_wait([self = Self()](ErrorCode error) {
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
    const auto read = [self = Self()](ErrorCode error, std::size_t bytes) {
      self->reading_ = false;
      if (self->closed_) return;
      if (error) return self->ReadFailed();
      self->buffer_.commit(bytes);
      self->Received(bytes);
    };
    // What comes after the end of our side is of no interest, and not deciphered.
    if (state_ == State::kLingering) return transport_.socket().async_read_some(buffer_.prepare(kReadBytes), read);
    transport_.async_read_some(buffer_.prepare(kReadBytes), read);
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
      case State::kHandshake:
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
        parser_->get().body().emplace(shared_->buffers(), ByteCharge(shared_->bodies));
        state_ = State::kHeader;
        Expire(shared_->options.read_timeout);
      }
      ErrorCode error;
      buffer_.consume(parser_->put(buffer_.data(), error));
      if (error == http::error::need_more) break;
      if (error) return Refuse(error);
      // A body whose end nobody knows: what follows would be taken for the next request.
      const auto coded = [this] { return parser_->get().count(http::field::transfer_encoding) > 0 && !parser_->chunked(); };
      if (state_ == State::kHeader && parser_->is_header_done() && coded()) return Refuse(http::error::bad_transfer_encoding);
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
    asio::async_write(transport_, asio::buffer(kContinue.data(), kContinue.size()),
                      [self = Self()](ErrorCode error, std::size_t) {
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
      const std::string setting = options.max_body_setting.empty() ? "" : StrCat(" (", options.max_body_setting, ")");
      return Write(HttpError(413, StrCat("the request's body is larger than ", options.max_body_bytes, " bytes", setting)));
    }
    if (error == boost::system::errc::not_enough_memory) {
      return Write(HttpError(503, StrCat("no memory for the body of this request: all bodies together may have ",
                                          options.max_bodies_bytes, " bytes (rest.max_bodies_bytes); ask again soon")));
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
    auto exchange = std::make_unique<Exchange>(Self());
    exchange->stop = stop_;
    HttpRequest& request = exchange->request;
    request.method = std::string(message.method_string());
    SplitTarget({message.target().data(), message.target().size()}, request);
    for (const auto& field : message) {
      request.headers.emplace_back(std::string(field.name_string()), std::string(field.value()));
    }
    request.peer = peer_;
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
    const auto go_on = [self = Self()](const ErrorCode& error, std::size_t) -> std::size_t {
      if (error || self->closed_) return 0;
      self->Expire(self->shared_->options.write_timeout);
      return asio::detail::default_max_transfer_size;
    };
    asio::async_write(transport_, pieces, go_on, [self = Self()](ErrorCode error, std::size_t) {
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
    Expire(kLingerTime);
    if (!transport_.encrypted()) return EndSending();
    transport_.Shutdown([self = Self()](ErrorCode) {
      if (!self->closed_) self->EndSending();
    });
  }
  void EndSending() {
    state_ = State::kLingering;
    ErrorCode ignored;
    transport_.socket().shutdown(tcp::socket::shutdown_send, ignored);
    if (!reading_) Drain();
  }
  void Drain() {
    buffer_.clear();
    Read();
  }

  const std::shared_ptr<Shared> shared_;
  HttpWorker& worker_;
  std::shared_ptr<HttpPeer> peer_;  // null: it was gone before it could be asked. Constant once requests are read
  HttpTransport transport_;
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

}  // namespace

void RunHttpConnection(tcp::socket socket, std::shared_ptr<asio::ssl::context> tls,
                       std::shared_ptr<HttpServer::Shared> shared, HttpWorker& worker) {
  std::make_shared<Connection>(std::move(socket), std::move(tls), std::move(shared), worker)->Run();
}

}  // namespace hearth
