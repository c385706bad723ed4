#include "server/torch_backend/host_bytes.h"

#include <algorithm>

#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>

namespace hearth {
namespace {

class Reporter final : public c10::MemoryReportingInfoBase {
 public:
  void reportMemoryUsage(void*, std::int64_t alloc_size, std::size_t, std::size_t, c10::Device) override {
    held += alloc_size;
  }
  bool memoryProfilingEnabled() const override { return true; }

  std::int64_t held = 0;
};

}  // namespace

struct HostByteCounter::Impl {
  std::shared_ptr<Reporter> reporter = std::make_shared<Reporter>();
  c10::DebugInfoGuard guard{c10::DebugInfoKind::PROFILER_STATE, reporter};
};

HostByteCounter::HostByteCounter() : impl_(std::make_unique<Impl>()) {}
HostByteCounter::~HostByteCounter() = default;

std::uint64_t HostByteCounter::held() const {
  return static_cast<std::uint64_t>(std::max<std::int64_t>(impl_->reporter->held, 0));
}

}  // namespace hearth
