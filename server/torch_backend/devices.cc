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
#include "server/torch_backend/accelerator_memory.h"
#include "server/torch_backend/device.h"
#include "server/torch_backend/fake_device.h"
#include "server/torch_backend/torch_status.h"

namespace hearth {
namespace {

class HostDevice final : public Device {
 public:
  HostDevice() : Device("cpu", at::kCPU, /*is_host=*/true, 0) {}
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
  Accelerator(const at::Device& device, DeviceNumber number)
      : Device(device.str(), device, /*is_host=*/false, number) {}

  absl::StatusOr<at::DataPtr> Allocate(std::size_t bytes) override {
    return CatchTorch(StrCat("device '", name(), "' has no more memory"), absl::StatusCode::kResourceExhausted, [&] {
      const at::Tensor tensor =
          at::empty({static_cast<std::int64_t>(bytes)}, at::TensorOptions().dtype(at::kByte).device(torch()));
      // Taken out of its tensor, so that nobody frees it in another way.
      return KeepErrors(tensor.storage().set_data_ptr(at::DataPtr(nullptr, torch())), bytes, "an accelerator's memory",
                        lost());
    });
  }
  std::unique_ptr<CopyStream> OpenStream() override { return std::make_unique<AcceleratorStream>(torch()); }
  void GiveBackUnused() noexcept override {
    try {
      at::getDeviceAllocator(torch().type())->emptyCache();
    } catch (const std::exception& e) {
      log::Error("an accelerator's unused memory could not be given back", {{"device", name()}, {"reason", e.what()}});
    }
  }

 private:
  at::DataPtr AllocateStaging(std::size_t bytes) override {
    // It is the host's, and no part of a budget.
    return KeepErrors(at::getHostAllocator(torch().type())->allocate(bytes), bytes, "page-locked memory", nullptr);
  }
};

std::uint64_t AcceleratorMemory(int index) {
  try {
    return at::accelerator::getMemoryInfo(static_cast<c10::DeviceIndex>(index)).second;
  } catch (const std::exception& e) {
    log::Warning("the accelerator's memory cannot be read; a budget in percent of it is 0",
                 {{"accelerator", index}, {"reason", e.what()}});
    return 0;
  }
}

std::vector<Devices::Listed> List(const Devices::Fakes& fakes) {
  std::vector<Devices::Listed> list;
  try {
    const int accelerators = at::accelerator::deviceCount();
    for (int i = 0; i < accelerators; ++i) {
      const at::Device device(*at::accelerator::getAccelerator(), static_cast<c10::DeviceIndex>(i));
      list.push_back({device.str(), AcceleratorMemory(i)});
    }
  } catch (const std::exception& e) {
    log::Warning("accelerators cannot be counted; none is used", {{"reason", e.what()}});
  }
  for (int i = 0; i < fakes.count; ++i) list.push_back({StrCat("fake:", i), fakes.memory_bytes});
  if (list.size() > kMaxDevices) {
    log::Warning("more devices than hearthd can tell apart; the last ones are not used",
                 {{"devices", list.size()}, {"used", kMaxDevices}});
    list.resize(kMaxDevices);
  }
  return list;
}

}  // namespace

absl::StatusOr<std::shared_ptr<Device>> Devices::MakeAccelerator(const std::string& name) const {
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
  const std::string full_name = probe->str();
  for (std::size_t i = 0; i < list_.size(); ++i) {
    if (list_[i].name == full_name) return std::make_shared<Accelerator>(*probe, static_cast<DeviceNumber>(i));
  }
  return absl::FailedPreconditionError(StrCat("device '", name, "' was not there when hearthd was started, or is one "
                                              "too many; start it again, or use another one"));
}

Devices::Devices(const Fakes& fakes) : fakes_(fakes), list_(List(fakes)) {
  known_.emplace("cpu", std::make_shared<HostDevice>());
  for (std::size_t i = 0; i < list_.size(); ++i) {
    const std::string& name = list_[i].name;
    if (!name.starts_with("fake:")) continue;
    known_.emplace(name, std::make_shared<FakeDevice>(
                             name, FakeDevice::Options{.memory_bytes = fakes.memory_bytes,
                                                       .bytes_per_second = fakes.bytes_per_second,
                                                       .failing_frees = fakes.failing_frees,
                                                       .number = static_cast<DeviceNumber>(i)}));
  }
}

Devices::~Devices() = default;

absl::StatusOr<std::shared_ptr<Device>> Devices::Find(const std::string& name) {
  {
    MutexLock lock(mu_);
    if (const auto at = known_.find(name); at != known_.end()) return at->second;
  }
  if (name.starts_with("fake")) {
    return absl::FailedPreconditionError(
        StrCat("device '", name, "' is a test device, of which the configuration has ", fakes_.count,
               " (devices.fake.count); they are called fake:0, fake:1 and so on"));
  }
  // Without the lock: a device that is broken may take for ever, and LostBytes() is asked whenever a model leaves.
  HEARTH_ASSIGN_OR_RETURN(std::shared_ptr<Device> made, MakeAccelerator(name));
  MutexLock lock(mu_);
  const std::shared_ptr<Device> first = known_.emplace(made->name(), made).first->second;  // somebody else's, maybe
  return known_.emplace(name, first).first->second;
}

std::vector<std::uint64_t> Devices::LostBytes() const {
  std::vector<std::uint64_t> lost(list_.size());
  MutexLock lock(mu_);
  for (std::size_t i = 0; i < list_.size(); ++i) {
    if (const auto at = known_.find(list_[i].name); at != known_.end()) lost[i] = at->second->lost_bytes();
  }
  return lost;
}

}  // namespace hearth
