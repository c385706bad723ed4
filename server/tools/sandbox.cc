#include "server/tools/sandbox.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <iterator>
#include <vector>

namespace hearth {
namespace {

#if defined(__x86_64__)
constexpr std::uint32_t kArchitecture = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
constexpr std::uint32_t kArchitecture = AUDIT_ARCH_AARCH64;
#else
#error "the list of system calls below is for x86-64 and AArch64; see what AUDIT_ARCH_* this machine is"
#endif

// Without kill and tgkill abort() ends in an illegal instruction, which serves as well.
constexpr std::uint32_t kAllowed[] = {
    SYS_read,   SYS_pread64,  SYS_write,   SYS_fstat, SYS_newfstatat,    SYS_lseek,     SYS_brk,
    SYS_mmap,   SYS_munmap,   SYS_mremap,  SYS_madvise, SYS_futex,       SYS_getrandom, SYS_clock_gettime,
    SYS_exit,   SYS_exit_group, SYS_rt_sigreturn};

constexpr int kDescriptors = 4;
constexpr rlim_t kAddressSpace = 1ULL << 30;
constexpr rlim_t kCpuSeconds = 10;

bool Limit(__rlimit_resource resource, rlim_t soft, rlim_t hard) {
  const rlimit limit{soft, hard};
  return ::setrlimit(resource, &limit) == 0;
}

}  // namespace

bool LimitResources() {
  if (std::FILE* score = std::fopen("/proc/self/oom_score_adj", "w")) {
    std::fputs("1000", score);
    std::fclose(score);
  }
  return ::prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         Limit(RLIMIT_AS, kAddressSpace, kAddressSpace) &&
         Limit(RLIMIT_CPU, kCpuSeconds, kCpuSeconds + 1) &&  // the first tells the parent what happened
         Limit(RLIMIT_FSIZE, 0, 0) && Limit(RLIMIT_CORE, 0, 0) &&
         Limit(RLIMIT_NOFILE, kDescriptors, kDescriptors) && Limit(RLIMIT_NPROC, 0, 0);
}

bool ForbidSystemCalls() {
  const auto load = [](std::size_t offset) {
    return sock_filter BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<std::uint32_t>(offset));
  };
  const auto leave = [](std::uint32_t action) { return sock_filter BPF_STMT(BPF_RET | BPF_K, action); };
  // Skips the next step unless what is loaded is `value`.
  const auto if_equal = [](std::uint32_t value) { return sock_filter BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, 1); };
  const auto unless_equal = [](std::uint32_t value) {
    return sock_filter BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 1, 0);
  };
  // Numbers mean something else to another architecture's entry into the kernel.
  std::vector<sock_filter> steps = {load(offsetof(seccomp_data, arch)), unless_equal(kArchitecture),
                                    leave(SECCOMP_RET_KILL_PROCESS), load(offsetof(seccomp_data, nr))};
  for (const std::uint32_t number : kAllowed) {
    steps.push_back(if_equal(number));
    steps.push_back(leave(SECCOMP_RET_ALLOW));
  }
  steps.push_back(leave(SECCOMP_RET_ERRNO | EPERM));
  const sock_fprog program{static_cast<unsigned short>(steps.size()), steps.data()};
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

}  // namespace hearth
