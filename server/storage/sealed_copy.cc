#include "server/storage/sealed_copy.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <memory>

#include "server/storage/mapped_file.h"

namespace hearth {
namespace {

constexpr std::uint64_t kStep = 16ULL << 20;

absl::Status CopyError(int error_number, const std::filesystem::path& path) {
  const std::string what = StrCat("'", ShortName(path), "' cannot be copied into memory");
  // What a read says whose memory cannot be had.
  if (error_number == EFAULT) return absl::ResourceExhaustedError(StrCat(what, ": out of memory"));
  return ErrnoStatus(error_number, what);
}

// Reads straight into the pages of `copy`. Nothing has it mapped any more when this returns: it could not be
// sealed otherwise.
absl::Status Fill(int copy, int file, std::uint64_t size, const std::filesystem::path& path,
                  const std::stop_token& stop) {
  void* const mapping = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, copy, 0);
  if (mapping == MAP_FAILED) return CopyError(errno, path);
  const auto unmap = [size](std::byte* data) { ::munmap(data, size); };
  const std::unique_ptr<std::byte, decltype(unmap)> data(static_cast<std::byte*>(mapping), unmap);
  std::uint64_t at = 0;
  while (at < size) {
    if (stop.stop_requested()) return absl::CancelledError("stopped while reading the file");
    const ::ssize_t got = ::pread(file, data.get() + at, std::min(kStep, size - at), static_cast<::off_t>(at));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return CopyError(errno, path);
    if (got == 0) {
      return absl::DataLossError(StrCat("'", ShortName(path), "' was cut short while it was copied; replace model "
                                        "files by renaming a new one over them"));
    }
    at += static_cast<std::uint64_t>(got);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<UniqueFd> SealedCopy(int file, std::uint64_t size, const std::filesystem::path& path,
                                    const std::stop_token& stop) {
  UniqueFd copy(::memfd_create("hearth-weights", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!copy || ::ftruncate(copy.get(), static_cast<::off_t>(size)) != 0) return CopyError(errno, path);
  HEARTH_RETURN_IF_ERROR(Fill(copy.get(), file, size, path, stop));
  constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL;
  if (::fcntl(copy.get(), F_ADD_SEALS, kSeals) != 0) return CopyError(errno, path);
  return copy;
}

}  // namespace hearth
