// The bytes a model holds, in three dimensions.
#pragma once

#include <compare>
#include <cstdint>
#include <string>
#include <vector>

namespace hearth {

// A file's content, whatever its name: the kernel's (device, inode) and the generation we saw.
struct FileId {
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  std::int64_t mtime_ns = 0;
  std::uint64_t size = 0;
  friend auto operator<=>(const FileId&, const FileId&) = default;
};

// File-backed bytes a model has mapped. Two models with the same extent share its pages, and the
// ledger charges it once.
struct Extent {
  FileId file;
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
  friend auto operator<=>(const Extent&, const Extent&) = default;
};

// Devices are numbered from 0 on when the process starts. What they are called is for whoever knows them to say.
using DeviceNumber = std::uint32_t;
using DeviceNames = std::vector<std::string>;  // by number
inline constexpr DeviceNumber kMaxDevices = 16;

// device: memory on an accelerator, of which a model uses one. host: private memory of this process (not page cache).
// extents: file-backed weights, "mapped". window: in their place, for weights that are larger than all that
// may be mapped: so many bytes of them count, whichever they are, and they are shared with nobody.
struct Footprint {
  std::uint64_t device_bytes = 0;
  std::uint64_t host_bytes = 0;
  std::vector<Extent> extents = {};
  std::uint64_t window_bytes = 0;
  DeviceNumber device = 0;  // where device_bytes are

  std::uint64_t mapped_bytes() const {
    std::uint64_t sum = window_bytes;
    for (const Extent& extent : extents) sum += extent.length;
    return sum;
  }
};

// `footprint` with a window in place of its extents; as it is when it has none.
inline Footprint Windowed(Footprint footprint, std::uint64_t window_bytes) {
  if (footprint.extents.empty()) return footprint;
  footprint.extents.clear();
  footprint.window_bytes = window_bytes;
  return footprint;
}

}  // namespace hearth
