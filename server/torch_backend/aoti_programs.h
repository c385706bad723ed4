// AOTInductor programs: native code, which stays in the process once it is there.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "server/base/mutex.h"
#include "server/base/status.h"
#include "server/storage/aoti_package.h"

namespace hearth {

// One program. Its library is never unloaded: OpenMP's threads, thread-local destructors and pointers
// that LibTorch keeps would lead into code that is gone. Immutable.
struct AotiProgram {
  std::filesystem::path directory;  // for AOTIModelPackageLoader; leads to the same files for ever
  std::string model;                // the program's name in the package
  std::string library_file;         // below `directory`
  void* library = nullptr;          // dlopen's
  bool unpacked = false;            // `directory` is ours

  // One of the library's functions; null: it has none of that name.
  void* Symbol(const char* name) const;
};

// All programs by their content, so that any number of models, each with weights of its own, run the
// same code, and 10,000 loads of one package open it once.
//
// An archive is unpacked into a private folder below `temporary`, which is removed with this object. A
// directory is used where it lies, through a descriptor that stays open: its path may lead elsewhere
// tomorrow, and the dynamic linker knows libraries by their paths.
//
// Thread-safe.
class AotiPrograms {
 public:
  // Empty: TMPDIR, or /tmp.
  explicit AotiPrograms(std::filesystem::path temporary = {});
  ~AotiPrograms();
  AotiPrograms(const AotiPrograms&) = delete;
  AotiPrograms& operator=(const AotiPrograms&) = delete;

  struct Found {
    std::shared_ptr<const AotiProgram> program;
    bool kept = false;  // it was there already
  };
  // FAILED_PRECONDITION: code cannot be run from there, or a library that runs was written over.
  // INVALID_ARGUMENT: the dynamic linker refuses it. REQUIRES: CheckMachine() has passed the package.
  absl::StatusOr<Found> Find(const AotiPackage& package) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  struct Entry {
    std::shared_ptr<const AotiProgram> program;
    FileId library;  // as it was when it was opened
  };

  absl::StatusOr<std::string> KeyOf(const AotiPackage& package) ABSL_LOCKS_EXCLUDED(mu_);
  absl::StatusOr<std::shared_ptr<const AotiProgram>> Open(const AotiPackage& package) const;
  absl::StatusOr<std::filesystem::path> Unpack(const AotiPackage& package) const;

  const std::filesystem::path temporary_;
  Mutex mu_;
  std::map<std::string, Entry> programs_ ABSL_GUARDED_BY(mu_);
  // What a generation of files hashed to: hashing takes a second for every gigabyte.
  std::map<std::vector<FileId>, std::string> keys_ ABSL_GUARDED_BY(mu_);
  std::map<std::pair<std::uint64_t, std::uint64_t>, std::string> key_of_inode_ ABSL_GUARDED_BY(mu_);
};

}  // namespace hearth
