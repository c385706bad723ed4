#include "server/storage/mapped_file.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/magic.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <thread>
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
  const auto other = (*file)->MapAgain(MappedFile::Access::kOwn);
  ASSERT_TRUE(other.ok()) << other.status();
  (*file)->mutable_data()[0] = std::byte{'J'};
  EXPECT_EQ((*file)->bytes()[0], std::byte{'J'});
  EXPECT_EQ((*other)->bytes()[0], std::byte{'h'});
  EXPECT_EQ((*other)->id(), (*file)->id());
  EXPECT_EQ(ReadFile(path), "hello");
}

TEST(MappedFile, AWriteToASharedMappingIsToldAndOneToAnOwnMappingIsNot) {
  TempDir dir;
  const auto file = MappedFile::Open(dir.Write("a", Content(100000)));
  ASSERT_TRUE(file.ok()) << file.status();
  const auto shared = *(*file)->MapAgain(MappedFile::Access::kShared);
  const auto own = *(*file)->MapAgain(MappedFile::Access::kOwn);
  own->mutable_data()[5000] = std::byte{1};
  EXPECT_FALSE(own->written());
  EXPECT_FALSE((*file)->written());
  (*file)->mutable_data()[50000] = std::byte{2};
  (*file)->mutable_data()[99999] = std::byte{3};
  EXPECT_TRUE((*file)->written());
  EXPECT_EQ((*file)->bytes()[50000], std::byte{2});
  EXPECT_EQ((*file)->bytes()[99999], std::byte{3});
  EXPECT_EQ((*file)->bytes()[49999], std::byte{'a' + 49999 % 23});
  EXPECT_FALSE(shared->written());
  EXPECT_EQ(shared->bytes()[50000], std::byte{'a' + 50000 % 23});
  EXPECT_TRUE((*file)->Intact().ok()) << "the file itself is as it was";
}

// Many at once: each write lands, and whoever reads one finds the mapping marked.
TEST(MappedFile, WhoeverSeesAWrittenByteSeesTheMark) {
  TempDir dir;
  const fs::path path = dir.Write("a", Content(64 * 4096));
  for (int attempt = 0; attempt < 50; ++attempt) {
    const auto file = *MappedFile::Open(path);
    std::atomic<int> wrong{0};
    std::vector<std::jthread> threads;
    for (int t = 0; t < 3; ++t) {
      threads.emplace_back([&, t] {
        auto* at = reinterpret_cast<char*>(file->mutable_data() + (20 * t + 1) * 4096);
        std::atomic_ref<char>(*at).store('Z', std::memory_order_relaxed);
      });
      threads.emplace_back([&, t] {
        auto* at = reinterpret_cast<char*>(file->mutable_data() + (20 * t + 1) * 4096);
        for (int i = 0; i < 2000; ++i) {
          if (std::atomic_ref<char>(*at).load(std::memory_order_acquire) != 'Z') continue;
          if (!file->written()) ++wrong;
          break;
        }
      });
    }
    threads.clear();
    ASSERT_EQ(wrong, 0);
    for (int t = 0; t < 3; ++t) ASSERT_EQ(file->bytes()[(20 * t + 1) * 4096], std::byte{'Z'});
  }
}

TEST(MappedFileDeathTest, AWriteElsewhereIsFatalAsBefore) {
  TempDir dir;
  const auto file = *MappedFile::Open(dir.Write("a", Content(5000)));
  void* page = ::mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(page, MAP_FAILED);
  file->mutable_data()[0] = std::byte{1};
  ASSERT_TRUE(file->written());
  EXPECT_DEATH(*static_cast<volatile char*>(page) = 1, "");
  ::munmap(page, 4096);
}

