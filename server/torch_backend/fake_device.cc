#include "server/torch_backend/fake_device.h"

#include <cstring>
#include <memory>
#include <new>
#include <thread>
#include <utility>

#include "server/base/bytes.h"

namespace hearth {
namespace {

constexpr std::align_val_t kAlignment{64};

}  // namespace

struct FakeDevice::Memory {
  Memory(const Options& options, LostBytes lost_bytes)
      : capacity(options.memory_bytes), frees_to_fail(options.failing_frees), lost(std::move(lost_bytes)) {}
  const std::uint64_t capacity;
  std::atomic<std::uint64_t> used{0};
  std::atomic<int> frees_to_fail;
  const LostBytes lost;
};

namespace {

// One allocation; gives its bytes back to the count, or fails to. Nobody can reach them in either case.
template <typename Memory>
struct Block {
  Block(std::shared_ptr<Memory> m, std::size_t size)
      : memory(std::move(m)), bytes(size), data(::operator new(size, kAlignment)) {}
  ~Block() {
    ::operator delete(data, kAlignment);
    if (memory->frees_to_fail.load() > 0 && memory->frees_to_fail.fetch_sub(1) > 0) {
      memory->lost->fetch_add(bytes);
    } else {
      memory->used.fetch_sub(bytes);
    }
  }
  const std::shared_ptr<Memory> memory;
  const std::size_t bytes;
  void* const data;
};

}  // namespace

class FakeDevice::Stream final : public CopyStream {
 public:
  explicit Stream(std::uint64_t bytes_per_second) : bytes_per_second_(bytes_per_second) {}

  std::uint64_t Begin(std::span<const std::byte> from, void* to) override {
    Duration takes{};
    if (bytes_per_second_ > 0) {
      takes = std::chrono::duration_cast<Duration>(
          std::chrono::duration<double>(static_cast<double>(from.size()) / static_cast<double>(bytes_per_second_)));
    }
    last_done_ = std::max(last_done_, std::chrono::steady_clock::now()) + takes;
    pending_.push_back({++begun_, from, to, last_done_});
    return begun_;
  }

  void Wait(std::uint64_t copy) override {
    for (; !pending_.empty() && pending_.front().number <= copy; pending_.pop_front()) {
      const Copy& next = pending_.front();
      if (bytes_per_second_ > 0) std::this_thread::sleep_until(next.done);
      std::memcpy(next.to, next.from.data(), next.from.size());
    }
  }

 private:
  struct Copy {
    std::uint64_t number;
    std::span<const std::byte> from;
    void* to;
    TimePoint done;
  };
  const std::uint64_t bytes_per_second_;
  std::uint64_t begun_ = 0;
  TimePoint last_done_{};
  std::deque<Copy> pending_;
};

FakeDevice::FakeDevice(std::string name, const Options& options)
    : Device(std::move(name), at::kCPU, /*is_host=*/false, options.number),
      bytes_per_second_(options.bytes_per_second),
      memory_(std::make_shared<Memory>(options, lost())) {}

FakeDevice::~FakeDevice() = default;

std::uint64_t FakeDevice::used_bytes() const { return memory_->used.load(); }

absl::StatusOr<at::DataPtr> FakeDevice::Allocate(std::size_t bytes) {
  const std::uint64_t before = memory_->used.fetch_add(bytes);
  if (before > memory_->capacity || bytes > memory_->capacity - before) {
    memory_->used.fetch_sub(bytes);
    return absl::ResourceExhaustedError(StrCat("device '", name(), "' has no more memory: ", FormatBytes(before), " of ",
                                               FormatBytes(memory_->capacity), " are in use, and ", FormatBytes(bytes),
                                               " were asked for"));
  }
  using MemoryBlock = Block<Memory>;
  auto* block = new MemoryBlock(memory_, bytes);
  return at::DataPtr(block->data, block, [](void* p) { delete static_cast<MemoryBlock*>(p); }, at::Device(at::kCPU));
}

at::DataPtr FakeDevice::AllocateStaging(std::size_t bytes) {
  void* data = ::operator new(bytes, kAlignment);
  return at::DataPtr(data, data, [](void* p) { ::operator delete(p, kAlignment); }, at::Device(at::kCPU));
}

std::unique_ptr<CopyStream> FakeDevice::OpenStream() { return std::make_unique<Stream>(bytes_per_second_); }

}  // namespace hearth
