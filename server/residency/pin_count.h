// How many handles hold a model, and whether it still gives out new ones: one atomic word.
#pragma once

#include <atomic>
#include <cstdint>

#include "server/base/check.h"

namespace hearth {

// Starts closed with no pins. While closed the count only falls, so "closed and 0", once seen,
// stays: then, and only then, may the model be taken away.
//
// The operations that also look at something else (Unpin, count, TryClose) are sequentially
// consistent: whoever gives room back and whoever waits for room each write their own word and then
// read the other's, and one of them must notice (ModelCache::room_wanted_).
//
// Thread-safe and lock-free.
class PinCount {
 public:
  // One more, unless closed.
  [[nodiscard]] bool TryPin() {
    std::uint64_t word = word_.load(std::memory_order_relaxed);
    while ((word & kClosed) == 0) {
      if (word_.compare_exchange_weak(word, word + 1, std::memory_order_acquire,
                                      std::memory_order_relaxed)) {
        return true;
      }
    }
    return false;
  }

  struct Left {
    bool last;    // nobody holds it any more
    bool closed;  // and nobody can
  };
  Left Unpin() {
    const std::uint64_t before = word_.fetch_sub(1, std::memory_order_seq_cst);
    HEARTH_DCHECK((before & ~kClosed) != 0);
    return {(before & ~kClosed) == 1, (before & kClosed) != 0};
  }

  // Opens with `pins` already held. REQUIRES: closed and 0.
  void Open(std::uint64_t pins) {
    HEARTH_DCHECK(word_.load(std::memory_order_relaxed) == kClosed);
    word_.store(pins, std::memory_order_seq_cst);
  }

  // Closes if nobody holds it.
  [[nodiscard]] bool TryClose() {
    std::uint64_t none = 0;
    return word_.compare_exchange_strong(none, kClosed, std::memory_order_seq_cst);
  }

  // Closes in any case; returns how many still hold it.
  std::uint64_t Close() { return word_.fetch_or(kClosed, std::memory_order_seq_cst) & ~kClosed; }

  // Takes a TryClose() back.
  void Reopen() { Open(0); }

  std::uint64_t count() const { return word_.load(std::memory_order_seq_cst) & ~kClosed; }
  bool closed() const { return (word_.load(std::memory_order_seq_cst) & kClosed) != 0; }

 private:
  static constexpr std::uint64_t kClosed = std::uint64_t{1} << 63;
  std::atomic<std::uint64_t> word_{kClosed};
};

}  // namespace hearth
