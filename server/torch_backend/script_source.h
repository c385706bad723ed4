// Everything a TorchScript model is loaded from: a program, and its weights where they lie apart.
#pragma once

#include <memory>
#include <stop_token>
#include <vector>

#include "server/base/status.h"
#include "server/model/footprint.h"
#include "server/model/load_report.h"
#include "server/model/model_spec.h"
#include "server/storage/mapped_files.h"
#include "server/storage/weights.h"
#include "server/torch_backend/script_archive.h"
#include "server/torch_backend/script_program.h"

namespace hearth {

// One file of a source, and the parts of it that are mapped as weights: ascending, with gaps of a page at
// least between them.
struct SourceFile {
  std::shared_ptr<const MappedFile> file;
  std::vector<ByteRange> ranges = {};
};

// Opened and checked, nothing read but headers. Plain data: copies share the mappings.
struct ScriptSource {
  ScriptArchive program;
  Weights weights;                // empty: all of them are in the program's archive
  std::vector<SourceFile> files;  // each once, the program's first; not those whose weights are all elsewhere

  bool has_weights() const { return !weights.tensors.empty(); }
  std::uint64_t weight_bytes() const;   // of all tensors
  std::uint64_t copied_bytes() const;   // of those, in private memory
  std::uint64_t mapped_bytes() const;   // of the parts of files that hold the others
  std::vector<Extent> extents() const;  // the program's file, and those parts of others
  // Whether all files are as they were opened: MappedFile::Intact().
  absl::Status Intact() const;
  // Whether somebody has written to one of the mappings: MappedFile::written().
  bool written() const;
};

// Shards are opened in parallel. What `files` has mapped already is used where it lies, be it the same
// file or weights of the same checksum.
absl::StatusOr<ScriptSource> OpenScriptSource(const ModelSpec& spec, MappedFiles& files, MappedFiles::Own own);

// The same files with none of the writes made to these mappings: shared ones of `files`, or with null
// ones of one's own.
absl::StatusOr<ScriptSource> MapAgain(const ScriptSource& source, MappedFiles* files);

// A model's use of its mapped weights: while it lasts their pages stay, with the last one they go, whoever
// else keeps the mapping. Move-only.
class SourceUse {
 public:
  SourceUse() = default;  // of nothing
  explicit SourceUse(const ScriptSource& source);

  std::uint64_t shared_bytes() const { return shared_bytes_; }  // that others used already
  // In the page cache when the use began; what others used counts.
  std::uint64_t cached_bytes() const { return cached_bytes_; }
  std::uint64_t first_bytes() const { return first_bytes_; }  // that nobody else used

  // Brings in the pages that nobody else used: the others were brought in by whoever was first.
  absl::Status Populate(const std::stop_token& stop) const;

 private:
  std::vector<MappedFile::Use> parts_;
  std::uint64_t shared_bytes_ = 0, cached_bytes_ = 0, first_bytes_ = 0;
};

// Binds all weights to the program, which is the one in the source's archive; fills the parse and bind
// phases of `report`.
absl::StatusOr<BoundModule> BindSource(ScriptProgram& program, const ScriptSource& source,
                                       LoadReport& report);

}  // namespace hearth
