// A part of a client's shared memory object, mapped, and what happens to it meanwhile.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "server/base/status.h"
#include "server/storage/mapping_guard.h"

namespace hearth {

// Of any part: it need not begin at a page. Thread-safe.
class SharedMapping {
 public:
  // RESOURCE_EXHAUSTED: there may be no more mappings, or none that large. REQUIRES: offset + size is within the object.
  static absl::StatusOr<std::unique_ptr<const SharedMapping>> Make(int object, std::uint64_t offset, std::uint64_t size);

  std::byte* data() const { return data_; }

  // Bytes were not there any more when somebody wanted them, or had no room, and this process has pages of its own in their
  // place since then. To be asked after each use.
  bool poisoned() const { return guard_.poisoned(); }

 private:
  struct Addresses {
    Addresses(void* at, std::size_t bytes) : begin(at), size(bytes) {}
    ~Addresses();
    Addresses(const Addresses&) = delete;
    Addresses& operator=(const Addresses&) = delete;
    void* const begin;
    const std::size_t size;
  };

  SharedMapping(void* begin, std::size_t mapped, std::byte* data) : addresses_(begin, mapped), data_(data) {}

  const Addresses addresses_;
  std::byte* const data_;
  MappingGuard guard_;  // last: it lets go of the addresses before they are unmapped and given to others
};

}  // namespace hearth
