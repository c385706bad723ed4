#include "server/storage/mapped_file.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "server/base/unique_fd.h"
#include "tests/storage/files.h"

namespace hearth {
namespace {

namespace fs = std::filesystem;
using mapped_file_internal::PopulateByReading;
using ::testing::HasSubstr;
using testing_files::ReadFile;
using testing_files::TempDir;

absl::StatusCode OpenCode(const fs::path& path) { return MappedFile::Open(path).status().code(); }

std::string Content(std::size_t size) {
  std::string text(size, '\0');
  for (std::size_t i = 0; i < size; ++i) text[i] = static_cast<char>('a' + i % 23);
  return text;
}

void SetTime(const fs::path& path, long seconds) {
  const struct timespec times[2] = {{seconds, 0}, {seconds, 0}};
  ASSERT_EQ(::utimensat(AT_FDCWD, path.c_str(), times, 0), 0);
}

TEST(MappedFile, HasTheFilesBytes) {
  TempDir dir;
  const std::string text = Content(10000);
  const auto file = MappedFile::Open(dir.Write("a", text));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->size(), text.size());
  EXPECT_EQ(std::memcmp((*file)->bytes().data(), text.data(), text.size()), 0);
  struct stat st {};
  ASSERT_EQ(::stat((dir.path() / "a").c_str(), &st), 0);
  EXPECT_EQ((*file)->id().inode, st.st_ino);
  EXPECT_EQ((*file)->id().size, text.size());
  EXPECT_EQ((*file)->extent(64, 100), (Extent{(*file)->id(), 64, 100}));
}

TEST(MappedFile, WritesStayPrivate) {
  TempDir dir;
  const fs::path path = dir.Write("a", "hello");
  const auto file = MappedFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  const auto other = (*file)->MapAgain();
  ASSERT_TRUE(other.ok()) << other.status();
  (*file)->mutable_data()[0] = std::byte{'J'};
  EXPECT_EQ((*file)->bytes()[0], std::byte{'J'});
  EXPECT_EQ((*other)->bytes()[0], std::byte{'h'});
  EXPECT_EQ((*other)->id(), (*file)->id());
  EXPECT_EQ(ReadFile(path), "hello");
}

TEST(MappedFile, MapsFilesLargerThanMemory) {
  TempDir dir;
  const fs::path path = dir.Write("a", "x");
  std::error_code error;
  fs::resize_file(path, std::uintmax_t{1} << 38, error);  // sparse
  if (error) GTEST_SKIP() << "no sparse files here: " << error.message();
  const auto file = MappedFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->bytes()[0], std::byte{'x'});
}

TEST(MappedFile, FollowsSymbolicLinks) {
  TempDir dir;
  dir.Write("real/a", "hello");
  fs::create_directory_symlink(dir.path() / "real", dir.path() / "..data");
  fs::create_symlink(dir.path() / "..data/a", dir.path() / "a");
  const auto file = MappedFile::Open(dir.path() / "a");
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->size(), 5u);
}

TEST(MappedFile, AMissingFileIsNotFound) {
  TempDir dir;
  EXPECT_EQ(OpenCode(dir.path() / "none"), absl::StatusCode::kNotFound);
  dir.Write("a", "x");
  EXPECT_EQ(OpenCode(dir.path() / "a/b"), absl::StatusCode::kNotFound);
  fs::create_symlink(dir.path() / "none", dir.path() / "dangling");
  EXPECT_EQ(OpenCode(dir.path() / "dangling"), absl::StatusCode::kNotFound);
}

// In a process of its own, as nobody, for root may read everything.
TEST(MappedFileDeathTest, AnUnreadableFileIsPermissionDenied) {
  TempDir dir;
  const fs::path path = dir.Write("a", "x");
  fs::permissions(path, fs::perms::none);
  EXPECT_EXIT(
      {
        if (::geteuid() == 0 && ::seteuid(65534) != 0) ::_exit(2);
        ::_exit(OpenCode(path) == absl::StatusCode::kPermissionDenied ? 0 : 1);
      },
      ::testing::ExitedWithCode(0), "");
}

TEST(MappedFile, RefusesAFolder) {
  TempDir dir;
  const auto file = MappedFile::Open(dir.path());
  EXPECT_EQ(file.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(file.status().message()), HasSubstr("is a folder"));
}

TEST(MappedFile, RefusesAnEmptyFile) {
  TempDir dir;
  EXPECT_EQ(OpenCode(dir.Write("a", "")), absl::StatusCode::kInvalidArgument);
}

TEST(MappedFile, RefusesAFifoWithoutWaitingForIt) {
  TempDir dir;
  ASSERT_EQ(::mkfifo((dir.path() / "fifo").c_str(), 0600), 0);
  EXPECT_EQ(OpenCode(dir.path() / "fifo"), absl::StatusCode::kInvalidArgument);
}

TEST(MappedFile, RefusesADevice) {
  EXPECT_EQ(OpenCode("/dev/null"), absl::StatusCode::kInvalidArgument);
}

