#include "server/storage/sigbus_guard.h"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <mutex>

#include "server/base/check.h"

namespace hearth {
namespace {

// A signal handler cannot lock, so the table is atomics alone. begin: 0 free, 1 being filled in.
struct Slot {
  std::atomic<std::uintptr_t> begin{0};
  std::atomic<std::uintptr_t> end{0};
  std::atomic<bool> poisoned{false};
};
Slot g_slots[SigbusGuard::kMaxGuards];
std::uintptr_t g_page_size = 4096;

void OnSigbus(int, siginfo_t* info, void*) {
  const auto address = reinterpret_cast<std::uintptr_t>(info->si_addr);
  for (Slot& slot : g_slots) {
    const std::uintptr_t begin = slot.begin.load(std::memory_order_acquire);
    if (begin <= 1 || address < begin || address >= slot.end.load(std::memory_order_relaxed)) continue;
    slot.poisoned.store(true, std::memory_order_release);
    void* page = reinterpret_cast<void*>(address / g_page_size * g_page_size);
    if (mmap(page, g_page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) !=
        MAP_FAILED) {
      return;  // the read is repeated and finds zeros
    }
    break;
  }
  signal(SIGBUS, SIG_DFL);  // the read is repeated and ends the process, with a core at the right place
}

void InstallHandler() {
  g_page_size = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  struct sigaction action {};
  action.sa_sigaction = OnSigbus;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  sigemptyset(&action.sa_mask);
  HEARTH_CHECK(sigaction(SIGBUS, &action, nullptr) == 0);
}

}  // namespace

absl::Status SigbusGuard::Protect(void* begin, std::size_t size) {
  static std::once_flag once;
  std::call_once(once, InstallHandler);
  HEARTH_CHECK(slot_ == kMaxGuards);
  for (std::size_t i = 0; i < kMaxGuards; ++i) {
    std::uintptr_t free = 0;
    if (!g_slots[i].begin.compare_exchange_strong(free, 1, std::memory_order_acq_rel)) continue;
    const auto address = reinterpret_cast<std::uintptr_t>(begin);
    g_slots[i].poisoned.store(false, std::memory_order_relaxed);
    g_slots[i].end.store(address + size, std::memory_order_relaxed);
    g_slots[i].begin.store(address, std::memory_order_release);
    slot_ = i;
    return absl::OkStatus();
  }
  return absl::ResourceExhaustedError(
      StrCat("more than ", kMaxGuards, " files are mapped; lower cache.budget.mapped"));
}

SigbusGuard::~SigbusGuard() {
  if (slot_ < kMaxGuards) g_slots[slot_].begin.store(0, std::memory_order_release);
}

bool SigbusGuard::poisoned() const {
  return slot_ < kMaxGuards && g_slots[slot_].poisoned.load(std::memory_order_acquire);
}

}  // namespace hearth
