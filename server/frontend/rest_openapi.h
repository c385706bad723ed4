// The paths of rest_routes.h for tools: OpenAPI 3.0.
#pragma once

#include <string_view>

namespace hearth {

// What GET /v2/openapi.json answers. A test holds it to the routes.
std::string_view OpenApi();

}  // namespace hearth
