// Bytes that come piece by piece, in a pool's memory.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <memory>
#include <new>
#include <utility>

#include "server/tensor/buffer_pool.h"
#include "server/tensor/byte_allowance.h"

namespace hearth {

// What has come, not what was made room for, counts against `charge`, until nobody holds it any more.
//
// Thread-compatible. Move-only. Outlived by its pool. What allocates, or may not, throws std::bad_alloc.
class GrowingBuffer {
 public:
  explicit GrowingBuffer(BufferPool& pool, ByteCharge charge = ByteCharge()) : pool_(&pool), charge_(std::move(charge)) {}

  // Makes room for so many bytes in all, which is all the copying there is if no more come.
  void Reserve(std::size_t size) {
    if (size <= buffer_.bytes.size()) return;
    BufferPool::Buffer larger = pool_->Allocate(size);
    if (size_ > 0) std::memcpy(larger.bytes.data(), buffer_.bytes.data(), size_);
    buffer_ = std::move(larger);
  }
  void Append(const void* data, std::size_t size) {
    if (size == 0) return;
    if (!charge_.GrowTo(size_ + size)) throw std::bad_alloc();
    if (size > buffer_.bytes.size() - size_) Reserve(std::max({size_ + size, 2 * buffer_.bytes.size(), kLeast}));
    std::memcpy(buffer_.bytes.data() + size_, data, size);
    size_ += size;
  }

  std::size_t size() const { return size_; }

  // What came, and nothing is left here.
  BufferPool::Buffer Take() {
    BufferPool::Buffer taken{buffer_.bytes.first(std::exchange(size_, 0)), std::move(buffer_.owner)};
    buffer_ = {};
    if (charge_.counts()) {
      struct Charged {
        std::shared_ptr<const void> bytes;
        ByteCharge charge;
      };
      taken.owner = std::make_shared<Charged>(Charged{std::move(taken.owner), std::move(charge_)});
    }
    return taken;
  }

 private:
  static constexpr std::size_t kLeast = 256;

  BufferPool* pool_;
  ByteCharge charge_;
  BufferPool::Buffer buffer_;
  std::size_t size_ = 0;
};

}  // namespace hearth
