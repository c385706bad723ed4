#include "server/frontend/http_call.h"

#include <algorithm>
#include <boost/beast/core/string.hpp>

#include "server/frontend/json_writer.h"

namespace hearth {

const std::string* HttpRequest::Header(std::string_view name) const {
  for (const auto& [key, value] : headers) {
    if (boost::beast::iequals({key.data(), key.size()}, {name.data(), name.size()})) return &value;
  }
  return nullptr;
}

bool HttpRequest::AgreesOn(std::string_view name) const {
  const std::string* const first = Header(name);
  return std::ranges::all_of(headers, [&](const auto& header) {
    const auto& [key, value] = header;
    return !boost::beast::iequals({key.data(), key.size()}, {name.data(), name.size()}) || value == *first;
  });
}

HttpResponse HttpError(int status, std::string_view message) {
  HttpResponse response{status, "application/json", "{\"error\":"};
  AppendJsonString(message, response.body);
  response.body += '}';
  return response;
}

}  // namespace hearth
