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
#include "server/torch_backend/device.h"
#include "server/torch_backend/script_archive.h"
#include "server/torch_backend/script_program.h"
#include "server/torch_backend/source_file.h"

namespace hearth {

// Opened and checked, nothing read but headers. Plain data: copies share the mappings.
struct ScriptSource {
  ScriptArchive program;
  Weights weights;
  bool has_weights = false;       // in files of their own, even if those are empty: `weights`, not the program's
  std::vector<SourceFile> files;  // each once, the program's first; not those whose weights are all elsewhere
  bool sealed = false;            // or to be: copies of the files in memory, and no extents of them

  std::uint64_t weight_bytes() const;   // of all tensors
  std::uint64_t copied_bytes() const;   // of those, in private memory
  std::uint64_t mapped_bytes() const { return MappedBytes(files); }  // of the parts of files that hold the others
  std::uint64_t sealed_bytes() const;   // of whole files
  std::vector<Extent> extents() const;  // the program's file, and those parts of others
  absl::Status Intact() const { return hearth::Intact(files); }
  bool written() const { return Written(files); }
};

// Shards are opened in parallel. A file that `files` has mapped already is used where it lies. With residency: sealed
// the files are copied, if `seal` says that it is time for that: not for an estimate.
absl::StatusOr<ScriptSource> OpenScriptSource(const ModelSpec& spec, MappedFiles& files, bool seal,
                                              std::stop_token stop = {});

// The same with its weights where others have mapped the same: files.Share(). What is sealed is shared with nobody.
ScriptSource Shared(ScriptSource source, MappedFiles& files, MappedFiles::Own own);

// The same files with none of the writes made to these mappings: shared ones of `files`, or with null
// ones of one's own.
absl::StatusOr<ScriptSource> MapAgain(const ScriptSource& source, MappedFiles* files);

// Binds all weights to the program, which is the one in the source's archive; fills the parse, bind and to_device
// phases of `report`. CANCELLED soon after `stop`.
absl::StatusOr<BoundModule> BindSource(ScriptProgram& program, const ScriptSource& source, Device& device,
                                       LoadReport& report, const std::stop_token& stop = {});

}  // namespace hearth
