#include "server/tools/sandbox.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <functional>

namespace hearth {
namespace {

// Runs `body` in a process of its own, which ends with what it returns.
void ExpectInChild(const std::function<bool()>& body) {
  EXPECT_EXIT(::_exit(body() ? 0 : 1), ::testing::ExitedWithCode(0), "");
}
bool Forbidden(long result) { return result == -1 && errno == EPERM; }

TEST(Sandbox, LeavesNoWayOut) {
  ExpectInChild([] { return ForbidSystemCalls() && Forbidden(::open("/dev/null", O_RDONLY)); });
  ExpectInChild([] { return ForbidSystemCalls() && Forbidden(::socket(AF_UNIX, SOCK_STREAM, 0)); });
  ExpectInChild([] { return ForbidSystemCalls() && Forbidden(::execl("/bin/true", "true", nullptr)); });
  ExpectInChild([parent = ::getpid()] { return ForbidSystemCalls() && Forbidden(::kill(parent, 0)); });
  ExpectInChild([] { return ForbidSystemCalls() && Forbidden(::fork()); });
}

TEST(Sandbox, LeavesMemoryAndWhatIsOpen) {
  ExpectInChild([] {
    const int file = ::open("/dev/zero", O_RDONLY);
    char byte = 1;
    return ForbidSystemCalls() && ::pread(file, &byte, 1, 0) == 1 && byte == 0 &&
           ::mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED;
  });
}

TEST(Sandbox, LimitsResources) {
  ExpectInChild([] {
    if (!LimitResources()) return false;
    rlimit space{}, time{};
    ::getrlimit(RLIMIT_AS, &space);
    ::getrlimit(RLIMIT_CPU, &time);
    const bool full = ::fcntl(0, F_DUPFD, 4) == -1 && errno == EINVAL;
    return full && space.rlim_max == 1U << 30 && time.rlim_cur == 10;
  });
}

}  // namespace
}  // namespace hearth
