#include "server/storage/mapped_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <string>
#include <thread>

#include "tests/storage/files.h"

namespace hearth {
namespace {

namespace fs = std::filesystem;
using testing_files::TempDir;
using Own = MappedFiles::Own;

constexpr std::uint64_t kPart = 4096;

// Weights at multiples of 4096 in a file, each with the checksum that its letter stands for: "aab".
class MappedFilesTest : public testing::Test {
 protected:
  Weights Open(const std::string& name, const std::string& letters) {
    const fs::path path = dir_.path() / name;
    if (!fs::exists(path)) {
      std::string content;
      for (const char c : letters) content += std::string(kPart, c);
      dir_.Write(name, content);
    }
    Weights weights;
    const auto file = files_.Open(path);
    EXPECT_TRUE(file.ok()) << file.status();
    for (std::size_t i = 0; i < letters.size(); ++i) {
      Checksum checksum{};
      checksum[0] = static_cast<std::uint8_t>(letters[i]);
      weights.storages.push_back(
          {.file = *file, .offset = i * kPart, .size = kPart, .unpack = {}, .checksum = checksum});
    }
    return weights;
  }

  Weights OpenShared(const std::string& name, const std::string& letters, Own own = Own::kOffer) {
    Weights weights = Open(name, letters);
    files_.Share(weights, own);
    return weights;
  }

  static const std::byte* At(const Weights& weights, std::size_t i) {
    return weights.storages[i].file->bytes().data() + weights.storages[i].offset;
  }

