// Bytes from the host's memory, mapped files above all, to a device.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <vector>

#include "server/base/status.h"
#include "server/torch_backend/device.h"

namespace hearth {

// Bytes take two steps: from where they are into staging memory, which may wait for the disk, and from there to
// the device. Both happen at once: while some pieces are on their way, the next one is filled.
//
// Confined to a thread. The device must outlive it, and it must not be the host.
class Uploader {
 public:
  Uploader(Device& device, std::stop_token stop);
  ~Uploader();  // waits for what is on its way
  Uploader(const Uploader&) = delete;
  Uploader& operator=(const Uploader&) = delete;

  // Memory of the device, which holds the bytes of `from` once Finish() has returned OK. `from` is read before this
  // returns. Nothing for nothing. CANCELLED soon after `stop`; RESOURCE_EXHAUSTED. Throws what LibTorch throws.
  absl::StatusOr<std::shared_ptr<const at::DataPtr>> Upload(std::span<const std::byte> from);
  // Until everything is there. Throws what LibTorch throws.
  void Finish();

  std::uint64_t bytes() const { return bytes_; }  // uploaded so far

 private:
  // More than two would help only where pieces take very different times.
  static constexpr std::size_t kPieces = 3;
  struct Piece {
    std::optional<Device::Staging> staging;
    std::uint64_t copy = 0;  // the last one from here
  };

  Device& device_;
  const std::stop_token stop_;
  const std::unique_ptr<CopyStream> stream_;
  std::array<Piece, kPieces> pieces_;
  std::size_t next_ = 0;
  std::uint64_t last_copy_ = 0;
  std::uint64_t bytes_ = 0;
  // Kept until the copies into it are done, whatever becomes of the caller's.
  std::vector<std::shared_ptr<const at::DataPtr>> targets_;
};

// `memory` as the memory of one more tensor: all that are made of it share it.
at::DataPtr ShareMemory(const std::shared_ptr<const at::DataPtr>& memory);

}  // namespace hearth