// A handler that was there first, as a sanitizer's is, still hears of faults that are none of ours.
TEST(MappedFileDeathTest, AFaultElsewhereGoesToTheHandlerThatWasThere) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");  // a process in which nothing is mapped yet
  EXPECT_EXIT(
      {
        struct sigaction action {};
        action.sa_handler = [](int) { ::_exit(42); };
        if (::sigaction(SIGSEGV, &action, nullptr) != 0) ::_exit(1);
        TempDir dir;
        const auto file = *MappedFile::Open(dir.Write("a", Content(5000)));
        file->mutable_data()[0] = std::byte{1};
        if (!file->written()) ::_exit(2);
        void* page = ::mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        *static_cast<volatile char*>(page) = 1;
      },
      ::testing::ExitedWithCode(42), "");
}

// Pages of the mapping that stand in this process's page tables.
std::size_t PresentPages(const MappedFile& file) {
  const UniqueFd fd(::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
  std::vector<std::uint64_t> entries((file.size() + 4095) / 4096);
  const auto first = reinterpret_cast<std::uintptr_t>(file.bytes().data()) / 4096;
  const auto size = static_cast<::ssize_t>(entries.size() * sizeof entries[0]);
  EXPECT_EQ(::pread(fd.get(), entries.data(), entries.size() * sizeof entries[0],
                    static_cast<::off_t>(first * sizeof entries[0])),
            size);
  return static_cast<std::size_t>(
      std::count_if(entries.begin(), entries.end(), [](std::uint64_t entry) { return (entry >> 63) != 0; }));
}

TEST(MappedFile, PagesGoWithTheirLastUseThoughTheMappingStays) {
  TempDir dir;
  const auto file = *MappedFile::Open(dir.Write("a", Content(100 * 4096)));
  MappedFile::Use one(file, {{0, 50 * 4096}});
  {
    const MappedFile::Use two(file, {{40 * 4096, 100 * 4096}});
    ASSERT_EQ(two.first(), (std::vector<ByteRange>{{50 * 4096, 100 * 4096}}));
    ASSERT_TRUE(file->Populate(0, file->size(), {}).ok());
    ASSERT_EQ(PresentPages(*file), 100u);
  }
  EXPECT_EQ(PresentPages(*file), 50u);
  one = {};
  EXPECT_EQ(PresentPages(*file), 0u);
  EXPECT_EQ(file->bytes()[99999], std::byte{'a' + 99999 % 23}) << "they come back when they are wanted";
}

// Of address space, in bytes.
std::uint64_t Locked() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmLck:")) return std::stoull(line.substr(6)) * 1024;
  }
  ADD_FAILURE() << "no VmLck";
  return 0;
}

TEST(MappedFile, PagesAreLockedOnceAndUntilTheLastWhoAskedForIt) {
  TempDir dir;
  const auto file = *MappedFile::Open(dir.Write("a", Content(100 * 4096)));
  const std::uint64_t before = Locked();
  const auto locked = [before] { return Locked() - before; };
  MappedFile::Use one(file, {{100, 10 * 4096}});
  ASSERT_TRUE(one.Lock().ok());
  EXPECT_EQ(locked(), 10u * 4096);
  {
    MappedFile::Use two(file, {{5 * 4096, 20 * 4096}});
    const MappedFile::Use unlocked(file, {{30 * 4096, 40 * 4096}});
    ASSERT_TRUE(two.Lock().ok());
    EXPECT_EQ(locked(), 20u * 4096);
  }
  EXPECT_EQ(locked(), 10u * 4096);
  one.Unlock();
  EXPECT_EQ(locked(), 0u);
  ASSERT_TRUE(one.Lock().ok());
  MappedFile::Use moved;
  moved = std::move(one);
  EXPECT_EQ(locked(), 10u * 4096);
  moved = {};
  EXPECT_EQ(locked(), 0u);
  EXPECT_EQ(PresentPages(*file), 0u) << "what was locked could be dropped";
}

