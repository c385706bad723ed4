// absl::Status to what HTTP sends.
#pragma once

#include "server/base/status.h"
#include "server/frontend/http_call.h"

namespace hearth {

// 200 for OK. Triton's numbers where it has one for the code, else those of google.rpc.Code.
int HttpStatus(absl::StatusCode code);

// {"error":"<message>"}; a retry hint goes as Retry-After, in whole seconds, rounded up. REQUIRES: !status.ok().
HttpResponse ErrorResponse(const absl::Status& status);

}  // namespace hearth
