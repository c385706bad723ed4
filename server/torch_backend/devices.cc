#include "server/torch_backend/devices.h"

#include <ATen/DeviceAccelerator.h>
#include <ATen/core/CachingHostAllocator.h>
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <deque>
#include <utility>

#include "server/base/check.h"
#include "server/base/log.h"
#include "server/torch_backend/device.h"
#include "server/torch_backend/fake_device.h"
#include "server/torch_backend/torch_status.h"

namespace hearth {
namespace {

class HostDevice final : public Device {
 public:
  HostDevice() : Device("cpu", at::kCPU, /*is_host=*/true) {}
  absl::StatusOr<at::DataPtr> Allocate(std::size_t) override { Misused(); }
  std::unique_ptr<CopyStream> OpenStream() override { Misused(); }

 private:
  at::DataPtr AllocateStaging(std::size_t) override { Misused(); }
  [[noreturn]] static void Misused() { CheckFailed(__FILE__, __LINE__, "nothing is copied to the host"); }
};

// A stream of the device's own, with an event behind every copy.
class AcceleratorStream final : public CopyStream {
 public:
  explicit AcceleratorStream(const at::Device& device)
      : device_(device),
        stream_(c10::impl::VirtualGuardImpl(device.type()).getStreamFromGlobalPool(device, /*isHighPriority=*/false)) {}

  std::uint64_t Begin(std::span<const std::byte> from, void* to) override {
    const c10::StreamGuard guard(stream_);
    const auto size = static_cast<std::int64_t>(from.size());
    const at::TensorOptions bytes = at::TensorOptions().dtype(at::kByte);
    const at::Tensor source = at::from_blob(const_cast<std::byte*>(from.data()), {size}, bytes);
    at::Tensor target = at::from_blob(to, {size}, bytes.device(device_));
    target.copy_(source, /*non_blocking=*/true);
    c10::Event done(device_.type());
    done.record(stream_);
    pending_.emplace_back(++begun_, std::move(done));
    return begun_;
  }

  void Wait(std::uint64_t copy) override {
    for (; !pending_.empty() && pending_.front().first <= copy; pending_.pop_front()) {
      pending_.front().second.synchronize();
    }
  }

 private:
  const at::Device device_;
  const c10::Stream stream_;
  std::uint64_t begun_ = 0;
  std::deque<std::pair<std::uint64_t, c10::Event>> pending_;
};

// Whatever kind this LibTorch was built for, through the API that all kinds share.
class Accelerator final : public Device {
 public:
  explicit Accelerator(const at::Device& device) : Device(device.str(), device, /*is_host=*/false) {}

  absl::StatusOr<at::DataPtr> Allocate(std::size_t bytes) override {
    return CatchTorch(StrCat("device '", name(), "' has no more memory"), absl::StatusCode::kResourceExhausted, [&] {
      auto* tensor = new at::Tensor(
          at::empty({static_cast<std::int64_t>(bytes)}, at::TensorOptions().dtype(at::kByte).device(torch())));
      return at::DataPtr(tensor->mutable_data_ptr(), tensor, [](void* p) { delete static_cast<at::Tensor*>(p); },
                         torch());
    });
  }
  std::unique_ptr<CopyStream> OpenStream() override { return std::make_unique<AcceleratorStream>(torch()); }

 private:
  at::DataPtr AllocateStaging(std::size_t bytes) override {
    return at::getHostAllocator(torch().type())->allocate(bytes);
  }
};

absl::StatusOr<std::shared_ptr<Device>> MakeAccelerator(const std::string& name) {
  auto parsed = CatchTorch(StrCat("device '", name, "'"), absl::StatusCode::kInvalidArgument,
                           [&] { return at::Device(name); });
  HEARTH_ASSIGN_OR_RETURN(const at::Device device, std::move(parsed));
  const std::string refusal = StrCat("device '", name, "' cannot be used by this LibTorch; set `device: cpu` in "
                                     "model.yaml or run a build for it");
  if (!at::accelerator::isAccelerator(device.type())) return absl::FailedPreconditionError(refusal);
  // An allocation tells whether this LibTorch really has the device, and which one it is if no number was given.
  auto probe = CatchTorch(refusal, absl::StatusCode::kFailedPrecondition,
                          [&] { return at::empty({1}, at::TensorOptions().device(device)).device(); });
  if (!probe.ok()) return probe.status();
  return std::make_shared<Accelerator>(*probe);
}

}  // namespace

Devices::Devices(const Fakes& fakes) : fakes_(fakes) {
  known_.emplace("cpu", std::make_shared<HostDevice>());
  for (int i = 0; i < fakes.count; ++i) {
    const std::string name = StrCat("fake:", i);
    known_.emplace(name, std::make_shared<FakeDevice>(name, fakes.memory_bytes, fakes.bytes_per_second));
  }
}

Devices::~Devices() = default;

absl::StatusOr<std::shared_ptr<Device>> Devices::Find(const std::string& name) {
  MutexLock lock(mu_);
  if (const auto at = known_.find(name); at != known_.end()) return at->second;
  if (name.starts_with("fake")) {
    return absl::FailedPreconditionError(
        StrCat("device '", name, "' is a test device, of which the configuration has ", fakes_.count,
               " (devices.fake.count); they are called fake:0, fake:1 and so on"));
  }
  HEARTH_ASSIGN_OR_RETURN(std::shared_ptr<Device> made, MakeAccelerator(name));
  return known_.emplace(name, known_.emplace(made->name(), made).first->second).first->second;
}

std::uint64_t Devices::memory_bytes() const {
  try {
    if (at::accelerator::deviceCount() > 0) return at::accelerator::getMemoryInfo(0).second;
  } catch (const std::exception& e) {
    log::Warning("the accelerator's memory cannot be read; its budget is 0", {{"reason", e.what()}});
    return 0;
  }
  return fakes_.count > 0 ? fakes_.memory_bytes : 0;
}

}  // namespace hearth
