// Memory for tensors on their way in: aligned, and warm from the last request.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <span>
#include <vector>

#include "server/base/mutex.h"
#include "server/tensor/byte_allowance.h"

namespace hearth {

// Hands out buffers aligned to 64 bytes, which kernels need for full speed and for answers that
// stay bit-identical. Keeps returned buffers for reuse, up to `max_kept_bytes`: filling memory the
// kernel has to fault in is 4-8 times slower than refilling memory that is there (design notes).
//
// Thread-safe. Buffers may outlive the pool; they are then freed instead of kept.
class BufferPool {
 public:
  explicit BufferPool(std::size_t max_kept_bytes);
  // The same memory, for those whose buffers together are to be no more than `allowance` has: the memory behind each counts
  // until it is returned, whatever part of it was asked for.
  BufferPool(const BufferPool& shared, std::shared_ptr<ByteAllowance> allowance);
  ~BufferPool();

  // The allowance has not so many bytes left.
  class Full : public std::bad_alloc {
   public:
    Full(std::uint64_t wanted, std::uint64_t most) : wanted_(wanted), most_(most) {}
    const char* what() const noexcept override { return "a BufferPool's allowance is used up"; }
    std::uint64_t wanted() const { return wanted_; }
    std::uint64_t most() const { return most_; }

   private:
    std::uint64_t wanted_, most_;
  };

  struct Buffer {
    std::span<std::byte> bytes;         // exactly the size asked for
    std::shared_ptr<const void> owner;  // the last copy returns the memory to the pool
  };
  // Uninitialised memory. `size` 0 is fine. Throws std::bad_alloc like operator new, or Full.
  Buffer Allocate(std::size_t size);

  std::size_t kept_bytes() const;
  const std::shared_ptr<ByteAllowance>& allowance() const { return allowance_; }  // null: nobody counts

 private:
  struct State;
  const std::shared_ptr<State> state_;
  const std::shared_ptr<ByteAllowance> allowance_;
  const bool owns_ = true;  // what is kept goes with it
};

}  // namespace hearth
