#include "server/frontend/http_guard.h"

#include <algorithm>
#include <string>

#include "server/base/strings.h"
#include "server/frontend/rest_status.h"

namespace hearth {
namespace {

constexpr std::size_t kMostOfAPath = 200;  // in messages

std::string Lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c; });
  return text;
}

}  // namespace

std::optional<HttpResponse> RefusalOf(Access& access, Listener listener, AccessGroup group, const HttpRequest& request) {
  if (access.IsOpen(listener, group)) return std::nullopt;
  Caller caller;
  if (request.peer != nullptr) {
    caller.address = request.peer->address;
    caller.loopback = request.peer->loopback;
    caller.certificate_names = request.peer->certificate_names;
  }
  for (const auto& header : request.headers) caller.forwarded |= TellsOfElsewhere(Lower(header.first));
  if (const std::string* authorization = request.Header("Authorization")) caller.authorization = *authorization;
  const std::string call = StrCat(request.method, " ", request.path.substr(0, kMostOfAPath));
  const absl::Status allowed = access.Check(listener, group, call, caller);
  if (allowed.ok()) return std::nullopt;
  HttpResponse refusal = ErrorResponse(allowed);
  if (refusal.status == 401) refusal.headers.emplace_back("WWW-Authenticate", "Bearer");
  return refusal;
}

}  // namespace hearth
