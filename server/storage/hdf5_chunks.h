// Data sets of HDF5 that lie in the file in pieces.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "server/base/status.h"
#include "server/tensor/tensor.h"

namespace hearth {

// A grid of chunks of one size over a tensor; those at the far edges stick out. Thread-compatible.
class ChunkedDataSet {
 public:
  enum class Filter : std::uint8_t { kShuffle, kDeflate };

  struct Chunk {
    std::uint64_t index = 0;   // in the grid, the last dimension counting fastest
    std::uint64_t offset = 0;  // in the file
    std::uint32_t size = 0;
    std::uint32_t mask = 0;  // bit i: filter i was left out
  };

  // INVALID_ARGUMENT when these numbers cannot go together. `filters` in the order of writing; `fill`:
  // one element, or nothing for zeros. REQUIRES: sizes.size() == chunk.size().
  static absl::StatusOr<ChunkedDataSet> Make(Shape sizes, Shape chunk, std::uint32_t element_size,
                                             std::vector<Filter> filters, std::vector<std::byte> fill);

  // A chunk by its place in the tensor. INVALID_ARGUMENT when it does not lie in the tensor, or its
  // bytes not in a file of `file_size`, or they cannot be as many as that.
  absl::Status Add(std::span<const std::uint64_t> place, Chunk chunk, std::uint64_t file_size);
  // After the last one. INVALID_ARGUMENT when two have the same place.
  absl::Status Finish();

  std::uint64_t size() const { return size_; }  // of the tensor, in bytes
  // Bytes that come out of the chunks, edges included.
  std::uint64_t work() const { return chunks_.size() * chunk_bytes_; }

  // In how many parts it is unpacked, of about a MiB; several threads may each do one.
  std::size_t parts() const;
  // Fills one part of `out`: the bytes of chunks that were never written come from `fill`. INVALID_ARGUMENT
  // when a chunk does not unpack; RESOURCE_EXHAUSTED. REQUIRES: out.size() == size(), above 0; `file` has the
  // size that Add() was told; part < parts().
  absl::Status Unpack(std::span<const std::byte> file, std::span<std::byte> out, std::size_t part) const;

 private:
  ChunkedDataSet() = default;
  bool Passed(Filter filter, const Chunk& chunk) const;
  // Nothing to be filled in, so chunks can be parted anywhere. Otherwise a part is a run of rows of the grid, all
  // that has one place in its first dimension: those lie one after the other, written or not.
  bool complete() const { return chunks_.size() == grid_count_; }
  absl::Status UnpackPart(std::span<const std::byte> file, std::span<std::byte> out, std::size_t part) const;
  absl::Status UnpackChunks(std::span<const Chunk> chunks, std::span<const std::byte> file,
                            std::span<std::byte> out) const;
  void Scatter(std::uint64_t index, std::span<const std::byte> chunk, bool shuffled,
               std::span<std::byte> out) const;

  Shape sizes_, chunk_, grid_;
  std::uint32_t element_size_ = 0;
  std::uint64_t size_ = 0, chunk_bytes_ = 0, grid_count_ = 0;
  std::vector<Filter> filters_;
  std::vector<std::byte> fill_;
  std::vector<Chunk> chunks_;
};

// Fills `out` with copies of `element`; zeros when that is empty.
void FillWith(std::span<const std::byte> element, std::span<std::byte> out);

}  // namespace hearth
