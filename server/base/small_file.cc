#include "server/base/small_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "server/base/unique_fd.h"

namespace hearth {

absl::StatusOr<std::string> ReadSmallFile(const std::string& path, std::size_t most) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));  // a pipe would be waited for
  if (!fd) return ErrnoStatus(errno, StrCat("cannot read ", path));
  struct stat found {};
  if (::fstat(fd.get(), &found) != 0) return ErrnoStatus(errno, StrCat("cannot read ", path));
  if (!S_ISREG(found.st_mode)) return absl::InvalidArgumentError(StrCat(path, " is not a file"));
  std::string text(most + 1, '\0');
  std::size_t size = 0;
  while (size < text.size()) {
    const ssize_t got = ::read(fd.get(), text.data() + size, text.size() - size);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return ErrnoStatus(errno, StrCat("cannot read ", path));
    if (got == 0) break;
    size += static_cast<std::size_t>(got);
  }
  if (size > most) return absl::InvalidArgumentError(StrCat(path, " is larger than ", most, " bytes"));
  text.resize(size);
  return text;
}

}  // namespace hearth
