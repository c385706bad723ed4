#include "server/serving/shared_mapping.h"

#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

#include <cerrno>

namespace hearth {

absl::StatusOr<std::unique_ptr<const SharedMapping>> SharedMapping::Make(int object, std::uint64_t offset,
                                                                         std::uint64_t size) {
  const std::uint64_t before = offset % static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  const std::size_t mapped = before + size;
  void* const begin =
      ::mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_SHARED, object, static_cast<off_t>(offset - before));
  if (begin == MAP_FAILED) return ErrnoStatus(errno, "cannot map shared memory");
  std::unique_ptr<SharedMapping> mapping(new SharedMapping(begin, mapped, static_cast<std::byte*>(begin) + before));
  HEARTH_RETURN_IF_ERROR(mapping->guard_.Protect(begin, mapped, MappingGuard::Writes::kShared));
  return mapping;
}

SharedMapping::Addresses::~Addresses() { ::munmap(begin, size); }

}  // namespace hearth
