// A mapped file read in the ordinary way: without touching the mapping, or this process's memory map.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>

#include "server/base/status.h"
#include "server/base/unique_fd.h"
#include "server/model/footprint.h"
#include "server/storage/mapped_file.h"

namespace hearth {

// The same file, whatever its path leads to by now; keeps no mapping. Thread-safe.
class FileReader {
 public:
  static absl::StatusOr<std::shared_ptr<const FileReader>> Of(const MappedFile& file);

  // Fills `out`. DATA_LOSS when the file has become shorter or cannot be read.
  absl::Status Read(std::uint64_t offset, std::span<std::byte> out) const;

  // Whether it is as it was when it was mapped, by its size and the time of its last change.
  bool Intact() const;

  const std::filesystem::path& path() const { return path_; }
  const FileId& id() const { return id_; }

 private:
  FileReader(UniqueFd fd, std::filesystem::path path, FileId id);

  const UniqueFd fd_;
  const std::filesystem::path path_;
  const FileId id_;
};

}  // namespace hearth
