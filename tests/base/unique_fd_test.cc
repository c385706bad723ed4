#include "server/base/unique_fd.h"

#include <fcntl.h>
#include <gtest/gtest.h>

namespace hearth {
namespace {

bool IsOpen(int fd) { return ::fcntl(fd, F_GETFD) != -1; }

int OpenSomething() { return ::open("/dev/null", O_RDONLY | O_CLOEXEC); }

TEST(UniqueFd, ClosesWhatItOwns) {
  int fd = -1;
  {
    const UniqueFd owner(OpenSomething());
    ASSERT_TRUE(owner);
    fd = owner.get();
    EXPECT_TRUE(IsOpen(fd));
  }
  EXPECT_FALSE(IsOpen(fd));
  EXPECT_FALSE(UniqueFd());
}

TEST(UniqueFd, HandsOverWhenMoved) {
  UniqueFd first(OpenSomething());
  UniqueFd second(OpenSomething());
  const int kept = first.get();
  const int replaced = second.get();
  second = std::move(first);
  EXPECT_FALSE(first);  // NOLINT(bugprone-use-after-move): that is what is tested
  EXPECT_EQ(second.get(), kept);
  EXPECT_TRUE(IsOpen(kept));
  EXPECT_FALSE(IsOpen(replaced));
  UniqueFd& same = second;
  second = std::move(same);
  EXPECT_TRUE(IsOpen(kept));
  second.Reset();
  EXPECT_FALSE(IsOpen(kept));
}

}  // namespace
}  // namespace hearth
