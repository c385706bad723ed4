// One HTTP request and the duty to answer it.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace hearth {

// Who is at the other end of a connection.
struct HttpPeer {
  std::string address;
  bool loopback = false;                       // on this machine
  std::vector<std::string> certificate_names;  // of its certificate, if it was verified
};

// Plain data; views point into what `owner` holds.
struct HttpRequest {
  std::string method;  // "GET"
  std::string path;    // "/metrics", as sent, without query
  std::string query;   // what follows "?", without it
  std::string_view body;
  std::vector<std::pair<std::string, std::string>> headers;  // as sent
  std::shared_ptr<const void> owner;
  std::shared_ptr<const HttpPeer> peer;  // null: nobody knows

  // The first header of that name, in any case of letters; null: there is none.
  const std::string* Header(std::string_view name) const;
  // Whether all headers of that name say the same; true: there is none.
  bool AgreesOn(std::string_view name) const;
};

// A piece of an answer's body that is sent from where it lies.
struct HttpPart {
  std::span<const std::byte> bytes;
  std::shared_ptr<const void> owner;
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  std::string body;
  std::vector<HttpPart> parts = {};  // follow `body`, and are part of it to the client
  std::vector<std::pair<std::string, std::string>> headers = {};  // beside those every answer has
  std::shared_ptr<const void> until_sent = {};  // there until the client has all of it
};

// {"error":"<message>"}, the protocol's error body.
HttpResponse HttpError(int status, std::string_view message);

// What a connection gives its handler. Owned by the call; Answer() is called once.
class HttpExchange {
 public:
  virtual ~HttpExchange() = default;
  virtual void Answer(HttpResponse response) = 0;  // any thread

  HttpRequest request;
  std::stop_source stop;
};

// The duty to answer one request. Move-only; dropped unanswered it answers 500, so that no client waits for a reply
// that cannot come. Thread-compatible.
class HttpCall {
 public:
  explicit HttpCall(std::unique_ptr<HttpExchange> exchange) : exchange_(std::move(exchange)) {}
  HttpCall(HttpCall&&) noexcept = default;
  HttpCall& operator=(HttpCall&&) = delete;
  ~HttpCall() {
    if (exchange_ != nullptr) std::move(*this).Finish(HttpError(500, "the request was dropped unanswered"));
  }

  HttpRequest& request() { return exchange_->request; }

  // Requested when the client went away. May be kept after the call is finished.
  std::stop_token cancelled() const { return exchange_->stop.get_token(); }

  // Nothing of this call may be used afterwards. Any thread.
  void Finish(HttpResponse response) && { std::exchange(exchange_, nullptr)->Answer(std::move(response)); }

 private:
  std::unique_ptr<HttpExchange> exchange_;
};

}  // namespace hearth
