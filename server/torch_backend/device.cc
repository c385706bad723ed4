#include "server/torch_backend/device.h"

namespace hearth {
namespace {

// What two loads at once have in use (uploader.h); what more there were is given back to the system.
constexpr std::size_t kKeptStaging = 6;

}  // namespace

Device::Staging Device::TakeStaging() {
  {
    MutexLock lock(mu_);
    if (!staging_.empty()) {
      at::DataPtr memory = std::move(staging_.back());
      staging_.pop_back();
      return Staging(*this, std::move(memory));
    }
  }
  return Staging(*this, AllocateStaging(kStagingBytes));
}

void Device::Return(at::DataPtr staging) {
  MutexLock lock(mu_);
  if (staging_.size() < kKeptStaging) staging_.push_back(std::move(staging));
}

}  // namespace hearth
