#include "server/torch_backend/aoti_programs.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <span>
#include <string_view>
#include <system_error>

#include "server/base/log.h"
#include "server/base/unique_fd.h"
#include "server/torch_backend/sha256.h"

namespace hearth {
namespace {

namespace fs = std::filesystem;

// Kept for so many generations of files; then they are hashed again.
constexpr std::size_t kMaxKeys = 4096;

fs::path TemporaryFolder(fs::path configured) {
  if (!configured.empty()) return configured;
  std::error_code error;
  fs::path found = fs::temp_directory_path(error);  // TMPDIR
  return error ? fs::path("/tmp") : found;
}

std::optional<FileId> IdOf(const fs::path& file) {
  struct stat status{};
  if (::stat(file.c_str(), &status) != 0) return std::nullopt;
  return FileId{.device = status.st_dev,
                .inode = status.st_ino,
                .mtime_ns = status.st_mtim.tv_sec * 1'000'000'000LL + status.st_mtim.tv_nsec,
                .size = static_cast<std::uint64_t>(status.st_size)};
}

absl::Status WriteAll(int fd, std::span<const std::byte> bytes, const fs::path& path) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return ErrnoStatus(errno, StrCat("'", path.string(), "' cannot be written"));
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
  return absl::OkStatus();
}

absl::Status WriteFile(const fs::path& path, std::span<const std::byte> bytes) {
  const UniqueFd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0700));
  if (!file) return ErrnoStatus(errno, StrCat("'", path.string(), "' cannot be written"));
  return WriteAll(file.get(), bytes, path);
}

bool ForbidsCode(const fs::path& path) {
  struct statvfs status{};
  return ::statvfs(path.c_str(), &status) == 0 && (status.f_flag & ST_NOEXEC) != 0;
}

// Why the dynamic linker did not take it. The daemon's own folders are not the client's business.
absl::Status NotLoadable(const AotiPackage& package, const AotiProgram& program) {
  const char* reason = ::dlerror();
  const std::string text = reason == nullptr ? "no reason given" : reason;
  log::Warning("library of a package refused", {{"file", package.path().string()}, {"reason", text}});
  if (!ForbidsCode(program.directory / program.library_file)) {
    const std::size_t colon = text.find(": ");
    return AboutFile(package.path(), absl::InvalidArgumentError(
        StrCat("has a library that the dynamic linker refuses: ", colon == text.npos ? text : text.substr(colon + 2))));
  }
  return AboutFile(package.path(), absl::FailedPreconditionError(
      program.unpacked
          ? "cannot be unpacked where code can be run from (the temporary directory is mounted noexec); set "
            "TMPDIR to another one, or serve the directory that `hearth pack --format aoti` writes"
          : "lies on a file system that is mounted noexec, from which code cannot be run; move it to another one"));
}

// Inductor checks indices where it uses them, and an exception that leaves a parallel loop ends the
// process: one request with an index out of range would do. By the functions that the library imports.
absl::Status CheckNothingThrowsInParallel(const AotiPackage& package) {
  constexpr std::size_t kImportsLieWithin = std::size_t{64} << 20;  // weights come behind the code
  HEARTH_ASSIGN_OR_RETURN(const AotiPackage::Content content, package.Read(package.library()));
  const std::string_view bytes(reinterpret_cast<const char*>(content.bytes.data()),
                               std::min(content.bytes.size(), kImportsLieWithin));
  const auto imports = [&](std::string_view function) {
    return bytes.find(StrCat(std::string_view("\0", 1), function, std::string_view("\0", 1))) != bytes.npos;
  };
  if (!imports("aoti_torch_check") || !(imports("GOMP_parallel") || imports("__kmpc_fork_call"))) {
    return absl::OkStatus();
  }
  return AboutFile(package.path(), absl::FailedPreconditionError(
      "checks indices inside of parallel loops, and a request with an index out of range would end hearthd; "
      "compile it with cpp.threads=1, as `hearth pack --format aoti` does"));
}

}  // namespace

void* AotiProgram::Symbol(const char* name) const { return ::dlsym(library, name); }

AotiPrograms::AotiPrograms(fs::path temporary) : temporary_(TemporaryFolder(std::move(temporary))) {}

AotiPrograms::~AotiPrograms() {
  MutexLock lock(mu_);
  std::error_code ignored;
  for (const auto& [key, entry] : programs_) {
    if (entry.program->unpacked) fs::remove_all(entry.program->directory, ignored);
  }
}

