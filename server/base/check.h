// HEARTH_CHECK(condition): our own bug. Prints file, line and the condition, then aborts, in every
// build type. Never for what a client, a file or the machine can cause.
#pragma once

namespace hearth {
[[noreturn]] void CheckFailed(const char* file, int line, const char* condition);
}  // namespace hearth

#define HEARTH_CHECK(condition)                              \
  do {                                                       \
    if (!(condition)) [[unlikely]]                           \
      ::hearth::CheckFailed(__FILE__, __LINE__, #condition); \
  } while (false)

// Debug builds only; for checks that cost more than a comparison.
#ifdef NDEBUG
#define HEARTH_DCHECK(condition) \
  do {                           \
  } while (false && (condition))
#else
#define HEARTH_DCHECK(condition) HEARTH_CHECK(condition)
#endif
