// A TorchScript archive, mapped and checked; nothing of it has been run.
#pragma once

#include <filesystem>
#include <memory>

#include "server/base/status.h"
#include "server/storage/archive.h"
#include "server/storage/mapped_file.h"
#include "server/storage/torchscript_archive.h"

namespace hearth {

// An archive that is safe to hand to LibTorch: its zip structure holds, and its pickles have passed the
// walk that compares storages with records and views with storages (LibTorch does neither).
struct ScriptArchive {
  std::shared_ptr<const MappedFile> file;
  Archive archive;
  TorchScriptContents contents;

  // Bytes of tensor records that will be mapped, and that must be copied.
  std::uint64_t mapped_bytes = 0;
  std::uint64_t copied_bytes = 0;
  std::uint64_t code_bytes = 0;   // of code/**.py, inflated
  // The part of the file that holds mapped tensors: [populate_begin, populate_end).
  std::uint64_t populate_begin = 0;
  std::uint64_t populate_end = 0;
};

// Reads headers and pickles only. INVALID_ARGUMENT says what the file is instead, if that can be told.
absl::StatusOr<ScriptArchive> OpenScriptArchive(const std::filesystem::path& path);
absl::StatusOr<ScriptArchive> OpenScriptArchive(std::shared_ptr<const MappedFile> file);

}  // namespace hearth
