// From a mapped TorchScript archive to a module whose weights are the mapping.
//
// torch::jit::load copies every tensor. Here the archive's pickles go through LibTorch's public
// Unpickler with a read_record callback that hands out addresses inside the mapping, and its code
// through SourceImporter; only what cannot be mapped is copied: a record that is compressed, or not
// aligned to 64 bytes (kernels round differently on less, and answers would not stay bit-identical).
#pragma once

#include <filesystem>
#include <memory>
#include <vector>

#include "server/base/status.h"
#include "server/model/load_report.h"
#include "server/storage/archive.h"
#include "server/storage/mapped_file.h"
#include "server/storage/torchscript_archive.h"
#include "server/torch_backend/torch_headers.h"

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

struct BoundModule {
  torch::jit::Module module;
  std::vector<at::IValue> constants;  // what the program's graphs refer to
};

// Parses the program and binds the weights; fills the parse and bind phases of `report`. Tensors are
// ordinary ones (created outside InferenceMode), so in-place writes count in their version.
absl::StatusOr<BoundModule> BindScript(const ScriptArchive& archive, LoadReport& report);

}  // namespace hearth
