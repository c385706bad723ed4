#include "server/frontend/rest_status.h"

#include <chrono>

#include "server/base/check.h"

namespace hearth {

int HttpStatus(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kOk:
      return 200;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kCancelled:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kUnknown:
      return 400;
    case absl::StatusCode::kUnauthenticated:
      return 401;
    case absl::StatusCode::kPermissionDenied:
      return 403;
    case absl::StatusCode::kNotFound:
      return 404;
    case absl::StatusCode::kAborted:
      return 409;
    case absl::StatusCode::kResourceExhausted:
      return 429;
    case absl::StatusCode::kUnimplemented:
      return 501;
    case absl::StatusCode::kUnavailable:
      return 503;
    case absl::StatusCode::kDeadlineExceeded:
      return 504;
    default:
      return 500;
  }
}

HttpResponse ErrorResponse(const absl::Status& status) {
  HEARTH_CHECK(!status.ok());
  HttpResponse response = HttpError(HttpStatus(status.code()), FromAbsl(status.message()));
  if (const auto wait = RetryAfter(status)) {
    response.headers.emplace_back("Retry-After", StrCat(std::chrono::ceil<std::chrono::seconds>(*wait).count()));
  }
  return response;
}

}  // namespace hearth
