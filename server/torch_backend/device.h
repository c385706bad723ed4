// Where a model's tensors live, and how their bytes get there.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "server/base/mutex.h"
#include "server/base/status.h"
#include "server/model/footprint.h"
#include "server/torch_backend/torch_headers.h"

namespace hearth {

// Copies on their way to a device, one after the other. Confined to a thread.
class CopyStream {
 public:
  virtual ~CopyStream() = default;

  // Begins to copy staging memory to device memory. `from` may be read and `to` written at any time until Wait()
  // for this copy returns: neither may be changed or freed before. Returns a number for it, ascending.
  // Throws what LibTorch throws, like Wait().
  virtual std::uint64_t Begin(std::span<const std::byte> from, void* to) = 0;
  // Until that copy and all that were begun before it are done.
  virtual void Wait(std::uint64_t copy) = 0;
};

// The host's own memory, in which weights are mapped; an accelerator, through LibTorch's API for any kind of
// them; or a test device (fake_device.h). Thread-safe; outlives what was allocated from it.
class Device {
 public:
  static constexpr std::size_t kStagingBytes = std::size_t{4} << 20;

  // Memory that a device copies from while the program goes on. One piece of kStagingBytes, which goes back to
  // its device's pool: page-locked memory takes milliseconds to get.
  class Staging {
   public:
    Staging(Device& device, at::DataPtr memory) : device_(&device), memory_(std::move(memory)) {}
    Staging(Staging&& other) noexcept
        : device_(std::exchange(other.device_, nullptr)), memory_(std::move(other.memory_)) {}
    Staging& operator=(Staging&&) = delete;
    ~Staging() {
      if (device_ != nullptr) device_->Return(std::move(memory_));
    }
    std::span<std::byte> bytes() const { return {static_cast<std::byte*>(memory_.get()), kStagingBytes}; }

   private:
    Device* device_;  // null: moved from, which a DataPtr does not show
    at::DataPtr memory_;
  };

  virtual ~Device() = default;
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  const std::string& name() const { return name_; }  // "cpu", "cuda:1", "fake:0"
  DeviceNumber number() const { return number_; }    // in footprints; 0 of the host, too
  // Where LibTorch is to have inputs and what it makes itself; the CPU for a test device.
  const at::Device& torch() const { return torch_; }
  // Nothing is copied to it: weights are used where they are mapped. Then the calls below must not be made.
  bool is_host() const { return is_host_; }

  // `bytes` > 0 of its memory, at a multiple of 64. RESOURCE_EXHAUSTED when it has no more.
  virtual absl::StatusOr<at::DataPtr> Allocate(std::size_t bytes) = 0;
  virtual std::unique_ptr<CopyStream> OpenStream() = 0;
  // Throws what LibTorch throws.
  Staging TakeStaging() ABSL_LOCKS_EXCLUDED(mu_);

  // What LibTorch keeps of freed memory for its own next use goes back to the device: others may be short of it, and
  // models of other sizes may have no use for such pieces, so that the process would hold more than its budget.
  virtual void GiveBackUnused() noexcept {}

  // Of what was allocated, what could not be freed again: gone until the process ends.
  std::uint64_t lost_bytes() const { return lost_->load(); }

 protected:
  using LostBytes = std::shared_ptr<std::atomic<std::uint64_t>>;
  Device(std::string name, at::Device torch, bool is_host, DeviceNumber number)
      : name_(std::move(name)), torch_(torch), is_host_(is_host), number_(number) {}
  const LostBytes& lost() const { return lost_; }  // for what was allocated to count itself in
  virtual at::DataPtr AllocateStaging(std::size_t bytes) = 0;

 private:
  void Return(at::DataPtr staging) ABSL_LOCKS_EXCLUDED(mu_);

  const std::string name_;
  const at::Device torch_;
  const bool is_host_;
  const DeviceNumber number_;
  const LostBytes lost_ = std::make_shared<std::atomic<std::uint64_t>>(0);
  Mutex mu_;
  std::vector<at::DataPtr> staging_ ABSL_GUARDED_BY(mu_);  // not in use
};

// A model's hold on its device. Declared before what lies there, it is destroyed after it: what the model had, the
// device has back then.
class DeviceUse {
 public:
  explicit DeviceUse(std::shared_ptr<Device> device) : device_(std::move(device)) {}
  ~DeviceUse() { device_->GiveBackUnused(); }
  DeviceUse(const DeviceUse&) = delete;
  DeviceUse& operator=(const DeviceUse&) = delete;
  Device& operator*() const { return *device_; }
  Device* operator->() const { return device_.get(); }

 private:
  const std::shared_ptr<Device> device_;
};

}  // namespace hearth
