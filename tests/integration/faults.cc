// Preloaded into a hearthd whose loads are to fail: the n-th call of one kind that a load thread makes, or a thread
// that it started, fails as the kernel would have it fail. $FAULTS names a file of three numbers, which the test writes:
// the kind, how many calls of it are still to succeed, and how many have failed.
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

namespace {

enum Kind : std::int32_t { kNone, kOpen, kMap, kRead, kPopulate, kAllocate };
constexpr std::size_t kWeights = 4096;  // smaller allocations are the library's own

struct Orders {
  std::atomic<std::int32_t> kind, to_succeed, failed;
};

template <typename Function>
Function* Next(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

Orders* Read() {
  const char* path = std::getenv("FAULTS");
  if (path == nullptr) return nullptr;
  static auto* const open_it = Next<int(const char*, int, ...)>("open");
  static auto* const map_it = Next<void*(void*, std::size_t, int, int, int, off_t)>("mmap");
  const int fd = open_it(path, O_RDWR | O_CLOEXEC);
  if (fd < 0) std::abort();
  void* const memory = map_it(nullptr, sizeof(Orders), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (memory == MAP_FAILED) std::abort();
  return static_cast<Orders*>(memory);
}

bool LoadsHere() {
  char name[16] = "";
  return pthread_getname_np(pthread_self(), name, sizeof(name)) == 0 && std::strncmp(name, "load-", 5) == 0;
}

bool Fails(Kind kind, int error) {
  static Orders* const orders = Read();
  if (orders == nullptr || orders->kind.load() != kind || !LoadsHere()) return false;
  if (orders->to_succeed.fetch_sub(1) != 0) return false;
  orders->failed.fetch_add(1);
  errno = error;
  return true;
}

}  // namespace

extern "C" {

int open(const char* path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  const mode_t mode = va_arg(rest, mode_t);
  va_end(rest);
  static auto* const next = Next<int(const char*, int, ...)>("open");
  return Fails(kOpen, EMFILE) ? -1 : next(path, flags, mode);
}

void* mmap(void* address, std::size_t length, int protection, int flags, int fd, off_t offset) noexcept {
  static auto* const next = Next<void*(void*, std::size_t, int, int, int, off_t)>("mmap");
  if (fd >= 0 && Fails(kMap, ENOMEM)) return MAP_FAILED;
  return next(address, length, protection, flags, fd, offset);
}

ssize_t pread(int fd, void* buffer, std::size_t size, off_t offset) {
  static auto* const next = Next<ssize_t(int, void*, std::size_t, off_t)>("pread");
  return Fails(kRead, EIO) ? -1 : next(fd, buffer, size, offset);
}

ssize_t read(int fd, void* buffer, std::size_t size) {
  static auto* const next = Next<ssize_t(int, void*, std::size_t)>("read");
  return Fails(kRead, EIO) ? -1 : next(fd, buffer, size);
}

int madvise(void* address, std::size_t length, int advice) noexcept {
  static auto* const next = Next<int(void*, std::size_t, int)>("madvise");
  return advice == MADV_POPULATE_READ && Fails(kPopulate, EFAULT) ? -1 : next(address, length, advice);
}

int posix_memalign(void** memory, std::size_t alignment, std::size_t size) noexcept {
  static auto* const next = Next<int(void**, std::size_t, std::size_t)>("posix_memalign");
  return size >= kWeights && Fails(kAllocate, ENOMEM) ? ENOMEM : next(memory, alignment, size);
}

}  // extern "C"