TEST(MappedFileDeathTest, WhereTooLittleMayBeLockedNothingIsAndTheRefusalSaysWhatToRaise) {
  TempDir dir;
  const auto file = *MappedFile::Open(dir.Write("a", Content(100 * 4096)));
  const auto attempt = [&file] {
    const struct rlimit limit{16 * 4096, 16 * 4096};
    if (::setrlimit(RLIMIT_MEMLOCK, &limit) != 0) std::exit(1);
    if (::getuid() == 0 && ::setresuid(65534, 65534, 65534) != 0) std::exit(2);
    MappedFile::Use use(file, {{0, 8 * 4096}, {10 * 4096, 30 * 4096}});
    const absl::Status status = use.Lock();
    if (status.code() != absl::StatusCode::kResourceExhausted) std::exit(3);
    if (status.message().find("LimitMEMLOCK=") == status.message().npos) std::exit(4);
    if (Locked() != 0) std::exit(5);
    std::exit(0);
  };
  EXPECT_EXIT(attempt(), testing::ExitedWithCode(0), "");
}

TEST(MappedFile, PagesLeaveThePageCacheWithTheirLastUseOnlyWhereAskedFor) {
  TempDir dir;
  const fs::path path = dir.Write("a", Content(100 * 4096));
  const UniqueFd fd(::open(path.c_str(), O_RDONLY));
  ASSERT_EQ(::fsync(fd.get()), 0);
  struct statfs where {};
  ASSERT_EQ(::fstatfs(fd.get(), &where), 0);
  if (where.f_type == TMPFS_MAGIC) GTEST_SKIP() << "nothing can leave the page cache of a tmpfs";
  const auto cached_after = [&path](MappedFile::AfterUse after_use) {
    const auto file = *MappedFile::Open(path, after_use);
    {
      const MappedFile::Use stays(file, {{0, 50 * 4096}});
      {
        const MappedFile::Use goes(file, {{0, file->size()}});
        EXPECT_TRUE(file->Populate(0, file->size(), {}).ok());
      }
      EXPECT_EQ(file->CachedBytes(0, 50 * 4096), 50u * 4096) << "still in use";
    }
    return file->CachedBytes(0, file->size());
  };
  EXPECT_EQ(cached_after(MappedFile::AfterUse::kLeaveCached), 100u * 4096);
  EXPECT_EQ(cached_after(MappedFile::AfterUse::kDropCached), 0u);
}

TEST(MappedFile, ALookAtScatteredPlacesLeavesNoSinglePagesOfAColdFileInThePageCache) {
  TempDir dir;
  const std::string text = Content(9000 * 4096);
  const fs::path path = dir.Write("a", text);
  const UniqueFd fd(::open(path.c_str(), O_RDONLY));
  ASSERT_EQ(::fsync(fd.get()), 0);
  struct statfs where {};
  ASSERT_EQ(::fstatfs(fd.get(), &where), 0);
  if (where.f_type == TMPFS_MAGIC) GTEST_SKIP() << "nothing can leave the page cache of a tmpfs";
  const auto file = *MappedFile::Open(path);
  const auto cached_after_a_look = [&] {
    {
      const MappedFile::Scattered scattered(*file);
      for (const std::size_t at : {std::size_t{0}, 150 * std::size_t{4096}, 8999 * std::size_t{4096}}) {
        EXPECT_EQ(file->bytes()[at], static_cast<std::byte>(text[at]));
      }
      EXPECT_GE(file->CachedBytes(0, file->size()), 3u * 4096);
    }
    EXPECT_EQ(std::memcmp(file->bytes().data() + 150 * 4096, text.data() + 150 * 4096, 100), 0);
    return file->CachedBytes(0, 100 * 4096);
  };
  EXPECT_EQ(::posix_fadvise(fd.get(), 0, 0, POSIX_FADV_DONTNEED), 0);
  {
    const MappedFile::Scattered scattered(*file);
    EXPECT_EQ(file->bytes()[0], static_cast<std::byte>(text[0]));
  }
  EXPECT_EQ(file->CachedBytes(0, file->size()), 0u);
  {
    const MappedFile::Use use(file, {{0, 100 * 4096}});
    EXPECT_EQ(::posix_fadvise(fd.get(), 0, 0, POSIX_FADV_DONTNEED), 0);
    EXPECT_GT(cached_after_a_look(), 0u) << "in use: nothing is taken from a model";
  }
  EXPECT_TRUE(file->Populate(0, file->size(), {}).ok());
  EXPECT_EQ(cached_after_a_look(), 100u * 4096) << "warm already: stays so";
}

