#include "server/torch_backend/uploader.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "server/base/check.h"
#include "server/base/log.h"

namespace hearth {

Uploader::Uploader(Device& device, std::stop_token stop)
    : device_(device), stop_(std::move(stop)), stream_(device.OpenStream()) {
  HEARTH_CHECK(!device.is_host());
}

Uploader::~Uploader() {
  try {
    Finish();
  } catch (const std::exception& e) {
    log::Error("a copy to a device failed", {{"device", device_.name()}, {"reason", e.what()}});
  }
}

absl::StatusOr<std::shared_ptr<const at::DataPtr>> Uploader::Upload(std::span<const std::byte> from) {
  if (from.empty()) return std::make_shared<const at::DataPtr>(nullptr, device_.torch());
  HEARTH_ASSIGN_OR_RETURN(at::DataPtr memory, device_.Allocate(from.size()));
  targets_.push_back(std::make_shared<const at::DataPtr>(std::move(memory)));
  auto* to = static_cast<std::byte*>(targets_.back()->get());
  for (std::size_t at = 0; at < from.size(); at += Device::kStagingBytes) {
    if (stop_.stop_requested()) return absl::CancelledError("stopped while copying the weights to the device");
    const auto part = from.subspan(at, std::min(from.size() - at, Device::kStagingBytes));
    Piece& piece = pieces_[next_++ % kPieces];
    if (piece.staging) {
      stream_->Wait(piece.copy);
    } else {
      piece.staging.emplace(device_.TakeStaging());
    }
    const std::span<std::byte> staging = piece.staging->bytes().first(part.size());
    std::memcpy(staging.data(), part.data(), part.size());
    piece.copy = last_copy_ = stream_->Begin(staging, to + at);
  }
  bytes_ += from.size();
  return targets_.back();
}

void Uploader::Finish() {
  stream_->Wait(last_copy_);
  targets_.clear();
}

at::DataPtr ShareMemory(const std::shared_ptr<const at::DataPtr>& memory) {
  using Owner = std::shared_ptr<const at::DataPtr>;
  return {memory->get(), new Owner(memory), [](void* p) { delete static_cast<Owner*>(p); }, memory->device()};
}

}  // namespace hearth
