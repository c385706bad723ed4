// Memory for tensors on their way in: aligned, and warm from the last request.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "server/base/mutex.h"

namespace hearth {

// Hands out buffers aligned to 64 bytes, which kernels need for full speed and for answers that
// stay bit-identical. Keeps returned buffers for reuse, up to `max_kept_bytes`: filling memory the
// kernel has to fault in is 4-8 times slower than refilling memory that is there (design notes).
//
// Thread-safe. Buffers may outlive the pool; they are then freed instead of kept.
class BufferPool {
 public:
  explicit BufferPool(std::size_t max_kept_bytes);
  ~BufferPool();

  struct Buffer {
    std::span<std::byte> bytes;         // exactly the size asked for
    std::shared_ptr<const void> owner;  // the last copy returns the memory to the pool
  };
  // Uninitialised memory. `size` 0 is fine. Throws std::bad_alloc like operator new.
  Buffer Allocate(std::size_t size);

  std::size_t kept_bytes() const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace hearth
