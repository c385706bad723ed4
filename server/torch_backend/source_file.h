// The files that a model is loaded from, and what of them is mapped.
#pragma once

#include <cstdint>
#include <memory>
#include <stop_token>
#include <thread>
#include <vector>

#include "server/base/status.h"
#include "server/model/footprint.h"
#include "server/model/load_report.h"
#include "server/model/model_spec.h"
#include "server/storage/mapped_file.h"
#include "server/storage/mapped_files.h"
#include "server/storage/weights.h"
#include "server/storage/weights_file.h"

namespace hearth {

// One file of a source, and the parts of it that are mapped as weights: ascending, with gaps of a page at
// least between them.
struct SourceFile {
  std::shared_ptr<const MappedFile> file;
  std::vector<ByteRange> ranges = {};

  std::uint64_t mapped() const;
};

// Adds the files that hold `weights`, each once.
void AddFilesOf(const Weights& weights, std::vector<SourceFile>& files);

std::uint64_t MappedBytes(const std::vector<SourceFile>& files);
std::uint64_t FileBytes(const std::vector<SourceFile>& files);  // of whole files
std::vector<Extent> Extents(const SourceFile& file);
// Whether all files are as they were opened: MappedFile::Intact().
absl::Status Intact(const std::vector<SourceFile>& files);
// Whether somebody has written to one of the mappings: MappedFile::written().
bool Written(const std::vector<SourceFile>& files);
bool AnyIs(const std::vector<SourceFile>& files, const FileId& id);
// Whether what was found in the files when they were opened may be relied on still: MappedFile::Unchanged(), and
// nobody has written to them.
bool AsOpened(const std::vector<SourceFile>& files);

// A model's use of its mapped weights: while it lasts their pages stay, with the last one they go, whoever
// else keeps the mapping. Move-only.
class SourceUse {
 public:
  SourceUse() = default;  // of nothing
  explicit SourceUse(const std::vector<SourceFile>& files);

  std::uint64_t shared_bytes() const { return shared_bytes_; }  // that others used already
  // In the page cache when the use began; what others used counts.
  std::uint64_t cached_bytes() const { return cached_bytes_; }
  std::uint64_t first_bytes() const { return first_bytes_; }  // that nobody else used
  bool cold() const { return cached_bytes_ < first_bytes_ + shared_bytes_; }

  // What was found when the use began. Of sealed copies nothing is the page cache's or others'.
  void Report(bool sealed, LoadReport& report) const;

  // Brings in the pages that nobody else used: the others were brought in by whoever was first.
  absl::Status Populate(const std::stop_token& stop) const;

  // Keeps in memory what is there and what comes there: all of it or, with a warning in the log, nothing.
  void Lock();
  bool locked() const { return locked_; }

 private:
  std::vector<MappedFile::Use> parts_;
  std::uint64_t shared_bytes_ = 0, cached_bytes_ = 0, first_bytes_ = 0;
  bool locked_ = false;
};

// While it lasts, a thread of its own brings in what is not in the page cache, ahead of somebody who copies it
// elsewhere. Does nothing where all of it is there.
class PagesAhead {
 public:
  explicit PagesAhead(const SourceUse& use);

 private:
  std::jthread thread_;  // its end stops it
};

// Where a model's weights are to be. `populate`: what is to be done for those that do not say.
Residency ResidencyOf(const ModelOptions& options, bool populate);

// Has the disk begin with the weights beside a program, so that it works while the program is opened and parsed.
// What is wrong with them is said by whoever opens them then. The mappings are for keeping until that has happened.
[[nodiscard]] std::vector<MappedFiles::FilePtr> BeginReading(const ModelSpec& spec, bool populate, MappedFiles& files);

// Opens a model's files: for all who have them mapped or, sealed, as copies of its own.
OpenWeights Opener(MappedFiles& files, bool sealed, std::stop_token stop);

// Puts mapped weights where they are to be; fills the populate phase of `report`, and its locked_bytes.
absl::Status MakeResident(SourceUse& use, Residency residency, const std::stop_token& stop, LoadReport& report);

}  // namespace hearth
