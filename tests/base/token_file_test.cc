#include "server/base/token_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <string>

namespace hearth {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

class TokenFileTest : public testing::Test {
 protected:
  ~TokenFileTest() override { std::remove(path_.c_str()); }
  absl::StatusOr<std::vector<std::string>> Read(const std::string& text) {
    std::ofstream(path_, std::ios::binary) << text;
    return ReadTokenFile(path_);
  }
  std::string Mistake(const std::string& text) {
    const auto tokens = Read(text);
    EXPECT_EQ(tokens.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(FromAbsl(tokens.status().message()));
  }
  const std::string path_ = StrCat(testing::TempDir(), "/tokens-", ::getpid());
};

TEST_F(TokenFileTest, EveryLineIsATokenButForCommentsAndEmptyOnes) {
  const auto tokens = Read("# of March\n\n  first-token-of-16 \r\nsecond+token/of=16\n#third-token-of-16x\nlast-token-without-newline");
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  EXPECT_THAT(*tokens, ElementsAre("first-token-of-16", "second+token/of=16", "last-token-without-newline"));
}

TEST_F(TokenFileTest, AMistakeNamesTheLineAndNotWhatStandsThere) {
  EXPECT_THAT(Mistake("first-token-of-16\ntoo-short\n"), AllOf(HasSubstr(path_ + ":2:"), Not(HasSubstr("too-short"))));
  EXPECT_THAT(Mistake("with a blank but long enough\n"), AllOf(HasSubstr(":1:"), Not(HasSubstr("blank but"))));
  EXPECT_THAT(Mistake(std::string("with\0a zero but long enough", 27)), HasSubstr(":1:"));
}

TEST_F(TokenFileTest, AFileWithoutATokenIsAMistake) {
  EXPECT_THAT(Mistake(""), HasSubstr("holds no token"));
  EXPECT_THAT(Mistake("# nothing\n\n"), HasSubstr("holds no token"));
}

TEST_F(TokenFileTest, WhatIsNoSmallFileIsNotRead) {
  EXPECT_THAT(Mistake(std::string(100'000, 'x')), HasSubstr("larger than"));
  EXPECT_EQ(ReadTokenFile(testing::TempDir()).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReadTokenFile(StrCat(path_, "-absent")).status().code(), absl::StatusCode::kNotFound);
  std::remove(path_.c_str());
  ASSERT_EQ(::mkfifo(path_.c_str(), 0600), 0);
  EXPECT_EQ(ReadTokenFile(path_).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace hearth
