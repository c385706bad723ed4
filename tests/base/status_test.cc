#include "server/base/status.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <memory>
#include <stdexcept>
#include <vector>

#include "server/base/check.h"

namespace hearth {
namespace {

std::string Text(const absl::Status& status) { return std::string(status.message()); }

absl::StatusOr<std::unique_ptr<int>> Make(bool good) {
  if (!good) return absl::NotFoundError("no int");
  return std::make_unique<int>(7);
}

absl::Status Use(bool good, int* out) {
  HEARTH_ASSIGN_OR_RETURN(std::unique_ptr<int> first, Make(good));
  HEARTH_ASSIGN_OR_RETURN(const auto second, Make(good));  // twice in one scope, move-only
  *out = *first + *second;
  return absl::OkStatus();
}

TEST(StatusMacros, AssignOrReturn) {
  int value = 0;
  EXPECT_TRUE(Use(true, &value).ok());
  EXPECT_EQ(value, 14);
  value = 0;
  EXPECT_EQ(Use(false, &value), absl::NotFoundError("no int"));
  EXPECT_EQ(value, 0);
}

TEST(StatusMacros, ReturnIfErrorReturnsOnlyErrorsAndEvaluatesOnce) {
  int calls = 0;
  const auto run = [&](absl::Status status) -> absl::Status {
    HEARTH_RETURN_IF_ERROR((++calls, status));
    return absl::CancelledError("went on");
  };
  EXPECT_EQ(run(absl::OkStatus()), absl::CancelledError("went on"));
  EXPECT_EQ(run(absl::InternalError("x")), absl::InternalError("x"));
  EXPECT_EQ(calls, 2);
}

TEST(Annotate, PutsContextInFrontAndKeepsCodeAndPayloads) {
  const absl::Status inner =
      WithRetryAfter(absl::UnavailableError("busy"), std::chrono::milliseconds(250));
  const absl::Status outer = Annotate(Annotate(inner, "open a.pt"), "load a:1");
  EXPECT_EQ(outer.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(Text(outer), "load a:1: open a.pt: busy");
  EXPECT_EQ(RetryAfter(outer), std::chrono::milliseconds(250));
  EXPECT_TRUE(Annotate(absl::OkStatus(), "load").ok());
}

TEST(RetryAfter, IsAbsentUnlessGiven) {
  EXPECT_EQ(RetryAfter(absl::UnavailableError("busy")), std::nullopt);
  EXPECT_EQ(RetryAfter(absl::OkStatus()), std::nullopt);
  EXPECT_TRUE(WithRetryAfter(absl::OkStatus(), std::chrono::milliseconds(1)).ok());
}

TEST(ErrnoStatus, ChoosesTheCodeByTheError) {
  EXPECT_EQ(Text(ErrnoStatus(ENOENT, "open x")), "open x: No such file or directory");
  EXPECT_EQ(ErrnoStatus(ENOENT, "").code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ErrnoStatus(EACCES, "").code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(ErrnoStatus(ENOMEM, "").code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ErrnoStatus(EADDRINUSE, "").code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(ErrnoStatus(EISDIR, "").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ErrnoStatus(EIO, "").code(), absl::StatusCode::kInternal);
}

TEST(CatchAsStatus, TurnsWhatIsThrownIntoAStatus) {
  EXPECT_EQ(*CatchAsStatus("sum", [] { return 3; }), 3);
  const auto thrown = CatchAsStatus("parse", []() -> int { throw std::runtime_error("bad byte"); });
  EXPECT_EQ(thrown.status(), absl::InternalError("parse: bad byte"));
  const auto memory = CatchAsStatus("grow", []() -> int { throw std::bad_alloc(); });
  EXPECT_EQ(memory.status().code(), absl::StatusCode::kResourceExhausted);
}

TEST(Check, AbortsWithFileAndCondition) {
  EXPECT_DEATH(HEARTH_CHECK(1 + 1 == 3), "status_test.cc:[0-9]+: CHECK\\(1 \\+ 1 == 3\\) failed");
  HEARTH_CHECK(1 + 1 == 2);
}

TEST(QuotedList, PutsEachNameInQuotes) {
  EXPECT_EQ(QuotedList(std::vector<std::string>{}), "");
  EXPECT_EQ(QuotedList(std::vector<std::string>{"a", "b c"}), "'a', 'b c'");
}

TEST(IsPlainName, FollowsTheRule) {
  for (const char* name : {"a", "A-1_b.c", "0", "resnet50"}) EXPECT_TRUE(IsPlainName(name)) << name;
  for (const char* name : {"", ".", "..", "-a", "_a", "a/b", "a b", "a\n", "ü", "a:1"}) {
    EXPECT_FALSE(IsPlainName(name)) << name;
  }
  EXPECT_TRUE(IsPlainName(std::string(128, 'a')));
  EXPECT_FALSE(IsPlainName(std::string(129, 'a')));
  EXPECT_FALSE(IsPlainName(std::string_view("a\0b", 3)));
}

TEST(IsFileName, LeadsNowhereElse) {
  for (const char* name : {"a", "model-00001-of-00002.safetensors", "größe.pth", "重み", "a b", "a..b"}) {
    EXPECT_TRUE(IsFileName(name)) << name;
  }
  for (const char* name : {"", ".", "..", ".hidden", "a/b", "/", "../a", "a\n", "\x7f"}) {
    EXPECT_FALSE(IsFileName(name)) << name;
  }
  EXPECT_TRUE(IsFileName(std::string(255, 'a')));
  EXPECT_FALSE(IsFileName(std::string(256, 'a')));
  EXPECT_FALSE(IsFileName(std::string_view("a\0b", 3)));
}

}  // namespace
}  // namespace hearth
