// So many bytes may be held at the same time, by all who share it.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>

namespace hearth {

// Thread-safe.
class ByteAllowance {
 public:
  // `for_small`: one of so many parts of it is only for those who take kSmall at most at a time: they find room where large
  // ones have taken all they may. 0: it is for all alike.
  explicit ByteAllowance(std::uint64_t most, std::uint64_t for_small = 0) : most_(most), for_small_(for_small) {}

  static constexpr std::uint64_t kSmall = 4096;

  // From now on. What is held stays held, if it is more, too.
  void SetMost(std::uint64_t most) { most_.store(most, std::memory_order_relaxed); }
  std::uint64_t most() const { return most_.load(std::memory_order_relaxed); }

  // False: that would be too many, and none is taken.
  [[nodiscard]] bool Take(std::uint64_t bytes) {
    std::uint64_t most = this->most();
    if (for_small_ > 0 && bytes > kSmall) most -= most / for_small_;
    std::uint64_t held = held_.load(std::memory_order_relaxed);
    do {
      if (held > most || bytes > most - held) return false;
    } while (!held_.compare_exchange_weak(held, held + bytes, std::memory_order_relaxed));
    return true;
  }
  void Give(std::uint64_t bytes) { held_.fetch_sub(bytes, std::memory_order_relaxed); }

  std::uint64_t held() const { return held_.load(std::memory_order_relaxed); }

 private:
  std::atomic<std::uint64_t> most_;
  const std::uint64_t for_small_;
  std::atomic<std::uint64_t> held_{0};  // never above what most_ was when it grew
};

// What one holder has taken; given back with it. Null: nobody counts. Move-only. Thread-compatible.
class ByteCharge {
 public:
  explicit ByteCharge(std::shared_ptr<ByteAllowance> allowance = nullptr) : allowance_(std::move(allowance)) {}
  ByteCharge(ByteCharge&& other) noexcept
      : allowance_(std::move(other.allowance_)), bytes_(std::exchange(other.bytes_, 0)) {}
  ByteCharge& operator=(ByteCharge&& other) noexcept {
    if (this != &other) {
      Release();
      allowance_ = std::move(other.allowance_);
      bytes_ = std::exchange(other.bytes_, 0);
    }
    return *this;
  }
  ~ByteCharge() { Release(); }

  // Holds at least so many from now on. False: it may not.
  [[nodiscard]] bool GrowTo(std::uint64_t bytes) {
    if (allowance_ == nullptr || bytes <= bytes_) return true;
    if (!allowance_->Take(bytes - bytes_)) return false;
    bytes_ = bytes;
    return true;
  }
  // Gives back what is above so many.
  void ShrinkTo(std::uint64_t bytes) {
    if (allowance_ == nullptr || bytes >= bytes_) return;
    allowance_->Give(bytes_ - bytes);
    bytes_ = bytes;
  }
  bool counts() const { return allowance_ != nullptr; }

 private:
  void Release() {
    if (allowance_ != nullptr) allowance_->Give(std::exchange(bytes_, 0));
  }
  std::shared_ptr<ByteAllowance> allowance_;
  std::uint64_t bytes_ = 0;
};

}  // namespace hearth
