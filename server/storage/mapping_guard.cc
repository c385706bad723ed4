#include "server/storage/mapping_guard.h"

#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <cerrno>
#include <mutex>

#include "server/base/check.h"

namespace hearth {
namespace {

// A signal handler cannot lock, so the table is atomics alone. begin: 0 free, 1 being filled in.
struct Slot {
  std::atomic<std::uintptr_t> begin{0};
  std::atomic<std::uintptr_t> end{0};
  std::atomic<bool> notes_writes{false};
  std::atomic<bool> goes_whole{false};
  std::atomic<bool> poisoned{false};
  std::atomic<bool> written{false};
};
Slot g_slots[MappingGuard::kMaxGuards];
std::uintptr_t g_page_size = 4096;
struct sigaction g_before_us {};  // of SIGSEGV; constant once our handler is installed

Slot* FindSlot(std::uintptr_t address) {
  for (Slot& slot : g_slots) {
    const std::uintptr_t begin = slot.begin.load(std::memory_order_acquire);
    if (begin > 1 && address >= begin && address < slot.end.load(std::memory_order_relaxed)) return &slot;
  }
  return nullptr;
}

void* PageOf(std::uintptr_t address) { return reinterpret_cast<void*>(address / g_page_size * g_page_size); }

void OnSigbus(int, siginfo_t* info, void*) {
  const auto address = reinterpret_cast<std::uintptr_t>(info->si_addr);
  if (Slot* slot = FindSlot(address)) {
    slot->poisoned.store(true, std::memory_order_seq_cst);
    void* hole = PageOf(address);
    std::size_t size = g_page_size;
    if (slot->goes_whole.load(std::memory_order_relaxed)) {
      const std::uintptr_t begin = slot->begin.load(std::memory_order_relaxed);
      hole = reinterpret_cast<void*>(begin);
      size = slot->end.load(std::memory_order_relaxed) - begin;
    }
    // Pages that each have a mapping of their own are limited (vm.max_map_count).
    constexpr int kFlags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE;
    if (mmap(hole, size, PROT_READ | PROT_WRITE, kFlags, -1, 0) != MAP_FAILED) {
      return;  // the read is repeated and finds zeros
    }
  }
  signal(SIGBUS, SIG_DFL);  // the read is repeated and ends the process, with a core at the right place
}

// A jump to data faults alike, and would do so forever.
bool IsWrite([[maybe_unused]] const void* context) {
#ifdef __x86_64__
  constexpr greg_t kWrite = 2;  // of the page fault's error code
  return (static_cast<const ucontext_t*>(context)->uc_mcontext.gregs[REG_ERR] & kWrite) != 0;
#else
  return true;
#endif
}

// Whether the write can be repeated now.
bool LetWrite(Slot& slot, std::uintptr_t address) {
  slot.written.store(true, std::memory_order_seq_cst);
  const std::uintptr_t begin = slot.begin.load(std::memory_order_relaxed);
  const std::size_t size = slot.end.load(std::memory_order_relaxed) - begin;
  constexpr int kWritable = PROT_READ | PROT_WRITE;
  // A limit on writable memory may forbid all of it and allow a page.
  return mprotect(reinterpret_cast<void*>(begin), size, kWritable) == 0 ||
         mprotect(PageOf(address), g_page_size, kWritable) == 0;
}

void OnSigsegv(int number, siginfo_t* info, void* context) {
  const int saved_errno = errno;
  const auto address = reinterpret_cast<std::uintptr_t>(info->si_addr);
  Slot* slot = info->si_code == SEGV_ACCERR && IsWrite(context) ? FindSlot(address) : nullptr;
  if (slot != nullptr && slot->notes_writes.load(std::memory_order_relaxed) && LetWrite(*slot, address)) {
    errno = saved_errno;
    return;
  }
  if ((g_before_us.sa_flags & SA_SIGINFO) != 0) return g_before_us.sa_sigaction(number, info, context);
  if (g_before_us.sa_handler != SIG_DFL && g_before_us.sa_handler != SIG_IGN) return g_before_us.sa_handler(number);
  signal(SIGSEGV, SIG_DFL);  // repeated, it ends the process
}

void Install(int number, void (*handler)(int, siginfo_t*, void*), struct sigaction* before) {
  struct sigaction action {};
  action.sa_sigaction = handler;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  sigemptyset(&action.sa_mask);
  HEARTH_CHECK(sigaction(number, &action, before) == 0);
}

void InstallHandlers() {
  g_page_size = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  HEARTH_CHECK(sigaction(SIGSEGV, nullptr, &g_before_us) == 0);  // before ours can run
  Install(SIGBUS, OnSigbus, nullptr);
  Install(SIGSEGV, OnSigsegv, nullptr);
}

}  // namespace

absl::Status MappingGuard::Protect(void* begin, std::size_t size, Writes writes) {
  static std::once_flag once;
  std::call_once(once, InstallHandlers);
  HEARTH_CHECK(slot_ == kMaxGuards);
  for (std::size_t i = 0; i < kMaxGuards; ++i) {
    Slot& slot = g_slots[i];
    std::uintptr_t free = 0;
    if (!slot.begin.compare_exchange_strong(free, 1, std::memory_order_acq_rel)) continue;
    const auto address = reinterpret_cast<std::uintptr_t>(begin);
    slot.notes_writes.store(writes == Writes::kNoted, std::memory_order_relaxed);
    slot.goes_whole.store(writes == Writes::kShared, std::memory_order_relaxed);
    slot.poisoned.store(false, std::memory_order_relaxed);
    slot.written.store(false, std::memory_order_relaxed);
    slot.end.store(address + size, std::memory_order_relaxed);
    slot.begin.store(address, std::memory_order_release);
    slot_ = i;
    return absl::OkStatus();
  }
  return absl::ResourceExhaustedError(
      StrCat("more than ", kMaxGuards, " files are mapped; lower cache.budget.mapped"));
}

MappingGuard::~MappingGuard() {
  if (slot_ < kMaxGuards) g_slots[slot_].begin.store(0, std::memory_order_release);
}

bool MappingGuard::poisoned() const {
  return slot_ < kMaxGuards && g_slots[slot_].poisoned.load(std::memory_order_seq_cst);
}

bool MappingGuard::written() const {
  return slot_ < kMaxGuards && g_slots[slot_].written.load(std::memory_order_seq_cst);
}

}  // namespace hearth
