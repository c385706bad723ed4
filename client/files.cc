#include "client/files.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

#include "client/strings.h"

namespace hearth::client {
namespace {

struct Close {
  void operator()(std::FILE* file) const { std::fclose(file); }
};
using File = std::unique_ptr<std::FILE, Close>;

absl::Status FileError(int error, std::string_view verb, const std::string& path) {
  std::string message = Cat("cannot ", verb, " ", path, ": ", std::strerror(error));
  if (error == ENOENT) return absl::NotFoundError(message);
  if (error == EACCES) return absl::PermissionDeniedError(message);
  return absl::InvalidArgumentError(message);
}

}  // namespace

absl::StatusOr<std::string> ReadFile(const std::string& path, std::size_t max_bytes) {
  const File file(std::fopen(path.c_str(), "rb"));
  if (file == nullptr) return FileError(errno, "read", path);
  std::string content;
  constexpr std::size_t kStep = std::size_t{1} << 20;
  while (true) {
    const std::size_t size = content.size();
    content.resize(size + kStep);
    const std::size_t got = std::fread(content.data() + size, 1, kStep, file.get());
    content.resize(size + got);
    if (content.size() > max_bytes) {
      return absl::InvalidArgumentError(
          Cat(path, " holds more than the ", max_bytes, " bytes that can be sent"));
    }
    if (got == kStep) continue;
    if (std::ferror(file.get()) != 0) return FileError(errno, "read", path);
    return content;
  }
}

absl::Status CheckWritable(const std::string& path) {
  struct stat status{};
  if (::stat(path.c_str(), &status) == 0) {
    if (S_ISDIR(status.st_mode)) return FileError(EISDIR, "write", path);
    return ::access(path.c_str(), W_OK) == 0 ? absl::OkStatus() : FileError(errno, "write", path);
  }
  const std::size_t slash = path.rfind('/');
  const std::string folder = slash == path.npos ? "." : path.substr(0, slash + 1) + ".";
  if (::access(folder.c_str(), W_OK | X_OK) == 0) return absl::OkStatus();
  return FileError(errno, "write", path);
}

absl::Status WriteFile(const std::string& path, std::string_view content) {
  File file(std::fopen(path.c_str(), "wb"));
  if (file == nullptr) return FileError(errno, "write", path);
  const bool written = std::fwrite(content.data(), 1, content.size(), file.get()) == content.size();
  // A full disk may only show when the last bytes are flushed.
  const bool closed = std::fclose(file.release()) == 0;
  if (!written || !closed) return FileError(errno, "write", path);
  return absl::OkStatus();
}

}  // namespace hearth::client
