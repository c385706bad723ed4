#include "server/storage/hdf5_chunks.h"

#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "server/base/check.h"

namespace hearth {
namespace {

constexpr std::uint64_t kMaxChunkBytes = 256 << 20;  // unpacked in memory that no budget knows
constexpr std::uint64_t kPartBytes = 1 << 20;
constexpr std::uint64_t kMaxDeflateRatio = 1032;
constexpr std::size_t kMaxRank = 32;

absl::Status Bad(std::string_view what) { return absl::InvalidArgumentError(std::string(what)); }

// Shuffled: the first bytes of all elements, then the second bytes of all, ...
template <std::size_t kSize>
void CopyShuffled(const std::byte* from, std::size_t stride, std::byte* to, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    for (std::size_t byte = 0; byte < kSize; ++byte) to[i * kSize + byte] = from[byte * stride + i];
  }
}

// `count` elements from `chunk`, the first at element `at`.
void CopyRun(std::span<const std::byte> chunk, std::size_t at, std::size_t element_size, bool shuffled,
             std::byte* to, std::size_t count) {
  const std::size_t stride = chunk.size() / element_size;
  switch (shuffled ? element_size : 1) {
    case 2:
      return CopyShuffled<2>(chunk.data() + at, stride, to, count);
    case 4:
      return CopyShuffled<4>(chunk.data() + at, stride, to, count);
    case 8:
      return CopyShuffled<8>(chunk.data() + at, stride, to, count);
    default:  // of one byte, shuffled or not is the same
      std::memcpy(to, chunk.data() + at * element_size, count * element_size);
  }
}

}  // namespace

void FillWith(std::span<const std::byte> element, std::span<std::byte> out) {
  if (std::all_of(element.begin(), element.end(), [](std::byte b) { return b == std::byte{0}; })) {
    std::fill(out.begin(), out.end(), std::byte{0});
    return;
  }
  for (; out.size() >= element.size(); out = out.subspan(element.size())) {
    std::copy(element.begin(), element.end(), out.begin());
  }
}

absl::StatusOr<ChunkedDataSet> ChunkedDataSet::Make(Shape sizes, Shape chunk, std::uint32_t element_size,
                                                    std::vector<Filter> filters,
                                                    std::vector<std::byte> fill) {
  const std::vector<Filter> known[] = {
      {}, {Filter::kShuffle}, {Filter::kDeflate}, {Filter::kShuffle, Filter::kDeflate}};
  if (std::find(std::begin(known), std::end(known), filters) == std::end(known)) {
    return Bad("has filters in an order that is not known; gzip, after shuffle or alone, is");
  }
  const bool shuffled = !filters.empty() && filters.front() == Filter::kShuffle;
  if (shuffled && element_size != 1 && element_size != 2 && element_size != 4 && element_size != 8) {
    return Bad("has shuffled elements of an unusual size");
  }
  HEARTH_CHECK(sizes.size() == chunk.size());
  if (sizes.empty() || sizes.size() > kMaxRank) return Bad("has chunks of an impossible shape");
  ChunkedDataSet set;
  set.element_size_ = element_size;
  set.chunk_bytes_ = element_size;
  set.grid_count_ = 1;
  for (std::size_t d = 0; d < sizes.size(); ++d) {
    if (sizes[d] < 0 || chunk[d] <= 0 ||
        __builtin_mul_overflow(set.chunk_bytes_, static_cast<std::uint64_t>(chunk[d]), &set.chunk_bytes_) ||
        set.chunk_bytes_ > kMaxChunkBytes) {
      return Bad("has chunks of an impossible shape");
    }
    set.grid_.push_back(sizes[d] / chunk[d] + (sizes[d] % chunk[d] != 0 ? 1 : 0));
    if (__builtin_mul_overflow(set.grid_count_, static_cast<std::uint64_t>(set.grid_[d]), &set.grid_count_)) {
      return Bad("has more chunks than can be counted");
    }
  }
  const std::optional<std::int64_t> count = ElementCount(sizes);
  if (!count || __builtin_mul_overflow(static_cast<std::uint64_t>(*count), element_size, &set.size_)) {
    return Bad("has an impossible shape");
  }
  set.sizes_ = std::move(sizes);
  set.chunk_ = std::move(chunk);
  set.filters_ = std::move(filters);
  set.fill_ = std::move(fill);
  return set;
}

bool ChunkedDataSet::Passed(Filter filter, const Chunk& chunk) const {
  for (std::size_t i = 0; i < filters_.size(); ++i) {
    if (filters_[i] == filter) return (chunk.mask >> i & 1U) == 0;
  }
  return false;
}

absl::Status ChunkedDataSet::Add(std::span<const std::uint64_t> place, Chunk chunk, std::uint64_t file_size) {
  if (place.size() != sizes_.size()) return Bad("has a chunk that does not lie in it");
  chunk.index = 0;
  for (std::size_t d = 0; d < place.size(); ++d) {
    const auto size = static_cast<std::uint64_t>(sizes_[d]), step = static_cast<std::uint64_t>(chunk_[d]);
    if (place[d] >= size || place[d] % step != 0) return Bad("has a chunk that does not lie in it");
    chunk.index = chunk.index * static_cast<std::uint64_t>(grid_[d]) + place[d] / step;
  }
  if (chunk.offset > file_size || chunk.size > file_size - chunk.offset) {
    return Bad("is cut short: a chunk ends behind the end of the file");
  }
  const bool fits = Passed(Filter::kDeflate, chunk) ? chunk_bytes_ / kMaxDeflateRatio <= chunk.size
                                                    : chunk_bytes_ == chunk.size;
  if (!fits) return Bad("has a chunk whose bytes do not go with its shape");
  chunks_.push_back(chunk);
  return absl::OkStatus();
}

