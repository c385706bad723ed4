#include "server/frontend/http_call.h"

#include <boost/beast/core/string.hpp>

#include "server/frontend/json_writer.h"

namespace hearth {

const std::string* HttpRequest::Header(std::string_view name) const {
  for (const auto& [key, value] : headers) {
    if (boost::beast::iequals({key.data(), key.size()}, {name.data(), name.size()})) return &value;
  }
  return nullptr;
}

HttpResponse HttpError(int status, std::string_view message) {
  HttpResponse response{status, "application/json", "{\"error\":"};
  AppendJsonString(message, response.body);
  response.body += '}';
  return response;
}

}  // namespace hearth
