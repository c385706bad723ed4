#include "server/frontend/grpc_status.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace hearth {
namespace {

using testing::EndsWith;
using testing::StartsWith;

TEST(GrpcStatus, KeepsEveryCodeAndText) {
  for (int code = 1; code <= 16; ++code) {
    const grpc::Status status =
        ToGrpcStatus(absl::Status(static_cast<absl::StatusCode>(code), "why"));
    EXPECT_EQ(static_cast<int>(status.error_code()), code);
    EXPECT_EQ(status.error_message(), "why");
  }
  EXPECT_EQ(static_cast<int>(absl::StatusCode::kUnauthenticated),
            grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok());
}

TEST(GrpcStatus, CutsAMessageThatWouldNotFitIntoAHeader) {
  const grpc::Status status =
      ToGrpcStatus(absl::InternalError("begin " + std::string(20'000, 'x')));
  EXPECT_LE(status.error_message().size(), 6100u);
  EXPECT_THAT(status.error_message(), StartsWith("begin xxx"));
  EXPECT_THAT(status.error_message(), EndsWith(" [cut]"));
}

TEST(GrpcStatus, CountsWhatTheHeaderEncodes) {
  // Newlines and non-ASCII bytes take three characters each.
  const grpc::Status status = ToGrpcStatus(absl::InternalError(std::string(4'000, '\n')));
  EXPECT_LE(status.error_message().size(), 2'010u);
  EXPECT_GT(status.error_message().size(), 1'900u);
}

TEST(GrpcStatus, DoesNotCutACharacterInTwo) {
  std::string text = "x";
  for (int i = 0; i < 5'000; ++i) text += "ź";  // two bytes each
  std::string cut = ToGrpcStatus(absl::InternalError(text)).error_message();
  cut.resize(cut.size() - std::string(" [cut]").size());
  EXPECT_EQ(cut.size() % 2, 1u);
  EXPECT_THAT(cut, EndsWith("ź"));
}

TEST(GrpcStatus, LeavesALongButFittingMessageAlone) {
  const std::string text(5'999, 'x');
  EXPECT_EQ(ToGrpcStatus(absl::InternalError(text)).error_message(), text);
}

}  // namespace
}  // namespace hearth
