#include "server/storage/revision.h"

#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <string>
#include <system_error>

#include "absl/hash/hash.h"

namespace hearth {
namespace {

namespace fs = std::filesystem;

std::uint64_t StampOf(const fs::path& path) {
  struct stat st{};
  if (::stat(path.c_str(), &st) != 0) return 0;
  return absl::HashOf(path.native(), st.st_dev, st.st_ino, st.st_size, st.st_mtim.tv_sec, st.st_mtim.tv_nsec,
                      st.st_ctim.tv_sec, st.st_ctim.tv_nsec);
}

template <typename Visit>
void ForAll(const fs::path& root, const Visit& visit) {
  visit(root);
  std::error_code error;
  fs::recursive_directory_iterator at(root, fs::directory_options::skip_permission_denied, error);
  for (; !error && at != fs::recursive_directory_iterator(); at.increment(error)) visit(at->path());
}

// A sum, so that the order in which a folder lists its files does not matter.
std::uint64_t StampOfAll(const fs::path& root) {
  std::uint64_t sum = 0;
  ForAll(root, [&](const fs::path& path) { sum += StampOf(path); });
  return sum;
}

}  // namespace

WallTime LastWrite(const fs::path& path) {
  WallTime last{};
  ForAll(path, [&](const fs::path& at) {
    struct stat st{};
    if (::stat(at.c_str(), &st) != 0) return;
    const auto written = std::chrono::seconds(st.st_mtim.tv_sec) + std::chrono::nanoseconds(st.st_mtim.tv_nsec);
    last = std::max(last, WallTime(std::chrono::duration_cast<WallTime::duration>(written)));
  });
  return last;
}

std::uint64_t RevisionOf(const ModelSpec& spec) {
  const fs::path version = spec.file.parent_path();
  const fs::path folder = version.parent_path();
  const bool has_folder = version.filename() == std::to_string(spec.id.version) && folder.filename() == spec.id.name;
  if (!has_folder) return StampOfAll(spec.file);
  std::uint64_t sum = StampOfAll(version) + StampOf(folder / "model.yaml") + StampOf(folder / "config.pbtxt");
  for (const auto& [output, classes] : spec.options.class_names) sum += StampOf(folder / classes.file);
  return sum;
}

}  // namespace hearth
