#include "server/frontend/rest_status.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace hearth {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Pair;

TEST(RestStatus, IsTritonsWhereItHasOne) {
  EXPECT_EQ(HttpStatus(absl::StatusCode::kInvalidArgument), 400);
  EXPECT_EQ(HttpStatus(absl::StatusCode::kAlreadyExists), 400);
  EXPECT_EQ(HttpStatus(absl::StatusCode::kNotFound), 404);
  EXPECT_EQ(HttpStatus(absl::StatusCode::kInternal), 500);
  EXPECT_EQ(HttpStatus(absl::StatusCode::kUnimplemented), 501);
  EXPECT_EQ(HttpStatus(absl::StatusCode::kUnavailable), 503);
  EXPECT_EQ(HttpStatus(absl::StatusCode::kDeadlineExceeded), 504);
}

TEST(RestStatus, ARefusalIsJsonWithItsSentence) {
  const HttpResponse response = ErrorResponse(absl::NotFoundError("no 'zażółć' \"here\"\n"));
  EXPECT_EQ(response.status, 404);
  EXPECT_EQ(response.body, R"({"error":"no 'zażółć' \"here\"\u000a"})");
  EXPECT_THAT(response.headers, IsEmpty());
}

TEST(RestStatus, ARetryHintIsInWholeSecondsAndNeverTooSoon) {
  using std::chrono::milliseconds;
  const auto headers = [](milliseconds wait) {
    return ErrorResponse(WithRetryAfter(absl::UnavailableError("later"), wait)).headers;
  };
  EXPECT_THAT(headers(milliseconds(1)), ElementsAre(Pair("Retry-After", "1")));
  EXPECT_THAT(headers(milliseconds(2000)), ElementsAre(Pair("Retry-After", "2")));
  EXPECT_THAT(headers(milliseconds(2001)), ElementsAre(Pair("Retry-After", "3")));
}

}  // namespace
}  // namespace hearth