absl::Status ChunkedDataSet::Finish() {
  const auto before = [](const Chunk& a, const Chunk& b) { return a.index < b.index; };
  const auto same = [](const Chunk& a, const Chunk& b) { return a.index == b.index; };
  std::sort(chunks_.begin(), chunks_.end(), before);
  if (std::adjacent_find(chunks_.begin(), chunks_.end(), same) != chunks_.end()) {
    return Bad("has two chunks at the same place");
  }
  // A dimension of which each chunk has all is one with the dimension before it: longer runs to copy.
  for (std::size_t d = sizes_.size(); d-- > 1;) {
    if (chunk_[d] != sizes_[d]) continue;
    sizes_[d - 1] *= sizes_[d];
    chunk_[d - 1] *= chunk_[d];
    for (Shape* shape : {&sizes_, &chunk_, &grid_}) shape->erase(shape->begin() + static_cast<std::ptrdiff_t>(d));
  }
  return absl::OkStatus();
}

void ChunkedDataSet::Scatter(std::uint64_t index, std::span<const std::byte> chunk, bool shuffled,
                             std::span<std::byte> out) const {
  const std::size_t rank = sizes_.size();
  Shape begin(rank), extent(rank), at(rank, 0);
  for (std::size_t d = rank; d-- > 0;) {
    const auto here = static_cast<std::uint64_t>(grid_[d]);
    begin[d] = static_cast<std::int64_t>(index % here) * chunk_[d];
    extent[d] = std::min(chunk_[d], sizes_[d] - begin[d]);  // edges stick out
    index /= here;
  }
  for (;;) {
    std::int64_t from = 0, to = 0;
    for (std::size_t d = 0; d < rank; ++d) {
      from = from * chunk_[d] + at[d];
      to = to * sizes_[d] + begin[d] + at[d];
    }
    CopyRun(chunk, static_cast<std::size_t>(from), element_size_, shuffled,
            out.data() + static_cast<std::size_t>(to) * element_size_, static_cast<std::size_t>(extent[rank - 1]));
    std::size_t d = rank - 1;  // the next run
    for (; d > 0 && ++at[d - 1] == extent[d - 1]; --d) at[d - 1] = 0;
    if (d == 0) return;
  }
}

std::size_t ChunkedDataSet::parts() const {
  const auto most = complete() ? chunks_.size() : static_cast<std::uint64_t>(grid_.front());
  return std::clamp<std::uint64_t>(std::max(size_, work()) / kPartBytes, 1, std::max<std::uint64_t>(most, 1));
}

absl::Status ChunkedDataSet::UnpackPart(std::span<const std::byte> file, std::span<std::byte> out,
                                        std::size_t part) const {
  const std::span<const Chunk> chunks(chunks_);
  const auto begin_of = [count = parts()](std::uint64_t units, std::size_t of_part) {
    return units / count * of_part + units % count * of_part / count;  // without overflow
  };
  if (complete()) {
    const std::uint64_t begin = begin_of(chunks.size(), part), end = begin_of(chunks.size(), part + 1);
    return UnpackChunks(chunks.subspan(begin, end - begin), file, out);
  }
  const auto rows = static_cast<std::uint64_t>(grid_.front());
  const std::uint64_t first_row = begin_of(rows, part), end_row = begin_of(rows, part + 1);
  const auto bytes_before = [&](std::uint64_t row) {
    const auto element_rows = static_cast<std::uint64_t>(sizes_.front());
    return std::min(row * static_cast<std::uint64_t>(chunk_.front()), element_rows) * (size_ / element_rows);
  };
  FillWith(fill_, out.subspan(bytes_before(first_row), bytes_before(end_row) - bytes_before(first_row)));
  const auto at = [&](std::uint64_t row) {
    return std::lower_bound(chunks.begin(), chunks.end(), row * (grid_count_ / rows),
                            [](const Chunk& chunk, std::uint64_t index) { return chunk.index < index; });
  };
  return UnpackChunks(std::span(at(first_row), at(end_row)), file, out);
}

absl::Status ChunkedDataSet::UnpackChunks(std::span<const Chunk> chunks, std::span<const std::byte> file,
                                          std::span<std::byte> out) const {
  std::vector<std::byte> inflated;
  for (const Chunk& chunk : chunks) {
    std::span<const std::byte> bytes = file.subspan(chunk.offset, chunk.size);
    if (Passed(Filter::kDeflate, chunk)) {
      inflated.resize(chunk_bytes_);
      uLongf size = chunk_bytes_;
      const int result = ::uncompress(reinterpret_cast<Bytef*>(inflated.data()), &size,
                                      reinterpret_cast<const Bytef*>(bytes.data()), bytes.size());
      if (result == Z_MEM_ERROR) return absl::ResourceExhaustedError("out of memory for unpacking");
      if (result != Z_OK || size != chunk_bytes_) return Bad("its packed bytes are damaged");
      bytes = inflated;
    }
    Scatter(chunk.index, bytes, Passed(Filter::kShuffle, chunk), out);
  }
  return absl::OkStatus();
}

absl::Status ChunkedDataSet::Unpack(std::span<const std::byte> file, std::span<std::byte> out,
                                    std::size_t part) const {
  HEARTH_CHECK(out.size() == size_ && size_ > 0 && part < parts());
  const absl::StatusOr<absl::Status> done =
      CatchAsStatus("unpacking", [&] { return UnpackPart(file, out, part); });
  return done.ok() ? *done : done.status();
}

}  // namespace hearth
