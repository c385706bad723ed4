#include "server/frontend/otlp_exporter.h"

#include <pthread.h>

#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>

#include <algorithm>
#include <chrono>
#include <random>
#include <utility>

#include "server/base/log.h"
#include "server/base/strings.h"

namespace hearth {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr std::size_t kMaxWaiting = 8192;  // spans; more are dropped
constexpr std::size_t kEnough = 512;       // do not wait for the second to be over
constexpr Duration kEvery = seconds(1);
constexpr Duration kPatience = seconds(2);  // for one post
constexpr std::size_t kMaxAnswer = 1 << 16;

// One POST. Empty: it was taken; else why not.
std::string Post(const OtlpEndpoint& endpoint, std::string body) {
  asio::io_context context;
  asio::ip::tcp::resolver resolver(context);
  beast::tcp_stream stream(context);
  http::request<http::string_body> request(http::verb::post, endpoint.target, 11);
  request.set(http::field::host, endpoint.host);
  request.set(http::field::content_type, "application/json");
  request.set(http::field::user_agent, "hearth");
  request.keep_alive(false);
  request.body() = std::move(body);
  request.prepare_payload();
  http::response_parser<http::string_body> answer;
  answer.body_limit(kMaxAnswer);
  beast::flat_buffer buffer;
  std::string failure = "no answer in time";
  stream.expires_after(kPatience);
  const auto failed = [&](const beast::error_code& error) {
    if (error) failure = error.message();
    return static_cast<bool>(error);
  };
  resolver.async_resolve(endpoint.host, endpoint.port, [&](beast::error_code error, auto found) {
    if (failed(error)) return;
    stream.async_connect(found, [&](beast::error_code connected, const auto&) {
      if (failed(connected)) return;
      http::async_write(stream, request, [&](beast::error_code written, std::size_t) {
        if (failed(written)) return;
        http::async_read(stream, buffer, answer, [&](beast::error_code read, std::size_t) {
          if (failed(read)) return;
          const unsigned status = answer.get().result_int();
          failure = status / 100 == 2 ? "" : StrCat("status ", status);
        });
      });
    });
  });
  context.run_for(kPatience);
  return failure;
}

}  // namespace

absl::StatusOr<OtlpEndpoint> ParseOtlpEndpoint(std::string_view url) {
  constexpr std::string_view kScheme = "http://";
  if (!url.starts_with(kScheme)) {
    return absl::InvalidArgumentError(StrCat(
        "'", url, "' is not the address of an OTLP/HTTP collector; write http://HOST:4318/v1/traces (for TLS, send to a collector "
        "on this machine that passes it on)"));
  }
  const std::string_view rest = url.substr(kScheme.size());
  const std::size_t slash = rest.find('/');
  const std::string_view authority = rest.substr(0, slash);
  OtlpEndpoint endpoint{.host = {}, .port = "4318", .target = "/v1/traces"};
  if (slash != rest.npos && slash + 1 < rest.size()) endpoint.target = rest.substr(slash);
  std::size_t host_end = authority.rfind(':');
  if (authority.starts_with('[')) {  // an IPv6 address
    const std::size_t bracket = authority.find(']');
    if (bracket == authority.npos) return absl::InvalidArgumentError(StrCat("'", url, "' has no ']' after its host"));
    endpoint.host = authority.substr(1, bracket - 1);
    host_end = bracket + 1 < authority.size() ? bracket + 1 : authority.npos;
  } else {
    endpoint.host = authority.substr(0, host_end);
  }
  if (host_end != authority.npos) endpoint.port = authority.substr(host_end + 1);
  const bool number = !endpoint.port.empty() && endpoint.port.size() <= 5 &&
                      std::ranges::all_of(endpoint.port, [](char c) { return c >= '0' && c <= '9'; });
  if (endpoint.host.empty() || !number || authority.find('@') != authority.npos) {
    return absl::InvalidArgumentError(StrCat("'", url, "' names no host and port; write http://HOST:4318/v1/traces"));
  }
  return endpoint;
}

OtlpExporter::OtlpExporter(Options options) : options_(std::move(options)), thread_([this] { Loop(); }) {}

OtlpExporter::~OtlpExporter() {
  {
    MutexLock lock(mu_);
    stopping_ = true;
  }
  wake_.NotifyAll();
  thread_.join();
}

void OtlpExporter::Add(RequestSpan span) {
  bool wake = false;
  {
    MutexLock lock(mu_);
    if (stopping_ || waiting_.size() >= kMaxWaiting) {
      dropped_.fetch_add(1);
      return;
    }
    waiting_.push_back(std::move(span));
    wake = waiting_.size() == 1 || waiting_.size() == kEnough;
  }
  if (wake) wake_.NotifyOne();
}

bool OtlpExporter::Samples() {
  if (options_.sample <= 0) return false;
  static thread_local std::minstd_rand random{std::random_device{}()};
  return std::generate_canonical<double, 32>(random) < options_.sample;
}

std::vector<RequestSpan> OtlpExporter::Take() {
  MutexLock lock(mu_);
  while (waiting_.empty() && !stopping_) wake_.Wait(mu_);
  const auto until = std::chrono::steady_clock::now() + kEvery;
  while (waiting_.size() < kEnough && !stopping_) {
    if (!wake_.WaitUntil(mu_, until)) break;
  }
  return std::exchange(waiting_, {});
}

void OtlpExporter::Loop() {
  pthread_setname_np(pthread_self(), "traces");
  for (std::vector<RequestSpan> spans = Take(); !spans.empty(); spans = Take()) Send(spans);
}

void OtlpExporter::Send(const std::vector<RequestSpan>& spans) {
  const std::string failure = Post(options_.endpoint, ToOtlpJson(spans, options_.resource));
  if (failure.empty()) {
    sent_.fetch_add(spans.size());
    complained_ = false;
    return;
  }
  dropped_.fetch_add(spans.size());
  if (std::exchange(complained_, true)) return;
  log::Warning("traces not taken by the collector; dropped until it does",
               {{"host", options_.endpoint.host}, {"port", options_.endpoint.port}, {"reason", failure}});
}

std::vector<Metrics::Sample> OtlpExporter::Counts() const {
  return {{"hearth_traced_requests_total", "Requests whose spans a collector has taken.", {}, static_cast<double>(sent_.load()), true},
          {"hearth_traced_requests_dropped_total", "Requests whose spans were dropped, because the collector took none or too few.",
           {}, static_cast<double>(dropped_.load()), true}};
}

}  // namespace hearth
