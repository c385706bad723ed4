#include "server/storage/file_reader.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "server/storage/file_id.h"

namespace hearth {

FileReader::FileReader(UniqueFd fd, std::filesystem::path path, FileId id)
    : fd_(std::move(fd)), path_(std::move(path)), id_(id) {}

absl::StatusOr<std::shared_ptr<const FileReader>> FileReader::Of(const MappedFile& file) {
  UniqueFd fd(::fcntl(file.descriptor(), F_DUPFD_CLOEXEC, 0));
  if (!fd) return ErrnoStatus(errno, StrCat("'", ShortName(file.path()), "' cannot be opened again"));
  return std::shared_ptr<const FileReader>(new FileReader(std::move(fd), file.path(), file.id()));
}

absl::Status FileReader::Read(std::uint64_t offset, std::span<std::byte> out) const {
  while (!out.empty()) {
    const ::ssize_t got = ::pread(fd_.get(), out.data(), out.size(), static_cast<::off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) {
      return absl::DataLossError(StrCat("cannot be read at byte ", offset, ": ",
                                        got == 0 ? "it was cut short" : std::strerror(errno)));
    }
    offset += static_cast<std::uint64_t>(got);
    out = out.subspan(static_cast<std::size_t>(got));
  }
  return absl::OkStatus();
}

bool FileReader::Intact() const {
  struct stat st {};
  return ::fstat(fd_.get(), &st) == 0 && FileIdOf(st) == id_;
}

}  // namespace hearth
