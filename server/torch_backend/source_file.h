// The files that a model is loaded from, and what of them is mapped.
#pragma once

#include <cstdint>
#include <memory>
#include <stop_token>
#include <vector>

#include "server/base/status.h"
#include "server/storage/mapped_file.h"
#include "server/storage/weights.h"

namespace hearth {

// One file of a source, and the part of it that is mapped as weights: [begin, end), empty if none is.
struct SourceFile {
  std::shared_ptr<const MappedFile> file;
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  std::uint64_t cached = 0;  // bytes of that part that were in the page cache when it was opened

  std::uint64_t mapped() const { return end - begin; }
};

// Adds the files that hold `weights`, each once.
void AddFilesOf(const Weights& weights, std::vector<SourceFile>& files);

std::uint64_t MappedBytes(const std::vector<SourceFile>& files);
std::uint64_t CachedBytes(const std::vector<SourceFile>& files);

// Brings in the pages that hold weights.
absl::Status Populate(const std::vector<SourceFile>& files, const std::stop_token& stop);

}  // namespace hearth
