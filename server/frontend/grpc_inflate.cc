#include "server/frontend/grpc_inflate.h"

#include <grpc/compression.h>
#include <grpc/slice.h>
#include <grpc/slice_buffer.h>
#include <zlib.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <memory>
#include <new>
#include <utility>

#include "server/tensor/byte_allowance.h"

namespace hearth {
namespace {

constexpr int kGzipHeader = 16;  // added to the window's bits: gzip's header instead of zlib's
constexpr std::size_t kFirstBlock = std::size_t{16} << 10;
constexpr std::size_t kLargestBlock = std::size_t{1} << 20;

std::atomic<std::uint64_t> g_most{UINT64_MAX};

// Never destroyed: a slice may be let go of when the process ends.
const std::shared_ptr<ByteAllowance>& Together() {
  static const auto* const together = new std::shared_ptr<ByteAllowance>(std::make_shared<ByteAllowance>(UINT64_MAX));
  return *together;
}

struct Block {
  explicit Block(std::size_t n) : charge(Together()), size(n) {
    if (charge.GrowTo(n)) bytes.reset(new (std::nothrow) unsigned char[n]);
  }
  ByteCharge charge;
  std::unique_ptr<unsigned char[]> bytes;  // null: there is no room
  std::size_t size;
};

// What a slice is until gRPC lets go of it.
grpc_slice ToSlice(std::unique_ptr<Block> block, std::size_t used) {
  unsigned char* const bytes = block->bytes.get();
  return grpc_slice_new_with_user_data(bytes, used, [](void* p) { delete static_cast<Block*>(p); }, block.release());
}

class Inflation {
 public:
  Inflation(bool gzip, grpc_slice_buffer& output)
      : most_(g_most.load(std::memory_order_relaxed)),
        output_(output),
        ok_(inflateInit2(&stream_, MAX_WBITS + (gzip ? kGzipHeader : 0)) == Z_OK) {}
  ~Inflation() {
    if (ok_) inflateEnd(&stream_);
  }

  // False: it is damaged, cut short, followed by something, or there is no memory. True, too, where it is one byte too large.
  bool Take(const grpc_slice_buffer& input) {
    for (std::size_t i = 0; ok_ && i < input.count && !TooLarge(); ++i) {
      stream_.next_in = const_cast<Bytef*>(GRPC_SLICE_START_PTR(input.slices[i]));
      stream_.avail_in = static_cast<uInt>(GRPC_SLICE_LENGTH(input.slices[i]));
      if (!TakeSlice()) return false;
    }
    if (!ok_ || (!ended_ && !TooLarge())) return false;
    Put();
    return true;
  }

 private:
  bool TooLarge() const { return done_ > most_; }

  bool TakeSlice() {
    while (!TooLarge()) {
      if (ended_) return stream_.avail_in == 0;
      if (stream_.avail_out == 0 && !NextBlock()) return false;
      const std::size_t room = stream_.avail_out;
      const int result = inflate(&stream_, Z_NO_FLUSH);
      done_ += room - stream_.avail_out;
      if (result == Z_BUF_ERROR && stream_.avail_in == 0) return true;  // the next slice goes on
      if (result != Z_OK && result != Z_STREAM_END) return false;
      ended_ = result == Z_STREAM_END;
    }
    return true;
  }

  bool NextBlock() {
    Put();
    const std::uint64_t left = most_ - done_;  // not too large: that many, and one more to see that it would be
    std::uint64_t size = std::clamp<std::uint64_t>(done_, kFirstBlock, kLargestBlock);
    if (left < size) size = left + 1;
    block_ = std::make_unique<Block>(size);
    if (block_->bytes == nullptr) return false;
    stream_.next_out = block_->bytes.get();
    stream_.avail_out = static_cast<uInt>(size);
    return true;
  }

  void Put() {
    if (block_ == nullptr) return;
    const std::size_t used = block_->size - stream_.avail_out;
    if (used > 0) grpc_slice_buffer_add(&output_, ToSlice(std::move(block_), used));
    block_.reset();
  }

  const std::uint64_t most_;
  grpc_slice_buffer& output_;
  z_stream stream_{};
  std::unique_ptr<Block> block_;
  std::uint64_t done_ = 0;
  bool ended_ = false;
  const bool ok_;
};

bool Inflate(bool gzip, const grpc_slice_buffer& input, grpc_slice_buffer& output) {
  grpc_slice_buffer inflated;
  grpc_slice_buffer_init(&inflated);
  const bool ok = Inflation(gzip, inflated).Take(input);
  if (ok) grpc_slice_buffer_move_into(&inflated, &output);
  grpc_slice_buffer_destroy(&inflated);
  return ok;
}

}  // namespace

void LimitInflation(std::uint64_t most, std::uint64_t most_together) {
  g_most.store(most, std::memory_order_relaxed);
  Together()->SetMost(most_together);
}

}  // namespace hearth

// libgrpc's; 1: it is done.
__attribute__((visibility("default"))) int grpc_msg_decompress(grpc_compression_algorithm algorithm, grpc_slice_buffer* input,
                                                               grpc_slice_buffer* output);

int grpc_msg_decompress(grpc_compression_algorithm algorithm, grpc_slice_buffer* input, grpc_slice_buffer* output) {
  switch (algorithm) {
    case GRPC_COMPRESS_NONE:
      for (std::size_t i = 0; i < input->count; ++i) grpc_slice_buffer_add(output, grpc_slice_ref(input->slices[i]));
      return 1;
    case GRPC_COMPRESS_DEFLATE:
      return hearth::Inflate(false, *input, *output) ? 1 : 0;
    case GRPC_COMPRESS_GZIP:
      return hearth::Inflate(true, *input, *output) ? 1 : 0;
    case GRPC_COMPRESS_ALGORITHMS_COUNT:
      return 0;
  }
  return 0;
}
