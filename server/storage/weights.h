// Named tensors in files: what every format of weights comes down to.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "server/base/status.h"
#include "server/storage/archive.h"
#include "server/storage/byte_source.h"
#include "server/storage/element_type.h"
#include "server/storage/mapped_file.h"
#include "server/tensor/tensor.h"

namespace hearth {

// SHA-256 of a storage's unpacked bytes, as the file states it.
using Checksum = std::array<std::uint8_t, 32>;

// A run of bytes that tensors are views of.
struct WeightStorage {
  using Unpack = std::function<absl::Status(std::span<std::byte> out, std::size_t part)>;

  std::shared_ptr<const MappedFile> file;
  std::uint64_t offset = 0;  // in the file; of packed bytes where they are packed
  std::uint64_t size = 0;    // unpacked
  // Fills one part of `size` bytes; null: they lie in the file as they are. Thread-safe, also for several parts
  // at once.
  Unpack unpack;
  std::optional<Checksum> checksum = std::nullopt;  // believed, not computed
  VerifyChecksum verify = nullptr;  // another kind of checksum that the file states; null: it states none

  std::size_t parts = 1;  // of `unpack`, each to be called once; in any order

  // Whether the file's own pages can serve as the tensor's memory.
  bool mappable() const { return unpack == nullptr && offset % kWeightAlignment == 0; }
};

// All parts, one after the other. REQUIRES: storage.unpack; out.size() == storage.size.
inline absl::Status UnpackAll(const WeightStorage& storage, std::span<std::byte> out) {
  for (std::size_t part = 0; part < storage.parts; ++part) HEARTH_RETURN_IF_ERROR(storage.unpack(out, part));
  return absl::OkStatus();
}

// Lies inside its storage, whatever the file said.
struct WeightTensor {
  std::string name;
  std::size_t storage = 0;            // index into Weights::storages
  const ElementType* type = nullptr;  // never null
  Shape sizes;
  std::vector<std::int64_t> strides;  // in elements, like `offset`
  std::int64_t offset = 0;
  bool conjugated = false;  // its values are the conjugates of what lies there, as .conj() leaves them
  bool negated = false;     // the negatives
};

struct Weights {
  std::vector<WeightStorage> storages;
  std::vector<WeightTensor> tensors;  // each name once

  std::uint64_t mapped_bytes() const { return Bytes(true); }
  std::uint64_t copied_bytes() const { return Bytes(false); }  // unpacked, or not aligned

 private:
  std::uint64_t Bytes(bool mappable) const {
    std::uint64_t sum = 0;
    for (const WeightStorage& storage : storages) sum += storage.mappable() == mappable ? storage.size : 0;
    return sum;
  }
};

// The strides of a tensor whose elements lie one after the other.
std::vector<std::int64_t> ContiguousStrides(const Shape& sizes);

}  // namespace hearth
