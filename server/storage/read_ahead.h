// Keeps a disk busy ahead of a reader who comes through parts of files in order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "server/storage/range_uses.h"

namespace hearth {

// What comes next is asked for window by window, so that the disk always has several to work on, and each byte
// once: asking anew for what is on its way halves the speed (measured, 32 MiB at each 16 MiB step). Faults alone
// read as little at a time as the disk's own setting says, often 128 KiB.
//
// Thread-compatible.
class ReadAhead {
 public:
  struct Part {
    int fd = -1;
    ByteRange range;
  };
  // Starts a read into the page cache and does not wait for it; only advice.
  using Ask = std::function<void(const Part& window)>;

  static constexpr std::uint64_t kWindow = 4ULL << 20;
  static constexpr std::uint64_t kAhead = 32ULL << 20;

  // REQUIRES: the descriptors stay open as long as this lives.
  explicit ReadAhead(std::vector<Part> parts, Ask ask = &AskKernel);
  ReadAhead(int fd, ByteRange range) : ReadAhead(std::vector<Part>{{fd, range}}) {}

  // The reader is `bytes` further than before. To be called with 0 at the start.
  void Advance(std::uint64_t bytes);

 private:
  static void AskKernel(const Part& window);

  std::vector<Part> parts_;
  const Ask ask_;
  std::size_t part_ = 0;     // what is asked for next lies in this one,
  std::uint64_t at_ = 0;     // so far from its beginning
  std::uint64_t read_ = 0;   // by the reader, of all parts
  std::uint64_t asked_ = 0;  // likewise
};

}  // namespace hearth
