#include "server/base/check.h"

#include <cstdio>
#include <cstdlib>

namespace hearth {

void CheckFailed(const char* file, int line, const char* condition) {
  std::fprintf(stderr, "hearth: bug at %s:%d: CHECK(%s) failed\n", file, line, condition);
  std::fflush(stderr);
  std::abort();
}

}  // namespace hearth
