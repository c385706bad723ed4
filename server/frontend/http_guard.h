// Whether a client may have what it asks for over HTTP.
#pragma once

#include <optional>

#include "server/base/access_groups.h"
#include "server/frontend/http_call.h"
#include "server/serving/access.h"

namespace hearth {

// The refusal: 401 or 403, which says what would help. Nothing: it may. Looks at the client only where the answer depends
// on it.
std::optional<HttpResponse> RefusalOf(Access& access, Listener listener, AccessGroup group, const HttpRequest& request);

}  // namespace hearth
