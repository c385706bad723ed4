#include "server/frontend/http_routes.h"

#include <exception>
#include <string_view>
#include <utility>

#include "server/base/log.h"
#include "server/base/strings.h"
#include "server/frontend/json_writer.h"

namespace hearth {
namespace {

// Finds the route and runs it; a 405 says which methods the path has.
HttpResponse AnswerByRoute(const std::vector<HttpRoute>& routes, const HttpGuard& guard, const HttpRequest& request) {
  const std::string_view method = request.method == "HEAD" ? "GET" : std::string_view(request.method);
  std::string allow;
  for (const HttpRoute& route : routes) {
    if (route.path != request.path) continue;
    if (route.method == method) {
      if (std::optional<HttpResponse> refusal = guard(route.group, request)) return *std::move(refusal);
      return route.handler(request);
    }
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

}  // namespace

HttpCallHandler ServeRoutes(std::vector<HttpRoute> routes, HttpGuard guard) {
  return [routes = std::move(routes), guard = std::move(guard)](HttpCall call) {
    HttpResponse answer;
    try {
      answer = AnswerByRoute(routes, guard, call.request());
    } catch (const std::exception& e) {
      log::Error("http handler failed", {{"path", call.request().path}, {"error", e.what()}});
      answer = HttpError(500, "internal error; the server's log says more");
    }
    std::move(call).Finish(std::move(answer));
  };
}

std::vector<HttpRoute> OperationalRoutes(OperationalHandlers handlers) {
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
       },
       AccessGroup::kStatistics},
      {"GET", "/v2/health/live", live, AccessGroup::kHealth},
      {"GET", "/v2/health/ready", ready, AccessGroup::kHealth},
  };
}

}  // namespace hearth
