// Servers of a few fixed paths, like that of metrics and health.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "server/base/access_groups.h"
#include "server/frontend/http_call.h"
#include "server/frontend/http_server.h"

namespace hearth {

// Answers at once.
using HttpHandler = std::function<HttpResponse(const HttpRequest&)>;
// A refusal, or nothing: the request may be answered. See RefusalOf().
using HttpGuard = std::function<std::optional<HttpResponse>(AccessGroup group, const HttpRequest& request)>;

// One exact path and what it answers, by method. A route for GET answers HEAD too.
struct HttpRoute {
  std::string method;
  std::string path;
  HttpHandler handler;
  AccessGroup group;
};

// Any other path is a 404 that names these, any other method a 405. A handler that throws is a 500.
HttpCallHandler ServeRoutes(std::vector<HttpRoute> routes, HttpGuard guard);

// GET /metrics, /v2/health/live and /v2/health/ready (200 or 503, with a reason).
struct OperationalHandlers {
  std::function<std::string()> metrics;  // Prometheus' text format
  std::function<bool()> live;
  std::function<std::string()> why_not_ready;  // empty: ready
};
std::vector<HttpRoute> OperationalRoutes(OperationalHandlers handlers);

}  // namespace hearth
