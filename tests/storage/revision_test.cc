#include "server/storage/revision.h"

#include <gtest/gtest.h>

#include <functional>

#include "tests/storage/files.h"

namespace hearth {
namespace {

namespace fs = std::filesystem;
using testing_files::TempDir;

class Revision : public testing::Test {
 protected:
  // Of the model "net" version 1, whose program is the file of that name in the folder.
  std::uint64_t Of(const fs::path& file) const {
    return RevisionOf({.id = {"net", 1}, .format = "torchscript", .file = dir_.path() / file, .options = {}});
  }
  void Replace(const fs::path& file, std::string_view content) const {
    fs::rename(dir_.Write("new.tmp", content), dir_.path() / file);
  }
  const TempDir dir_;
};

TEST_F(Revision, StaysWhileNothingIsTouched) {
  dir_.Write("net/1/model.pt", "x");
  dir_.Write("net/model.yaml", "");
  const std::uint64_t first = Of("net/1/model.pt");
  testing_files::ReadFile(dir_.path() / "net/1/model.pt");
  EXPECT_EQ(Of("net/1/model.pt"), first);
}

TEST_F(Revision, ChangesWithEveryFileOfTheVersionAndItsModelYaml) {
  dir_.Write("net/1/program.pt", "x");
  dir_.Write("net/1/model.index.json", "{}");
  dir_.Write("net/1/shard-1.safetensors", "x");
  const std::function<void()> changes[] = {
      [&] { Replace("net/1/program.pt", "y"); },
      [&] { Replace("net/1/shard-1.safetensors", "y"); },  // which only the index names
      [&] { dir_.Write("net/1/shard-1.safetensors", "longer"); },
      [&] { dir_.Write("net/1/shard-2.safetensors", "x"); },
      [&] { fs::remove(dir_.path() / "net/1/shard-2.safetensors"); },
      [&] { dir_.Write("net/model.yaml", "method: run\n"); },
      [&] { Replace("net/model.yaml", "method: act\n"); },
      [&] { fs::remove(dir_.path() / "net/model.yaml"); },
      [&] { dir_.Write("net/config.pbtxt", "max_batch_size: 1"); },
      [&] { Replace("net/config.pbtxt", "max_batch_size: 2"); },
  };
  std::uint64_t before = Of("net/1/program.pt");
  for (std::size_t i = 0; i < std::size(changes); ++i) {
    changes[i]();
    const std::uint64_t after = Of("net/1/program.pt");
    EXPECT_NE(after, before) << "change " << i;
    before = after;
  }
}

TEST_F(Revision, IsNotAffectedByOtherVersions) {
  dir_.Write("net/1/model.pt", "x");
  const std::uint64_t before = Of("net/1/model.pt");
  dir_.Write("net/2/model.pt", "x");
  dir_.Write("other.pt", "x");
  EXPECT_EQ(Of("net/1/model.pt"), before);
}

TEST_F(Revision, LooksIntoAnUnpackedPackage) {
  const fs::path library = "net.pt2/data/aotinductor/model/a.so";
  dir_.Write(library, "x");
  const std::uint64_t before = Of("net.pt2");
  Replace(library, "y");
  EXPECT_NE(Of("net.pt2"), before);
}

TEST_F(Revision, IsNotFooledByATimeSetBack) {
  const fs::path file = dir_.Write("net.pt", "one");
  const auto time = fs::last_write_time(file);
  const std::uint64_t before = Of("net.pt");
  Replace("net.pt", "two");
  fs::last_write_time(file, time);
  EXPECT_NE(Of("net.pt"), before);
}

TEST_F(Revision, OfNothingIsOneToo) { EXPECT_EQ(Of("net/1/model.pt"), Of("net/1/model.pt")); }

}  // namespace
}  // namespace hearth
