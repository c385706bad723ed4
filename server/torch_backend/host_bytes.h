// Private memory that LibTorch takes on one thread.
#pragma once

#include <cstdint>
#include <memory>

namespace hearth {

// While it lives, counts what the CPU allocator hands out and takes back on the calling thread: what a
// load costs in private memory, whatever other threads do at the same time (the process' RSS cannot
// tell). Confined to the thread that made it.
class HostByteCounter {
 public:
  HostByteCounter();
  ~HostByteCounter();
  HostByteCounter(const HostByteCounter&) = delete;
  HostByteCounter& operator=(const HostByteCounter&) = delete;

  std::uint64_t held() const;  // allocated and not yet freed

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace hearth
