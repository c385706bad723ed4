#include "server/storage/hdf5.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstring>
#include <map>
#include <numeric>
#include <string>

#include "server/base/unique_fd.h"
#include "tests/storage/files.h"

namespace hearth {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;
using ::testing::Not;
using testing_files::DataPath;
using testing_files::TempDir;

absl::StatusOr<Weights> Read(const fs::path& path) {
  const auto file = MappedFile::Open(path);
  if (!file.ok()) return file.status();
  return ReadHdf5(*file, HEARTH_HDF5_LIST);
}

// The tensors of a file of tests/data/hdf5, by name.
class Tensors {
 public:
  explicit Tensors(std::string_view name) : weights_(Read(DataPath(StrCat("hdf5/", name)))) {
    EXPECT_TRUE(weights_.ok()) << weights_.status();
    if (!weights_.ok()) return;
    for (const WeightTensor& tensor : weights_->tensors) by_name_[tensor.name] = &tensor;
  }

  const Weights& weights() const { return *weights_; }
  const WeightTensor& at(const std::string& name) const { return *by_name_.at(name); }
  const WeightStorage& storage(const std::string& name) const { return weights_->storages[at(name).storage]; }
  std::vector<std::string> names() const {
    std::vector<std::string> names;
    for (const auto& [name, tensor] : by_name_) names.push_back(name);
    return names;
  }

