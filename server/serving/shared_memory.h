// Memory that clients share with the server, so that tensors need not travel: parts of POSIX shared memory objects, under
// names that the clients choose.
//
// Tensors are copied out of an object and into it. A client that cuts its object short, or a file system that is full,
// costs that client a request (storage/mapping_guard.h). Programs never see an object itself: operators that look at a
// value twice, to count and then to fill, rely on its being the same, and a client that changes it between the two could
// make them write anywhere in this process.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "server/base/mutex.h"
#include "server/base/status.h"
#include "server/base/unique_fd.h"
#include "server/serving/shared_mapping.h"

namespace hearth {

// One region. It is there for as long as somebody holds it, registered or not. Thread-safe.
class SharedRegion {
 public:
  struct Place {
    std::string name;
    std::string key;  // of the object: "/tensors"
    std::uint64_t offset = 0;
    std::uint64_t byte_size = 0;
  };

  // `mapping`: of all of it.
  SharedRegion(Place place, UniqueFd object, std::unique_ptr<const SharedMapping> mapping);

  const Place& place() const { return place_; }

  // Whether `size` bytes from `offset` on lie within it: INVALID_ARGUMENT where not.
  absl::Status Check(std::uint64_t offset, std::uint64_t size) const;
  // Fill `to` from it, and it from `from`. INVALID_ARGUMENT, too, when its object has become shorter since, or has no
  // room. Others may be writing to it meanwhile.
  absl::Status Read(std::uint64_t offset, std::span<std::byte> to) const;
  absl::Status Write(std::uint64_t offset, std::span<const std::byte> from) const;

 private:
  template <typename Copy>
  absl::Status InPieces(std::uint64_t offset, std::size_t size, Copy copy) const;
  absl::Status CutShort() const;
  // That the object has it now. Should it become shorter after this look, the mapping will tell.
  absl::Status CheckObject(std::uint64_t offset, std::uint64_t size) const;

  const Place place_;
  const UniqueFd object_;
  const std::unique_ptr<const SharedMapping> mapping_;
};

// All regions that are registered. Thread-safe.
class SharedMemory {
 public:
  // allowed: whether clients may use it at all. Whoever may reach the server can then read and write every shared
  // memory object that the server may.
  explicit SharedMemory(bool allowed) : allowed_(allowed) {}

  bool allowed() const { return allowed_; }

  // UNIMPLEMENTED: it is not allowed. INVALID_ARGUMENT: the name, the key or the bounds. ALREADY_EXISTS: the name is
  // taken. INTERNAL: there is no such object, or it may not be opened. RESOURCE_EXHAUSTED: kMaxRegions are registered.
  absl::Status Register(const SharedRegion::Place& place) ABSL_LOCKS_EXCLUDED(mu_);
  // Empty: all. A name that is not there is no error.
  void Unregister(const std::string& name) ABSL_LOCKS_EXCLUDED(mu_);

  // NOT_FOUND: there is none. UNIMPLEMENTED: it is not allowed.
  absl::StatusOr<std::shared_ptr<const SharedRegion>> Find(const std::string& name) const ABSL_LOCKS_EXCLUDED(mu_);
  // By name.
  std::vector<SharedRegion::Place> List() const ABSL_LOCKS_EXCLUDED(mu_);

  // Each has a descriptor open.
  static constexpr std::size_t kMaxRegions = 256;

 private:
  using Regions = std::map<std::string, std::shared_ptr<const SharedRegion>>;

  absl::Status CheckRoom(const std::string& name) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const bool allowed_;
  mutable Mutex mu_;
  Regions regions_ ABSL_GUARDED_BY(mu_);
};

}  // namespace hearth
