#include "server/tensor/buffer_pool.h"

#include <bit>
#include <new>
#include <utility>

namespace hearth {
namespace {

constexpr std::align_val_t kAlignment{64};
constexpr std::size_t kSmallest = 256;
constexpr std::size_t kClasses = 40;  // powers of two from 256 bytes on

std::size_t ClassOf(std::size_t size) {
  return static_cast<std::size_t>(std::bit_width((size <= kSmallest ? kSmallest : size) - 1)) - 8;
}
std::size_t ClassBytes(std::size_t size_class) { return kSmallest << size_class; }

}  // namespace

struct BufferPool::State {
  Mutex mu;
  std::size_t max_kept ABSL_GUARDED_BY(mu) = 0;  // 0 once the pool is gone
  std::size_t kept ABSL_GUARDED_BY(mu) = 0;
  std::array<std::vector<std::byte*>, kClasses> free ABSL_GUARDED_BY(mu);

  ~State() {
    for (auto& list : free) {
      for (std::byte* memory : list) ::operator delete(memory, kAlignment);
    }
  }

  std::byte* Take(std::size_t size_class) {
    {
      MutexLock lock(mu);
      auto& list = free[size_class];
      if (!list.empty()) {
        std::byte* memory = list.back();
        list.pop_back();
        kept -= ClassBytes(size_class);
        return memory;
      }
    }
    return static_cast<std::byte*>(::operator new(ClassBytes(size_class), kAlignment));
  }

  void Return(std::byte* memory, std::size_t size_class) {
    {
      MutexLock lock(mu);
      if (kept + ClassBytes(size_class) <= max_kept) {
        free[size_class].push_back(memory);
        kept += ClassBytes(size_class);
        return;
      }
    }
    ::operator delete(memory, kAlignment);
  }
};

BufferPool::BufferPool(std::size_t max_kept_bytes) : state_(std::make_shared<State>()) {
  MutexLock lock(state_->mu);
  state_->max_kept = max_kept_bytes;
}

BufferPool::BufferPool(const BufferPool& shared, std::shared_ptr<ByteAllowance> allowance)
    : state_(shared.state_), allowance_(std::move(allowance)), owns_(false) {}

BufferPool::~BufferPool() {
  if (!owns_) return;
  MutexLock lock(state_->mu);
  state_->max_kept = 0;
}

BufferPool::Buffer BufferPool::Allocate(std::size_t size) {
  const std::size_t size_class = ClassOf(size);
  if (size_class >= kClasses) throw std::bad_alloc();
  ByteCharge charge(allowance_);
  if (!charge.GrowTo(ClassBytes(size_class))) throw Full(ClassBytes(size_class), allowance_->most());
  std::byte* memory = state_->Take(size_class);
  std::shared_ptr<const void> owner(memory, [state = state_, size_class, charge = std::move(charge)](const void* p) mutable {
    state->Return(static_cast<std::byte*>(const_cast<void*>(p)), size_class);
    charge = ByteCharge();
  });
  return {{memory, size}, std::move(owner)};
}

std::size_t BufferPool::kept_bytes() const {
  MutexLock lock(state_->mu);
  return state_->kept;
}

}  // namespace hearth
