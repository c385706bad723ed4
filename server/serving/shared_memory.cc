#include "server/serving/shared_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>
#include <limits>
#include <utility>

namespace hearth {
namespace {

constexpr std::size_t kMaxName = 256;
constexpr std::size_t kPiece = std::size_t{4} << 20;

absl::Status Disabled() {
  return absl::UnimplementedError(
      "Client shared memory is disabled. Start the server with grpc.client_shared_memory: true to enable it, or send "
      "tensors in the message.");
}

absl::Status CheckName(const std::string& name) {
  const bool printable = std::none_of(name.begin(), name.end(), [](char c) {
    return static_cast<unsigned char>(c) < ' ' || c == '\x7f';
  });
  if (!name.empty() && name.size() <= kMaxName && printable) return absl::OkStatus();
  return absl::InvalidArgumentError(StrCat("a shared memory region needs a name of 1 to ", kMaxName,
                                           " bytes without control characters"));
}

// What shm_open takes, and nothing that could be a path to anything else.
absl::Status CheckKey(const SharedRegion::Place& place) {
  const std::string_view whole = place.key;
  const std::string_view key = whole.starts_with('/') ? whole.substr(1) : whole;
  constexpr std::string_view kNotInIt("/\0", 2);
  if (!key.empty() && key.size() <= NAME_MAX && key != "." && key != ".." &&
      key.find_first_of(kNotInIt) == std::string_view::npos) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(StrCat("failed to register shared memory region '", place.name,
                                           "': its key is not the name of a shared memory object, which is \"/name\", "
                                           "with no other '/' in it"));
}

// The object, which holds all of the region.
absl::StatusOr<UniqueFd> Open(const SharedRegion::Place& place) {
  const std::string failed = StrCat("failed to register shared memory region '", place.name, "': ");
  UniqueFd object(::shm_open(place.key.c_str(), O_RDWR, 0));
  if (!object) {
    const absl::Status why = ErrnoStatus(errno, StrCat("Unable to open shared memory region: '", place.key, "'"));
    return absl::InternalError(why.message());
  }
  struct stat status {};
  if (::fstat(object.get(), &status) != 0) return ErrnoStatus(errno, StrCat(failed, "cannot look at its object"));
  if (!S_ISREG(status.st_mode)) {
    return absl::InvalidArgumentError(StrCat(failed, "'", place.key, "' is not a shared memory object"));
  }
  const auto size = static_cast<std::uint64_t>(status.st_size);
  if (place.byte_size == 0 || place.offset > size || place.byte_size > size - place.offset) {
    return absl::InvalidArgumentError(StrCat(failed, "invalid args: ", place.byte_size, " bytes from ", place.offset,
                                             " on of an object that has ", size));
  }
  return object;
}

}  // namespace

SharedRegion::SharedRegion(Place place, UniqueFd object, std::unique_ptr<const SharedMapping> mapping)
    : place_(std::move(place)), object_(std::move(object)), mapping_(std::move(mapping)) {}

absl::Status SharedRegion::Check(std::uint64_t offset, std::uint64_t size) const {
  if (offset <= place_.byte_size && size <= place_.byte_size - offset) return absl::OkStatus();
  return absl::InvalidArgumentError(StrCat("Invalid offset + byte size for shared memory region: '", place_.name, "': ",
                                           size, " bytes from ", offset, " on of ", place_.byte_size));
}

absl::Status SharedRegion::CutShort() const {
  return absl::InvalidArgumentError(StrCat("shared memory region '", place_.name, "' is longer than its object '",
                                           place_.key, "' by now, or its file system is full: register it again"));
}

absl::Status SharedRegion::CheckObject(std::uint64_t offset, std::uint64_t size) const {
  HEARTH_RETURN_IF_ERROR(Check(offset, size));
  struct stat status {};
  if (::fstat(object_.get(), &status) != 0) return ErrnoStatus(errno, "cannot look at a shared memory object");
  const bool has_it = static_cast<std::uint64_t>(status.st_size) >= place_.offset + offset + size;
  return has_it ? absl::OkStatus() : CutShort();
}

// `copy` copies so many bytes from so far into the tensor on. What is not the client's memory any more gets no more of them
// than a piece: pages of this process would take them.
template <typename Copy>
absl::Status SharedRegion::InPieces(std::uint64_t offset, std::size_t size, Copy copy) const {
  HEARTH_RETURN_IF_ERROR(CheckObject(offset, size));
  for (std::size_t at = 0; at < size && !mapping_->poisoned(); at += kPiece) copy(at, std::min(kPiece, size - at));
  return mapping_->poisoned() ? CutShort() : absl::OkStatus();
}

absl::Status SharedRegion::Read(std::uint64_t offset, std::span<std::byte> to) const {
  return InPieces(offset, to.size(), [&](std::size_t at, std::size_t size) {
    std::memcpy(to.data() + at, mapping_->data() + offset + at, size);
  });
}

absl::Status SharedRegion::Write(std::uint64_t offset, std::span<const std::byte> from) const {
  return InPieces(offset, from.size(), [&](std::size_t at, std::size_t size) {
    std::memcpy(mapping_->data() + offset + at, from.data() + at, size);
  });
}

absl::Status SharedMemory::CheckRoom(const std::string& name) const {
  if (regions_.contains(name)) {
    return absl::AlreadyExistsError(StrCat("shared memory region '", name, "' already in manager"));
  }
  if (regions_.size() < kMaxRegions) return absl::OkStatus();
  return absl::ResourceExhaustedError(StrCat(kMaxRegions, " shared memory regions are registered already: unregister "
                                             "those that are not needed, or register larger ones and use parts"));
}

absl::Status SharedMemory::Register(const SharedRegion::Place& place) {
  if (!allowed_) return Disabled();
  HEARTH_RETURN_IF_ERROR(CheckName(place.name));
  HEARTH_RETURN_IF_ERROR(CheckKey(place));
  {
    MutexLock lock(mu_);
    HEARTH_RETURN_IF_ERROR(CheckRoom(place.name));
  }
  HEARTH_ASSIGN_OR_RETURN(UniqueFd object, Open(place));
  HEARTH_ASSIGN_OR_RETURN(std::unique_ptr<const SharedMapping> mapping,
                          SharedMapping::Make(object.get(), place.offset, place.byte_size));
  auto region = std::make_shared<const SharedRegion>(place, std::move(object), std::move(mapping));
  MutexLock lock(mu_);
  HEARTH_RETURN_IF_ERROR(CheckRoom(place.name));  // somebody may have been faster
  regions_.emplace(place.name, std::move(region));
  return absl::OkStatus();
}

void SharedMemory::Unregister(const std::string& name) {
  Regions gone;  // closed without the lock
  MutexLock lock(mu_);
  if (name.empty()) return gone.swap(regions_);
  if (auto region = regions_.extract(name)) gone.insert(std::move(region));
}

absl::StatusOr<std::shared_ptr<const SharedRegion>> SharedMemory::Find(const std::string& name) const {
  if (!allowed_) return Disabled();
  MutexLock lock(mu_);
  const auto found = regions_.find(name);
  if (found != regions_.end()) return found->second;
  return absl::NotFoundError(StrCat("Unable to find shared memory region: '", name, "'"));
}

std::vector<SharedRegion::Place> SharedMemory::List() const {
  std::vector<SharedRegion::Place> places;
  MutexLock lock(mu_);
  for (const auto& [name, region] : regions_) places.push_back(region->place());
  return places;
}

}  // namespace hearth
