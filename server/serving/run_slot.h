// The right to be running.
#pragma once

#include <cstdint>
#include <utility>

namespace hearth {

class RunScheduler;

// Given to each run by RunScheduler, and given back by Release() or the destructor: what the run took is counted then, and
// the next one of its model may begin. Move-only. Thread-compatible. Must not outlive the scheduler.
class RunSlot {
 public:
  RunSlot() = default;
  RunSlot(RunSlot&& other) noexcept : scheduler_(std::exchange(other.scheduler_, nullptr)), run_(other.run_) {}
  RunSlot& operator=(RunSlot&& other) noexcept {
    if (this != &other) {
      Release();
      scheduler_ = std::exchange(other.scheduler_, nullptr);
      run_ = other.run_;
    }
    return *this;
  }
  ~RunSlot() { Release(); }

  void Release();

 private:
  friend class RunScheduler;
  RunSlot(RunScheduler* scheduler, std::uint64_t run) : scheduler_(scheduler), run_(run) {}

  RunScheduler* scheduler_ = nullptr;
  std::uint64_t run_ = 0;
};

}  // namespace hearth
