// Files of tests/data/client, and temporary folders.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "absl/status/status.h"
#include "client/files.h"

namespace hearth::client {

inline std::string FixturePath(const std::string& name) {
  return std::string(HEARTH_SOURCE_DIR) + "/tests/data/client/" + name;
}

inline std::string Fixture(const std::string& name) {
  absl::StatusOr<std::string> content = ReadFile(FixturePath(name));
  EXPECT_TRUE(content.ok()) << content.status();
  return content.value_or("");
}

class TempDir {
 public:
  TempDir() {
    std::string pattern = testing::TempDir() + "/hearth_client_XXXXXX";
    path_ = mkdtemp(pattern.data());
  }
  ~TempDir() { std::filesystem::remove_all(path_); }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  std::string Path(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

inline std::string Message(const absl::Status& status) { return std::string(status.message()); }

}  // namespace hearth::client
