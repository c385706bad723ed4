// Everything a TorchScript model is loaded from: a program, and its weights where they lie apart.
#pragma once

#include <memory>
#include <vector>

#include "server/base/status.h"
#include "server/model/footprint.h"
#include "server/model/load_report.h"
#include "server/model/model_spec.h"
#include "server/storage/weights.h"
#include "server/torch_backend/script_archive.h"
#include "server/torch_backend/script_program.h"
#include "server/torch_backend/source_file.h"

namespace hearth {

// Opened and checked, nothing read but headers. Plain data: copies share the mappings.
struct ScriptSource {
  ScriptArchive program;
  Weights weights;                // empty: all of them are in the program's archive
  std::vector<SourceFile> files;  // each once, the program's first

  bool has_weights() const { return !weights.tensors.empty(); }
  std::uint64_t weight_bytes() const;   // of all tensors
  std::uint64_t copied_bytes() const;   // of those, in private memory
  std::uint64_t mapped_bytes() const;   // of the parts of files that hold the others
  std::uint64_t cached_bytes() const;   // of those parts, in the page cache when they were opened
  std::vector<Extent> extents() const;  // each mapped file
  // Whether all files are as they were opened: MappedFile::Intact().
  absl::Status Intact() const;
};

// Shards are opened in parallel.
absl::StatusOr<ScriptSource> OpenScriptSource(const ModelSpec& spec);

// The same files at other addresses, with none of the writes made to these mappings.
absl::StatusOr<ScriptSource> MapAgain(const ScriptSource& source);

// Binds all weights to the program, which is the one in the source's archive; fills the parse and bind
// phases of `report`.
absl::StatusOr<BoundModule> BindSource(ScriptProgram& program, const ScriptSource& source,
                                       LoadReport& report);

// Brings in the pages that hold weights.
absl::Status Populate(const ScriptSource& source, const std::stop_token& stop);

}  // namespace hearth
