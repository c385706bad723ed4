// Reader of HDF5 files, as h5py writes them: data sets become tensors, groups become dots.
//
// libhdf5 does not survive hostile files and has one lock for everything, so it is not linked here.
// A program of its own, hearth-hdf5-list (server/tools/hdf5_list.cc), lives for one file under narrow
// limits and lists what lies where. Its list is trusted as little as the file: every number is checked
// here. Contiguous data sets are mapped; chunks, plain or through gzip and shuffle, are unpacked by
// hdf5_chunks.h, on as many threads as there are data sets.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "server/base/clock.h"
#include "server/base/status.h"
#include "server/storage/weights.h"

namespace hearth {

// Whether it begins as such a file does.
bool LooksLikeHdf5(std::span<const std::byte> file);

// INVALID_ARGUMENT, with the first data set that cannot be read and why; the text continues a sentence
// that begins with the file's name. FAILED_PRECONDITION: the lister is not installed.
absl::StatusOr<Weights> ReadHdf5(const std::shared_ptr<const MappedFile>& file,
                                 const std::filesystem::path& lister);

// hearth-hdf5-list beside the program that runs.
std::filesystem::path Hdf5ListerBesideProgram();

namespace hdf5_internal {

struct ListerLimits {
  Duration time = std::chrono::seconds(60);  // a slow disk's; its time on the CPU is limited by itself
  std::size_t bytes = 64 << 20;              // some two million chunks
};

// What the lister says about the file behind `descriptor`. It has ended when this returns.
absl::StatusOr<std::string> RunLister(const std::filesystem::path& lister, int descriptor,
                                      const ListerLimits& limits);

// Storages have no file; those to be unpacked refer to `file`. For tests and fuzzing.
absl::StatusOr<Weights> ParseListing(std::string_view listing, std::span<const std::byte> file);

}  // namespace hdf5_internal
}  // namespace hearth