TEST(MappedFile, PopulateMapsThePages) {
  TempDir dir;
  const fs::path path = dir.Write("a", Content(40 << 20));  // more than two steps
  const auto file = MappedFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_TRUE((*file)->Populate(0, (*file)->size(), {}).ok());
  std::vector<unsigned char> resident((*file)->size() / 4096);
  ASSERT_EQ(::mincore((*file)->mutable_data(), (*file)->size(), resident.data()), 0);
  for (const unsigned char page : resident) ASSERT_EQ(page & 1, 1);
}

TEST(MappedFile, PopulateTakesAnyRange) {
  TempDir dir;
  const auto file = MappedFile::Open(dir.Write("a", Content(10000)));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_TRUE((*file)->Populate(4097, 1, {}).ok());
  EXPECT_TRUE((*file)->Populate(9999, 1 << 20, {}).ok());
  EXPECT_TRUE((*file)->Populate(1 << 20, 5, {}).ok());
  EXPECT_TRUE((*file)->Populate(UINT64_MAX, UINT64_MAX, {}).ok());
  EXPECT_TRUE((*file)->Populate(1, UINT64_MAX, {}).ok());
}

TEST(MappedFile, PopulateStopsWhenAsked) {
  TempDir dir;
  const auto file = MappedFile::Open(dir.Write("a", Content(10000)));
  ASSERT_TRUE(file.ok()) << file.status();
  std::stop_source source;
  source.request_stop();
  EXPECT_EQ((*file)->Populate(0, 10000, source.get_token()).code(), absl::StatusCode::kCancelled);
}

TEST(MappedFile, PopulateReportsATruncatedFile) {
  TempDir dir;
  const fs::path path = dir.Write("a", Content(100000));
  const auto file = MappedFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  fs::resize_file(path, 5000);
  EXPECT_EQ((*file)->Populate(0, 100000, {}).code(), absl::StatusCode::kDataLoss);
  EXPECT_FALSE((*file)->poisoned());  // nobody has read a zero yet
}

TEST(MappedFile, ReadingATruncatedFileGivesZerosAndPoisonsTheMapping) {
  TempDir dir;
  const fs::path path = dir.Write("a", Content(100000));
  const auto file = MappedFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  const auto other = MappedFile::Open(dir.Write("b", Content(100000)));
  ASSERT_TRUE(other.ok()) << other.status();
  fs::resize_file(path, 5000);
  EXPECT_EQ((*file)->bytes()[100], std::byte{'a' + 100 % 23});
  EXPECT_FALSE((*file)->poisoned());
  EXPECT_EQ((*file)->bytes()[99999], std::byte{0});
  EXPECT_TRUE((*file)->poisoned());
  EXPECT_FALSE((*other)->poisoned());
}

TEST(MappedFile, ReadingInsteadOfMappingFindsTheSameFaults) {
  TempDir dir;
  const fs::path path = dir.Write("a", Content(3 << 20));
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  ASSERT_TRUE(fd);
  EXPECT_TRUE(PopulateByReading(fd.get(), 4096, (3 << 20) - 4096, path, {}).ok());
  EXPECT_EQ(PopulateByReading(fd.get(), 0, (3 << 20) + 1, path, {}).code(),
            absl::StatusCode::kDataLoss);
  std::stop_source source;
  source.request_stop();
  EXPECT_EQ(PopulateByReading(fd.get(), 0, 4096, path, source.get_token()).code(),
            absl::StatusCode::kCancelled);
}

TEST(MappedFile, UnchangedTellsWhatHappenedToTheFile) {
  TempDir dir;
  const fs::path path = dir.Write("a", Content(5000));
  SetTime(path, 1000);
  const auto file = MappedFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_TRUE((*file)->Unchanged().ok());

  fs::rename(dir.Write("new", Content(5000)), path);
  EXPECT_EQ((*file)->Unchanged().code(), absl::StatusCode::kFailedPrecondition);
  fs::remove(path);
  EXPECT_EQ((*file)->Unchanged().code(), absl::StatusCode::kNotFound);
}

TEST(MappedFile, UnchangedNoticesWritesIntoTheFile) {
  TempDir dir;
  const fs::path path = dir.Write("a", Content(5000));
  SetTime(path, 1000);
  const auto file = MappedFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  dir.Write("a", Content(5000));
  EXPECT_EQ((*file)->Unchanged().code(), absl::StatusCode::kDataLoss);
  fs::resize_file(path, 10);
  EXPECT_THAT(std::string((*file)->Unchanged().message()), HasSubstr("from 5000 to 10 bytes"));
}

TEST(ReadSmallFile, ReadsUpToItsLimit) {
  TempDir dir;
  EXPECT_EQ(*ReadSmallFile(dir.Write("a", "12345"), 5), "12345");
  EXPECT_EQ(*ReadSmallFile(dir.Write("empty", ""), 5), "");
  EXPECT_EQ(ReadSmallFile(dir.path() / "a", 4).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReadSmallFile(dir.path() / "none", 4).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ReadSmallFile(dir.path(), 4).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace hearth