absl::StatusOr<std::string> AotiPrograms::KeyOf(const AotiPackage& package) {
  {
    MutexLock lock(mu_);
    if (const auto known = keys_.find(package.ids()); known != keys_.end()) return known->second;
  }
  Sha256 hash;
  for (const AotiPackage::File& file : package.files()) {
    HEARTH_ASSIGN_OR_RETURN(const AotiPackage::Content content, package.Read(file));
    hash.AddNumber(file.name.size());
    hash.Add(file.name.data(), file.name.size());
    hash.AddNumber(content.bytes.size());
    hash.Add(content.bytes.data(), content.bytes.size());
  }
  std::string key = hash.Finish();
  MutexLock lock(mu_);
  if (keys_.size() >= kMaxKeys) keys_.clear();
  keys_.emplace(package.ids(), key);
  return key;
}

absl::StatusOr<AotiPrograms::Found> AotiPrograms::Find(const AotiPackage& package) {
  HEARTH_ASSIGN_OR_RETURN(const std::string key, KeyOf(package));
  MutexLock lock(mu_);  // held while a library is opened: the same one is wanted by whoever waits
  if (const auto known = programs_.find(key); known != programs_.end()) {
    const AotiProgram& program = *known->second.program;
    if (IdOf(program.directory / program.library_file) == known->second.library) {
      return Found{known->second.program, true};
    }
    programs_.erase(known);  // its directory was deleted; the next best one serves
  }
  if (package.is_directory()) {
    const auto id = IdOf(package.root() / package.library().name);
    const auto used = id ? key_of_inode_.find({id->device, id->inode}) : key_of_inode_.end();
    if (used != key_of_inode_.end() && used->second != key) {
      return AboutFile(package.path(), absl::FailedPreconditionError(
          "was written over while hearthd runs the code in it; restart hearthd, and replace such a directory by "
          "renaming another one into its place"));
    }
  }
  HEARTH_ASSIGN_OR_RETURN(std::shared_ptr<const AotiProgram> program, Open(package));
  const auto id = IdOf(program->directory / program->library_file);
  if (!id) return absl::DataLossError("the library of the package is gone");
  key_of_inode_[{id->device, id->inode}] = key;
  programs_[key] = {program, *id};
  return Found{std::move(program), false};
}

absl::StatusOr<std::shared_ptr<const AotiProgram>> AotiPrograms::Open(const AotiPackage& package) const {
  HEARTH_RETURN_IF_ERROR(CheckNothingThrowsInParallel(package));
  auto program = std::make_shared<AotiProgram>();
  program->model = package.model();
  program->library_file = package.library().name;
  program->unpacked = !package.is_directory();
  if (program->unpacked) {
    HEARTH_ASSIGN_OR_RETURN(program->directory, Unpack(package));
  } else {
    const int fd = ::open(package.root().c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return ErrnoStatus(errno, StrCat("'", ShortName(package.path()), "' cannot be opened"));
    // Never closed, like the library: its number is part of the name that the dynamic linker knows.
    program->directory = StrCat("/proc/self/fd/", fd);
  }
  const fs::path library = program->directory / program->library_file;
  program->library = ::dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (program->library != nullptr) return program;
  const absl::Status refused = NotLoadable(package, *program);
  std::error_code ignored;
  if (program->unpacked) fs::remove_all(program->directory, ignored);
  return refused;
}

absl::StatusOr<fs::path> AotiPrograms::Unpack(const AotiPackage& package) const {
  std::string name = (temporary_ / "hearth-aoti-XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr) {  // 0700
    return AboutFile(package.path(), absl::FailedPreconditionError(StrCat(
        "has to be unpacked, and the temporary directory cannot be written to (", std::strerror(errno),
        "); set TMPDIR to another one, or serve the directory that `hearth pack --format aoti` writes")));
  }
  const fs::path folder = name;
  const auto unpack = [&]() -> absl::Status {
    for (const AotiPackage::File& file : package.files()) {
      HEARTH_ASSIGN_OR_RETURN(const AotiPackage::Content content, package.Read(file));
      std::error_code error;
      fs::create_directories((folder / file.name).parent_path(), error);
      if (error) return ErrnoStatus(error.value(), "the package cannot be unpacked");
      HEARTH_RETURN_IF_ERROR(WriteFile(folder / file.name, content.bytes));
    }
    return absl::OkStatus();
  };
  const absl::Status unpacked = unpack();
  if (unpacked.ok()) return folder;
  std::error_code ignored;
  fs::remove_all(folder, ignored);
  return unpacked;
}

}  // namespace hearth