  template <typename T>
  std::vector<T> Values(const std::string& name) const {
    const WeightStorage& from = storage(name);
    std::vector<std::byte> bytes(from.size, std::byte{0xee});
    if (from.unpack) {
      EXPECT_EQ(UnpackAll(from, bytes), absl::OkStatus()) << name;
    } else if (from.size > 0) {
      std::memcpy(bytes.data(), from.file->bytes().data() + from.offset, from.size);
    }
    EXPECT_EQ(bytes.size() % sizeof(T), 0u);
    std::vector<T> values(bytes.size() / sizeof(T));
    if (!bytes.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
    return values;
  }

 private:
  absl::StatusOr<Weights> weights_;
  std::map<std::string, const WeightTensor*> by_name_;
};

// 0, 1, 2, ...
template <typename T>
std::vector<T> Count(std::size_t n) {
  std::vector<T> values(n);
  std::iota(values.begin(), values.end(), T{0});
  return values;
}

TEST(Hdf5, GroupsBecomeDotsAndDotsStay) {
  const Tensors tensors("contiguous.h5");
  EXPECT_THAT(tensors.names(), ElementsAre("empty", "encoder.compact", "encoder.layer.bias", "encoder.layer.weight",
                                           "filled", "größe", "tied", "unwritten"));
}

TEST(Hdf5, ContiguousDataSetsAreUsedWhereTheyLie) {
  const Tensors tensors("contiguous.h5");
  EXPECT_EQ(tensors.storage("encoder.layer.weight").unpack, nullptr);
  EXPECT_THAT(tensors.Values<float>("encoder.layer.weight"), ElementsAreArray(Count<float>(35)));
  EXPECT_THAT(tensors.at("encoder.layer.weight").sizes, ElementsAre(7, 5));
  EXPECT_THAT(tensors.at("encoder.layer.weight").strides, ElementsAre(5, 1));
  EXPECT_EQ(tensors.storage("tied").offset, tensors.storage("encoder.layer.weight").offset);
  EXPECT_THAT(tensors.Values<float>("größe"), ElementsAre(2.5F));
  EXPECT_TRUE(tensors.at("größe").sizes.empty());
  EXPECT_THAT(tensors.Values<float>("empty"), ElementsAre());
  EXPECT_THAT(tensors.at("empty").sizes, ElementsAre(0, 3));
}

TEST(Hdf5, WhatWasNeverWrittenHasTheFillValue) {
  const Tensors tensors("contiguous.h5");
  EXPECT_THAT(tensors.Values<float>("unwritten"), ElementsAre(0, 0, 0));
  EXPECT_THAT(tensors.Values<std::int16_t>("filled"), ElementsAre(-2, -2, -2));
}

TEST(Hdf5, DataSetsInTheirOwnHeadersAreRead) {
  EXPECT_THAT(Tensors("contiguous.h5").Values<float>("encoder.compact"), ElementsAreArray(Count<float>(10)));
}

TEST(Hdf5, DataSetsAt64BytesAreMapped) {
  EXPECT_EQ(Tensors("aligned.h5").weights().copied_bytes(), 0u);
  EXPECT_EQ(Tensors("aligned.h5").weights().mapped_bytes(), 280u);
}

TEST(Hdf5, ElementTypesAreThoseOfPyTorch) {
  const Tensors tensors("types.h5");
  EXPECT_EQ(tensors.names().size(), 13u);
  for (const std::string& name : tensors.names()) EXPECT_EQ(tensors.at(name).type->torch, name);
  EXPECT_THAT(tensors.Values<std::uint16_t>("bfloat16"), ElementsAre(0x3fc0, 0xc000));
  EXPECT_THAT(tensors.Values<std::uint8_t>("bool"), ElementsAre(1, 0, 1));
  EXPECT_THAT(tensors.Values<std::int64_t>("int64"), ElementsAre(1, 0, 1));
}

class Hdf5Chunks : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(, Hdf5Chunks, ::testing::Values("chunked.h5", "chunked_v110.h5"));

TEST_P(Hdf5Chunks, ArePutTogetherWithTheirEdges) {
  const Tensors tensors(GetParam());
  for (const char* name : {"plain", "gzip", "shuffled", "both", "one", "growing", "rows"}) {
    EXPECT_THAT(tensors.Values<float>(name), ElementsAreArray(Count<float>(35))) << name;
    EXPECT_NE(tensors.storage(name).unpack, nullptr) << name;
  }
  EXPECT_THAT(tensors.Values<std::int64_t>("cube"), ElementsAreArray(Count<std::int64_t>(240)));
  EXPECT_THAT(tensors.Values<std::uint8_t>("bytes"), ElementsAreArray(Count<std::uint8_t>(35)));
  const auto halves = tensors.Values<std::uint16_t>("halves");
  EXPECT_EQ(halves[1], 0x3c00);   // 1
  EXPECT_EQ(halves[34], 0x5040);  // 34
}

TEST_P(Hdf5Chunks, ThatAreMissingHaveTheFillValue) {
  const Tensors tensors(GetParam());
  std::vector<float> expected(36, -1.0F);
  for (const std::size_t at : {2 * 6 + 4, 2 * 6 + 5, 3 * 6 + 4, 3 * 6 + 5}) expected[at] = 7;
  EXPECT_THAT(tensors.Values<float>("holes"), ElementsAreArray(expected));
  EXPECT_THAT(tensors.Values<float>("unwritten"), ElementsAreArray(std::vector<float>(9, 1.5F)));
  EXPECT_THAT(tensors.Values<float>("empty"), ElementsAre());
}

TEST_P(Hdf5Chunks, MayHaveGoneWithoutAFilter) {
  std::vector<std::uint8_t> expected = Count<std::uint8_t>(64);
  expected.resize(128, 3);
  EXPECT_THAT(Tensors(GetParam()).Values<std::uint8_t>("noise"), ElementsAreArray(expected));
}

TEST(Hdf5, TextAndLinksInCirclesAreLeftOut) {
  EXPECT_THAT(Tensors("skipped.h5").names(), ElementsAre("a"));
}

TEST(Hdf5, NumbersThatCannotBeReadAreNamedWithTheReason) {
  const std::map<std::string, std::string> reasons = {
      {"lzf", "filter 32000 (lzf)"},     {"checksum", "fletcher32"},
      {"big_endian", "big-endian"},      {"compound", "compound"},
      {"enum", "not h5py's bool"},       {"virtual", "other data sets"},
      {"external", "in other files"},    {"soft_link", "soft or external link"},
      {"external_link", "external link"}};
  for (const auto& [name, reason] : reasons) {
    const auto weights = Read(DataPath(StrCat("hdf5/unsupported_", name, ".h5")));
    EXPECT_EQ(weights.status().code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_THAT(weights.status().message(), AllOf(HasSubstr("'bad' that "), HasSubstr(reason)));
  }
}

TEST(Hdf5, TwoDataSetsOfOneTensorNameAreRefused) {
  EXPECT_THAT(Read(DataPath("hdf5/same_name.h5")).status().message(), HasSubstr("'a.b' that is there twice"));
}

TEST(Hdf5, AFileCutShortIsRefused) {
  const TempDir dir;
  const std::string whole = testing_files::ReadFile(DataPath("hdf5/chunked.h5"));
  for (std::size_t size = 8; size < whole.size(); size += whole.size() / 20) {
    const auto weights = Read(dir.Write("cut.h5", whole.substr(0, size)));
    EXPECT_EQ(weights.status().code(), absl::StatusCode::kInvalidArgument) << size;
  }
}

TEST(Hdf5, AFileThatLibhdf5DoesNotSurviveIsRefused) {
  EXPECT_EQ(Read(DataPath("hdf5/crashes_libhdf5.h5")).status().code(), absl::StatusCode::kInvalidArgument);
}

// libhdf5 may refuse such a file or not survive it; or nothing that matters was hit.
TEST(Hdf5, DamageIsAnErrorOrHarmless) {
  const TempDir dir;
  int refused = 0;
  for (const char* name : {"hdf5/chunked_v110.h5", "hdf5/contiguous.h5"}) {
    const std::string whole = testing_files::ReadFile(DataPath(name));
    for (std::size_t at = 8; at < whole.size(); at += 61) {
      std::string damaged = whole;
      for (std::size_t i = at; i < std::min(at + 4, whole.size()); ++i) damaged[i] = static_cast<char>(~damaged[i]);
      const auto weights = Read(dir.Write("damaged.h5", damaged));
      if (!weights.ok()) {
        ++refused;
        EXPECT_EQ(weights.status().code(), absl::StatusCode::kInvalidArgument) << weights.status();
        continue;
      }
      for (const WeightStorage& storage : weights->storages) {
        if (!storage.unpack) {
          EXPECT_LE(storage.offset + storage.size, whole.size());
          continue;
        }
        std::vector<std::byte> out(storage.size);
        const absl::Status unpacked = UnpackAll(storage, out);
        if (!unpacked.ok()) ++refused;
      }
    }
  }
  EXPECT_GT(refused, 10);
}

// A lister that is a shell script.
class Hdf5Lister : public ::testing::Test {
 protected:
  absl::StatusOr<std::string> Run(const std::string& script, const hdf5_internal::ListerLimits& limits = {}) {
    const fs::path lister = dir_.Write("lister", "#!/bin/sh\n" + script);
    ::chmod(lister.c_str(), 0700);
    const fs::path file = dir_.Write("file", "content");
    const UniqueFd descriptor(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
    return hdf5_internal::RunLister(lister, descriptor.get(), limits);
  }
  void ExpectRefused(const absl::StatusOr<std::string>& result, const std::string& why) {
    EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument) << result.status();
    EXPECT_THAT(result.status().message(), HasSubstr(why));
  }

  TempDir dir_;
};

TEST_F(Hdf5Lister, ReadsTheFileFromDescriptorThreeAndHasNoOther) {
  const UniqueFd inherited(::fcntl(0, F_DUPFD, 40));  // as careless libraries leave them
  ASSERT_EQ(inherited.get(), 40);
  const auto listing = Run("cat <&3; ls /proc/self/fd; echo \"HOME is '$HOME'\"");
  ASSERT_TRUE(listing.ok()) << listing.status();
  EXPECT_THAT(*listing, AllOf(HasSubstr("content0\n1\n2\n3\n"), HasSubstr("HOME is ''"), Not(HasSubstr("40\n"))));
}

TEST_F(Hdf5Lister, ThatDiesSaysSo) {
  ExpectRefused(Run("kill -SEGV $$"), "did not survive it (signal 11)");
  ExpectRefused(Run("kill -XCPU $$"), "took too long");
}

TEST_F(Hdf5Lister, ThatHangsIsKilled) {
  ExpectRefused(Run("read line </dev/zero", {.time = std::chrono::milliseconds(50)}), "after 0.05 s");
  // One that has closed its output is not waited for, either.
  EXPECT_EQ(*Run("echo '{\"end\":0}'; exec >/dev/null; read line </dev/zero"), "{\"end\":0}\n");
}

TEST_F(Hdf5Lister, ThatTalksForEverIsKilled) {
  ExpectRefused(Run("while :; do echo '{\"name\":1}'; done", {.bytes = 1000}), "larger chunks");
}

TEST_F(Hdf5Lister, ThatIsNotThereIsNotTheFilesFault) {
  const auto listing = hdf5_internal::RunLister(dir_.path() / "none", 0, {});
  EXPECT_EQ(listing.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(listing.status().message(), HasSubstr("beside hearthd"));
  EXPECT_EQ(Run("exit 127").status().code(), absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace hearth
