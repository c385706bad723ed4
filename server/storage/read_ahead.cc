#include "server/storage/read_ahead.h"

#include <fcntl.h>

#include <algorithm>
#include <utility>

namespace hearth {

ReadAhead::ReadAhead(std::vector<Part> parts, Ask ask) : parts_(std::move(parts)), ask_(std::move(ask)) {}

void ReadAhead::Advance(std::uint64_t bytes) {
  read_ += bytes;
  while (part_ < parts_.size() && asked_ < read_ + kAhead) {
    const Part& part = parts_[part_];
    const std::uint64_t length = std::min(kWindow, part.range.size() - at_);
    if (length > 0) ask_({part.fd, {part.range.begin + at_, part.range.begin + at_ + length}});
    asked_ += length;
    at_ += length;
    if (at_ < part.range.size()) continue;
    ++part_;
    at_ = 0;
  }
}

void ReadAhead::AskKernel(const Part& window) {
  ::posix_fadvise(window.fd, static_cast<::off_t>(window.range.begin), static_cast<::off_t>(window.range.size()),
                  POSIX_FADV_WILLNEED);
}

}  // namespace hearth
