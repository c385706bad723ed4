// Tensors in shared memory: whatever a request says about where its tensors are, it is refused, or what is read for it is
// what its region has there, and what is written for it lies where it said, within its region. The first bytes are the
// region's place in its object; the rest is a request.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "server/frontend/convert.h"
#include "server/frontend/output_targets.h"
#include "server/serving/shared_memory.h"

namespace {

constexpr std::size_t kObjectBytes = 256;
constexpr std::byte kMark{0xee};

void Require(bool kept) {
  if (!kept) std::abort();
}

// An object of this process's own, with a number in each of its bytes.
class Object {
 public:
  Object() : key_("/hearth-fuzz-" + std::to_string(::getpid())), fd_(::shm_open(key_.c_str(), O_RDWR | O_CREAT, 0600)) {
    Require(fd_ >= 0);
  }
  ~Object() {
    ::close(fd_);
    ::shm_unlink(key_.c_str());
  }
  void Reset() const {
    std::vector<std::byte> bytes(kObjectBytes);
    for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i);
    Require(::ftruncate(fd_, kObjectBytes) == 0);
    Require(::pwrite(fd_, bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size()));
  }
  std::vector<std::byte> bytes() const {
    std::vector<std::byte> bytes(kObjectBytes);
    Require(::pread(fd_, bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size()));
    return bytes;
  }
  const std::string& key() const { return key_; }

 private:
  const std::string key_;
  const int fd_;
};

// Of an input that was read: its region's bytes from where it said.
void CheckRead(const inference::ModelInferRequest& wire, const hearth::InferRequest& request,
               const hearth::SharedRegion::Place& region) {
  for (int i = 0; i < wire.inputs_size(); ++i) {
    const auto& parameters = wire.inputs(i).parameters();
    if (!parameters.contains("shared_memory_region")) continue;
    const auto offset = parameters.find("shared_memory_offset");
    std::size_t at = region.offset + (offset == parameters.end() ? 0 : static_cast<std::size_t>(offset->second.int64_param()));
    const auto data = request.inputs[static_cast<std::size_t>(i)].tensor.data;
    Require(at + data.size() <= region.offset + region.byte_size);
    for (const std::byte byte : data) Require(byte == static_cast<std::byte>(at++));
  }
}

// A tensor of as many bytes as the place claims, and one more.
void CheckWritten(const hearth::OutputTargets& targets, const hearth::SharedRegion::Place& region, const Object& object) {
  for (const std::uint64_t more : {0, 1}) {
    for (const hearth::OutputTarget& target : targets) {
      if (target.region == nullptr) continue;
      object.Reset();
      const std::vector<std::byte> marks(target.byte_size + more, kMark);
      hearth::InferResponse response;
      response.outputs.push_back({"y", {hearth::DType::kUInt8, {static_cast<std::int64_t>(marks.size())}, marks, nullptr}});
      const bool delivered = hearth::Deliver({target}, response).ok();
      Require(delivered == (more == 0));
      const std::vector<std::byte> now = object.bytes();
      const std::uint64_t begin = region.offset + target.offset;
      for (std::size_t i = 0; i < now.size(); ++i) {
        const bool its_own = delivered && i >= begin && i < begin + target.byte_size;
        Require(now[i] == (its_own ? kMark : static_cast<std::byte>(i)));
      }
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Object object;
  if (size < 16) return 0;
  hearth::SharedRegion::Place region{.name = "r", .key = object.key()};
  std::memcpy(&region.offset, data, 8);
  std::memcpy(&region.byte_size, data + 8, 8);
  object.Reset();
  hearth::SharedMemory memory(/*allowed=*/true);
  const bool fits = region.byte_size > 0 && region.offset <= kObjectBytes && region.byte_size <= kObjectBytes - region.offset;
  Require(memory.Register(region).ok() == fits);

  hearth::InferMessage message;
  if (!message.head.ParseFromArray(data + 16, static_cast<int>(size - 16))) return 0;
  hearth::BufferPool pool(1 << 20);
  hearth::OutputTargets targets;
  const auto request =
      hearth::ToInferRequest(message, pool, memory, hearth::kNoDeadline, hearth::TimePoint{}, targets);
  if (!request.ok()) return 0;
  CheckRead(message.head, *request, region);
  CheckWritten(targets, region, object);
  return 0;
}