  TempDir dir_;
  MappedFiles files_;
};

TEST_F(MappedFilesTest, AFileIsMappedOnceWhateverItsPath) {
  const fs::path path = dir_.Write("a", "hello");
  fs::create_hard_link(path, dir_.path() / "b");
  fs::create_symlink(path, dir_.path() / "c");
  auto one = *files_.Open(path);
  EXPECT_EQ(*files_.Open(dir_.path() / "b"), one);
  EXPECT_EQ(*files_.Open(dir_.path() / "c"), one);
  EXPECT_NE(*files_.Open(dir_.Write("d", "hello")), one);
}

TEST_F(MappedFilesTest, AMappingEndsWithItsLastUser) {
  auto one = *files_.Open(dir_.Write("a", "hello"));
  const std::weak_ptr<const MappedFile> watched = one;
  auto two = *files_.Open(dir_.path() / "a");
  one.reset();
  EXPECT_FALSE(watched.expired());
  two.reset();
  EXPECT_TRUE(watched.expired());
}

TEST_F(MappedFilesTest, AReplacedFileIsAnotherOne) {
  const fs::path path = dir_.Write("a", "hello");
  const auto old = *files_.Open(path);
  fs::rename(dir_.Write("new", "world"), path);
  EXPECT_NE(*files_.Open(path), old);
}

TEST_F(MappedFilesTest, AWrittenMappingIsNotHandedOutAgain) {
  const auto spoilt = *files_.Open(dir_.Write("a", "hello"));
  EXPECT_EQ(*files_.Untouched(spoilt), spoilt);
  spoilt->mutable_data()[0] = std::byte{'J'};
  const auto fresh = *files_.Untouched(spoilt);
  EXPECT_NE(fresh, spoilt);
  EXPECT_EQ(fresh->bytes()[0], std::byte{'h'});
  EXPECT_EQ(*files_.Untouched(spoilt), fresh) << "everybody goes on with the same one";
  EXPECT_EQ(*files_.Open(dir_.path() / "a"), fresh);
}

TEST_F(MappedFilesTest, APoisonedMappingIsNotHandedOutAgain) {
  const fs::path path = dir_.Write("a", std::string(10000, 'x'));
  const auto poisoned = *files_.Open(path);
  const auto time = fs::last_write_time(path);
  fs::resize_file(path, 100);
  ASSERT_EQ(poisoned->bytes()[9000], std::byte{0});
  // As it was again, by all that the file itself tells.
  dir_.Write("a", std::string(10000, 'x'));
  fs::last_write_time(path, time);
  const auto fresh = *files_.Open(path);
  EXPECT_EQ(fresh->id(), poisoned->id());
  EXPECT_NE(fresh, poisoned);
  EXPECT_EQ(fresh->bytes()[9000], std::byte{'x'});
}

TEST_F(MappedFilesTest, WeightsOfOneChecksumLieInOnePlace) {
  const Weights base = OpenShared("base", "abc");
  const Weights head = OpenShared("head", "abcx");
  for (const std::size_t i : {0, 1, 2}) EXPECT_EQ(At(head, i), At(base, i)) << i;
  EXPECT_NE(head.storages[3].file, base.storages[0].file);
  EXPECT_EQ(*At(head, 3), std::byte{'x'});
  const Weights other = OpenShared("other", "xc");
  EXPECT_EQ(At(other, 0), At(head, 3));
  EXPECT_EQ(At(other, 1), At(base, 2));
}

TEST_F(MappedFilesTest, AFileThatIsNotNeededIsClosed) {
  const Weights base = OpenShared("base", "abc");
  const Weights same = OpenShared("same", "cab");
  std::set<const MappedFile*> used;
  for (const WeightStorage& storage : same.storages) used.insert(storage.file.get());
  EXPECT_EQ(used, std::set<const MappedFile*>{base.storages[0].file.get()});
}

TEST_F(MappedFilesTest, WhatTheProviderHadLivesOnWithWhoeverUsesIt) {
  Weights base = OpenShared("base", "abc");
  const Weights head = OpenShared("head", "a");
  base = {};
  EXPECT_EQ(*At(head, 0), std::byte{'a'});
  const Weights later = OpenShared("later", "abc");
  EXPECT_EQ(At(later, 0), At(head, 0));
}

TEST_F(MappedFilesTest, NothingIsFoundOfAModelThatHasLeft) {
  OpenShared("base", "abc");
  const Weights head = OpenShared("head", "abc");
  EXPECT_EQ(head.storages[0].file->path(), dir_.path() / "head");
}

TEST_F(MappedFilesTest, TwoWeightsOfOneModelNeverLieInOnePlace) {
  const Weights one = OpenShared("one", "z");
  const Weights three = OpenShared("three", "zzz");
  EXPECT_EQ(At(three, 0), At(one, 0));
  EXPECT_EQ(std::set({At(three, 0), At(three, 1), At(three, 2)}).size(), 3u);
  // Two shards of one model that were each somebody else's before.
  const Weights four = OpenShared("four", "z");
  Weights both = Open("four", "z");
  const Weights part = Open("three", "zzz");
  both.storages.insert(both.storages.end(), part.storages.begin(), part.storages.end());
  files_.Share(both, Own::kOffer);
  std::set<const std::byte*> places;
  for (std::size_t i = 0; i < 4; ++i) places.insert(At(both, i));
  EXPECT_EQ(places.size(), 4u);
}

TEST_F(MappedFilesTest, OnlyMappedWeightsWithChecksumsAreShared) {
  const Weights base = OpenShared("base", "abc");
  Weights odd = Open("odd", "abc");
  odd.storages[0].checksum.reset();
  odd.storages[1].offset += 8;  // would be copied
  odd.storages[1].size -= 8;
  odd.storages[2].size -= 1;  // the size is part of it
  const Weights before = odd;
  files_.Share(odd, Own::kOffer);
  for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(At(odd, i), At(before, i)) << i;
}

TEST_F(MappedFilesTest, WhoOnlyLooksOffersNothing) {
  const Weights looks = OpenShared("base", "abc", Own::kKeep);
  const Weights head = OpenShared("head", "abc");
  EXPECT_EQ(head.storages[0].file->path(), dir_.path() / "head");
  const Weights again = OpenShared("base", "abc", Own::kKeep);
  EXPECT_EQ(At(again, 0), At(head, 0));
}

TEST_F(MappedFilesTest, WeightsInAWrittenMappingAreSharedFromTheNextOne) {
  const Weights base = OpenShared("base", "abc");
  base.storages[0].file->mutable_data()[0] = std::byte{'!'};
  EXPECT_NE(At(OpenShared("head", "abc"), 0), At(base, 0));
  const auto fresh = *files_.Untouched(base.storages[0].file);
  const Weights later = OpenShared("later", "abc");
  EXPECT_EQ(later.storages[0].file, fresh);
  EXPECT_EQ(*At(later, 0), std::byte{'a'});
}

TEST_F(MappedFilesTest, WeightsOfAFileThatWasWrittenToInPlaceAreNotShared) {
  const Weights base = OpenShared("base", "abc");
  fs::resize_file(dir_.path() / "base", 10);
  const Weights head = OpenShared("head", "abc");
  EXPECT_EQ(head.storages[0].file->path(), dir_.path() / "head");
  EXPECT_EQ(*At(head, 2), std::byte{'c'});
}

TEST_F(MappedFilesTest, NothingIsSharedWithADistrustedFile) {
  const Weights bad = OpenShared("bad", "ab");
  const MappedFile& mapped = *bad.storages[0].file;
  EXPECT_TRUE(files_.Distrust(mapped.id()));
  EXPECT_FALSE(files_.Distrust(mapped.id())) << "known";
  EXPECT_EQ(mapped.Intact().code(), absl::StatusCode::kDataLoss) << "who has it mapped hears of it";
  const Weights good = OpenShared("good", "ab");
  EXPECT_NE(good.storages[0].file, bad.storages[0].file);
  EXPECT_TRUE(good.storages[0].file->Intact().ok());
  const Weights third = OpenShared("third", "ab");
  EXPECT_EQ(At(third, 0), At(good, 0));
  const Weights again = OpenShared("bad", "ab");
  EXPECT_TRUE(again.storages[0].file->Intact().ok()) << "its own model may look once more";
}

TEST_F(MappedFilesTest, OfManyLoadsAtOnceOneProvides) {
  for (int i = 0; i < 8; ++i) Open("m" + std::to_string(i), "abcdefgh");
  std::vector<Weights> loaded(8);
  {
    std::vector<std::jthread> threads;
    for (std::size_t i = 0; i < loaded.size(); ++i) {
      threads.emplace_back([&, i] { loaded[i] = OpenShared("m" + std::to_string(i), "abcdefgh"); });
    }
  }
  for (const Weights& weights : loaded) {
    for (std::size_t i = 0; i < 8; ++i) EXPECT_EQ(At(weights, i), At(loaded[0], i));
  }
}

}  // namespace
}  // namespace hearth
