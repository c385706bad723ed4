// An AOTInductor package: compiled code, as torch._inductor.aoti_compile_and_package writes it.
//
//   <package>.pt2          the archive (a zip file)
//   <package>.pt2/         the same, unpacked, as `hearth pack` writes it
//     data/aotinductor/model/<hash>.wrapper.so
//     data/aotinductor/model/<hash>.wrapper_metadata.json
//
// torch.export.save writes `.pt2` archives too, with a graph and no code: refused, with what to do.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "server/base/status.h"
#include "server/storage/aoti_metadata.h"
#include "server/storage/archive.h"
#include "server/storage/mapped_file.h"

namespace hearth {

// Opened and checked; nothing but the metadata was read. Immutable, so thread-safe.
class AotiPackage {
 public:
  // One of the files that loading needs: the sources of the code are left out.
  struct File {
    std::string name;  // from the root: "data/aotinductor/model/c2lly.wrapper.so"; relative, without ".."
    std::uint64_t size = 0;
  };
  // A file's bytes, and what keeps them.
  struct Content {
    std::span<const std::byte> bytes;
    std::shared_ptr<const void> owner;
  };

  // NOT_FOUND, PERMISSION_DENIED; INVALID_ARGUMENT for what is no package. The text names the file.
  static absl::StatusOr<AotiPackage> Open(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return path_; }
  bool is_directory() const { return archive_ == std::nullopt; }
  const std::filesystem::path& root() const { return root_; }  // of a directory: where data/ lies
  const std::string& model() const { return model_; }          // a package may hold several; ours
  const std::vector<File>& files() const { return files_; }    // by name
  const File& library() const { return files_[library_]; }
  const AotiMetadata& metadata() const { return metadata_; }
  bool has_metadata() const { return has_metadata_; }
  // The generation that was seen, for asking whether it is still the same.
  const std::vector<FileId>& ids() const { return ids_; }

  // REQUIRES: `file` is one of files().
  absl::StatusOr<Content> Read(const File& file) const;

 private:
  AotiPackage() = default;
  absl::Status ListDirectory();
  absl::Status ListArchive();
  absl::Status Choose();
  absl::Status ReadMetadata();

  std::filesystem::path path_, root_;
  std::shared_ptr<const MappedFile> file_;  // of an archive
  std::optional<Archive> archive_;
  std::string folder_;  // of the archive's names, before "data/"
  std::string model_;
  std::vector<File> files_;
  std::size_t library_ = 0;
  AotiMetadata metadata_;
  bool has_metadata_ = false;
  std::vector<FileId> ids_;
};

}  // namespace hearth
