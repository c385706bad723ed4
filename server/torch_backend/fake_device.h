// A device that is none: what a machine without accelerators rehearses them on.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>

#include "server/base/clock.h"
#include "server/torch_backend/device.h"

namespace hearth {

// Its memory is this process's, limited and counted apart, and LibTorch computes in it as on the CPU. A copy to it
// happens as late as CopyStream allows, when it is waited for: whoever changes or frees something too early finds
// that out here, and not once in a thousand times. With `bytes_per_second` a copy also takes its time, counted from
// the end of the one before: then filling the next piece of staging memory overlaps with it, as on real ones.
// And it may be told to lose memory: the first frees fail, and what was to be freed stays in use.
class FakeDevice final : public Device {
 public:
  struct Options {
    std::uint64_t memory_bytes = 0;
    std::uint64_t bytes_per_second = 0;
    int failing_frees = 0;
    DeviceNumber number = 0;
  };
  FakeDevice(std::string name, const Options& options);
  ~FakeDevice() override;

  absl::StatusOr<at::DataPtr> Allocate(std::size_t bytes) override;
  std::unique_ptr<CopyStream> OpenStream() override;

  std::uint64_t used_bytes() const;

 private:
  struct Memory;
  class Stream;
  at::DataPtr AllocateStaging(std::size_t bytes) override;

  const std::uint64_t bytes_per_second_;
  const std::shared_ptr<Memory> memory_;  // also of what was allocated
};

}  // namespace hearth
