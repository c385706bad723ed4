// The files that a model is loaded from, and what of them is mapped.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <thread>
#include <utility>
#include <vector>

#include "server/base/status.h"
#include "server/model/footprint.h"
#include "server/model/load_report.h"
#include "server/model/model_spec.h"
#include "server/model/rest.h"
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

  // Pages that nobody else used: the others were brought in by whoever was first.
  class FirstPages {
   public:
    // REQUIRES: the use they are of lasts; it may be moved.
    absl::Status Populate(const std::stop_token& stop) const;

   private:
    friend class SourceUse;
    std::vector<std::pair<const MappedFile*, ByteRange>> ranges_;
    bool cold_ = false;
  };
  FirstPages first_pages() const;

  // Keeps in memory what is there and what comes there: all of it or, with a warning in the log, nothing.
  void Lock();
  bool locked() const { return locked_; }

 private:
  std::vector<MappedFile::Use> parts_;
  std::uint64_t shared_bytes_ = 0, cached_bytes_ = 0, first_bytes_ = 0;
  bool locked_ = false;
};

// The pages of a model that is not there: brought in, and used until what it returns is gone. As Rest::Hold.
absl::StatusOr<std::unique_ptr<const Rest::Pages>> HoldPages(const std::vector<SourceFile>& files,
                                                             const std::stop_token& stop);

// What a load of a model has opened, and what may stay of it. `Source`: has `files` and extents().
template <typename Source>
class Opened final : public Rest {
 public:
  explicit Opened(Source opened) : source(std::move(opened)) { footprint_.extents = source.extents(); }

  const Footprint& footprint() const override { return footprint_; }
  absl::StatusOr<std::unique_ptr<const Pages>> Hold(std::stop_token stop) const override {
    return HoldPages(source.files, stop);
  }

  const Source source;
  std::optional<Source> shared;  // for the estimate counts on what others have mapped of it
  LoadReport report;             // of opening them

 private:
  Footprint footprint_;
};

// While it lasts, a thread of its own brings in a use's pages, and its load goes on meanwhile. It lasts no longer than
// the use, which may be moved. Confined to a thread.
class PagesAhead {
 public:
  enum class Which {
    kNone,
    kCold,  // where some are not in the page cache, for somebody who copies them elsewhere
    kAll,   // for Wait(), they are to stay; which brings them in itself where they are many
  };
  PagesAhead(const SourceUse& use, Which which, const std::stop_token& stop);
  ~PagesAhead() { stop_.request_stop(); }
  PagesAhead(const PagesAhead&) = delete;
  PagesAhead& operator=(const PagesAhead&) = delete;

  // Until all are there. The first error, or CANCELLED.
  absl::Status Wait();

 private:
  absl::Status Populate() const { return pages_.Populate(stop_.get_token()); }

  SourceUse::FirstPages pages_;
  std::stop_source stop_;
  std::stop_callback<std::function<void()>> load_stopped_;
  absl::Status status_;     // of the thread, to be read when it has ended
  bool is_left_ = false;    // to Wait(): they are many, or there was no thread to be had
  std::jthread thread_;
};

// Where a model's weights are to be. `populate`: what is to be done for those that do not say.
Residency ResidencyOf(const ModelOptions& options, bool populate);

// Has the disk begin with the weights beside a program, so that it works while the program is opened and parsed.
// What is wrong with them is said by whoever opens them then. The mappings are for keeping until that has happened.
[[nodiscard]] std::vector<MappedFiles::FilePtr> BeginReading(const ModelSpec& spec, bool populate, MappedFiles& files);

// Opens a model's files: for all who have them mapped or, sealed, as copies of its own.
OpenWeights Opener(MappedFiles& files, bool sealed, std::stop_token stop);

// For a model on the host.
inline PagesAhead::Which PagesOf(Residency residency) {
  return residency == Residency::kMapped ? PagesAhead::Which::kNone : PagesAhead::Which::kAll;
}

// Leaves mapped weights where they are to be, once `pages`, PagesOf() the same residency, are there; fills the populate
// phase of `report` with what is left of that, and its locked_bytes.
absl::Status MakeResident(SourceUse& use, PagesAhead& pages, Residency residency, LoadReport& report);

}  // namespace hearth