TEST(MappedFile, ASmallColdFileIsReadAsAWholeAndStillKnownToHaveBeenCold) {
  TempDir dir;
  const fs::path path = dir.Write("a", Content(100 * 4096));
  const UniqueFd fd(::open(path.c_str(), O_RDONLY));
  ASSERT_EQ(::fsync(fd.get()), 0);
  struct statfs where {};
  ASSERT_EQ(::fstatfs(fd.get(), &where), 0);
  if (where.f_type == TMPFS_MAGIC) GTEST_SKIP() << "nothing can leave the page cache of a tmpfs";
  EXPECT_EQ(::posix_fadvise(fd.get(), 0, 0, POSIX_FADV_DONTNEED), 0);
  const auto file = *MappedFile::Open(path);
  { const MappedFile::Scattered scattered(*file); }
  EXPECT_EQ(file->CachedBytes(0, file->size()), 100u * 4096) << "on its way, at least";
  EXPECT_EQ(file->TakeSoon(), 100u * 4096);
  EXPECT_EQ(file->TakeSoon(), 0u);
  file->ReadSoon();
  EXPECT_EQ(file->TakeSoon(), 0u) << "it was warm this time";
}

TEST(MappedFile, NothingReachesASealedCopy) {
  TempDir dir;
  const std::string text = Content(100000);
  const fs::path path = dir.Write("a", text);
  const auto copy = MappedFile::OpenSealed(path, {});
  ASSERT_TRUE(copy.ok()) << copy.status();
  const FileId original = (*MappedFile::Open(path))->id();
  EXPECT_NE((*copy)->id(), original);
  EXPECT_EQ((*copy)->size(), text.size());
  { std::ofstream(path, std::ios::binary) << "short"; }
  fs::remove(path);
  EXPECT_EQ(std::memcmp((*copy)->bytes().data(), text.data(), text.size()), 0);
  EXPECT_TRUE((*copy)->Intact().ok());
  // Not through a descriptor of one's own either.
  const UniqueFd again(::open(StrCat("/proc/self/fd/", (*copy)->descriptor()).c_str(), O_RDWR));
  ASSERT_TRUE(again);
  EXPECT_EQ(::pwrite(again.get(), "x", 1, 0), -1);
  EXPECT_EQ(::ftruncate(again.get(), 0), -1);
  EXPECT_EQ(::ftruncate(again.get(), 1 << 20), -1);
  // What a program writes is told, as of any mapping that is shared.
  (*copy)->mutable_data()[0] = std::byte{'!'};
  EXPECT_TRUE((*copy)->written());
  EXPECT_EQ((*(*copy)->MapAgain(MappedFile::Access::kShared))->bytes()[0], std::byte{'a'});
}

TEST(MappedFile, ASealedCopyStopsWhenAskedAndRefusesWhatOpenRefuses) {
  TempDir dir;
  std::stop_source stop;
  stop.request_stop();
  EXPECT_EQ(MappedFile::OpenSealed(dir.Write("a", "text"), stop.get_token()).status().code(),
            absl::StatusCode::kCancelled);
  EXPECT_EQ(MappedFile::OpenSealed(dir.Write("b", ""), {}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(MappedFile::OpenSealed(dir.path() / "none", {}).status().code(), absl::StatusCode::kNotFound);
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
  EXPECT_EQ(*ReadSmallFile(dir.path() / "a", std::size_t{1} << 46), "12345") << "takes what the file has";
  EXPECT_EQ(ReadSmallFile(dir.path() / "none", 4).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ReadSmallFile(dir.path(), 4).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace hearth
