// Files for tests: a folder of one's own, and the committed ones in tests/data.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <cstddef>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

namespace hearth::testing_files {

// Removed with everything in it at the end.
class TempDir {
 public:
  TempDir() {
    std::string name = ::testing::TempDir() + "/hearth_storage_XXXXXX";
    if (::mkdtemp(name.data()) == nullptr) ADD_FAILURE() << "no temporary folder";
    path_ = name;
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  const std::filesystem::path& path() const { return path_; }

  // Makes the folders above it. Returns its path.
  std::filesystem::path Write(const std::filesystem::path& name, std::string_view content) const {
    const std::filesystem::path file = path_ / name;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file, std::ios::binary) << content;
    return file;
  }

 private:
  std::filesystem::path path_;
};

inline std::vector<std::byte> ToBytes(std::string_view text) {
  const auto* begin = reinterpret_cast<const std::byte*>(text.data());
  return {begin, begin + text.size()};
}

inline std::string ReadFile(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in.good()) << path;
  return {std::istreambuf_iterator<char>(in), {}};
}

// A file of tests/data.
inline std::filesystem::path DataPath(std::string_view name) {
  return std::filesystem::path(HEARTH_SOURCE_DIR) / "tests/data" / name;
}

inline std::vector<std::byte> ReadData(std::string_view name) {
  return ToBytes(ReadFile(DataPath(name)));
}

}  // namespace hearth::testing_files
