#include "server/base/thread_priority.h"

#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace hearth {
namespace {

// linux/ioprio.h, which is not among the headers for programs everywhere.
constexpr int kIoprioWhoProcess = 1;  // a thread, to the kernel
constexpr int kIoprioClassIdle = 3 << 13;
constexpr int kIoprioLeastOfBestEffort = (2 << 13) + 7;
constexpr int kNicer = 10;

}  // namespace

void RunThisThreadWhenIdle() {
  const sched_param none{};
  ::pthread_setschedparam(::pthread_self(), SCHED_IDLE, &none);
  ::syscall(SYS_ioprio_set, kIoprioWhoProcess, 0, kIoprioClassIdle);
}

void RunThisThreadInBackground() {
  const sched_param none{};
  ::pthread_setschedparam(::pthread_self(), SCHED_BATCH, &none);
  // Of this thread only, on Linux; the kernel caps it.
  ::setpriority(PRIO_PROCESS, 0, ::getpriority(PRIO_PROCESS, 0) + kNicer);
  ::syscall(SYS_ioprio_set, kIoprioWhoProcess, 0, kIoprioLeastOfBestEffort);
}

}  // namespace hearth
