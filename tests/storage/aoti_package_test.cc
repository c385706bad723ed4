#include "server/storage/aoti_package.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <functional>

#include "tests/storage/files.h"
#include "tests/storage/zip_builder.h"

namespace hearth {
namespace {

using ::testing::HasSubstr;
using testing_files::BuildZip;
using testing_files::TempDir;
using testing_files::ZipRecord;

constexpr char kLibrary[] = "data/aotinductor/model/abc.wrapper.so";
constexpr char kMetadata[] = "data/aotinductor/model/abc.wrapper_metadata.json";
constexpr char kJson[] = R"({"AOTI_MACHINE": "x86_64"})";

class AotiPackageTest : public testing::Test {
 protected:
  std::filesystem::path WriteZip(const std::vector<ZipRecord>& records) {
    const std::vector<std::byte> zip = BuildZip(records);
    return dir_.Write("net.pt2", {reinterpret_cast<const char*>(zip.data()), zip.size()});
  }
  static ZipRecord Record(std::string name, std::string content) {
    ZipRecord record;
    record.name = std::move(name);
    record.content = std::move(content);
    return record;
  }
  static std::string Refusal(const std::filesystem::path& path) {
    const auto opened = AotiPackage::Open(path);
    EXPECT_FALSE(opened.ok());
    return std::string(opened.status().message());
  }
  static std::string Text(const AotiPackage& package, const AotiPackage::File& file) {
    const auto content = package.Read(file);
    EXPECT_TRUE(content.ok()) << content.status();
    return {reinterpret_cast<const char*>(content->bytes.data()), content->bytes.size()};
  }
  TempDir dir_;
};

TEST_F(AotiPackageTest, AnArchiveAndItsUnpackedFolderAreTheSame) {
  const auto archive = AotiPackage::Open(WriteZip({Record("net/" + std::string(kLibrary), "code"),
                                                   Record("net/data/aotinductor/model/abc.wrapper.cpp", "source"),
                                                   Record("net/" + std::string(kMetadata), kJson),
                                                   Record("net/archive_format", "pt2")}));
  dir_.Write(std::filesystem::path("folder.pt2") / kLibrary, "code");
  dir_.Write(std::filesystem::path("folder.pt2") / kMetadata, kJson);
  dir_.Write("unzipped.pt2/net/" + std::string(kLibrary), "code");
  dir_.Write("unzipped.pt2/net/" + std::string(kMetadata), kJson);
  const auto folder = AotiPackage::Open(dir_.path() / "folder.pt2");
  const auto unzipped = AotiPackage::Open(dir_.path() / "unzipped.pt2");
  for (const auto* package : {&archive, &folder, &unzipped}) {
    ASSERT_TRUE(package->ok()) << package->status();
    ASSERT_EQ((*package)->files().size(), 2u);
    EXPECT_EQ((*package)->library().name, kLibrary);
    EXPECT_EQ((*package)->model(), "model");
    EXPECT_EQ(Text(**package, (*package)->library()), "code");
    EXPECT_EQ((*package)->metadata().machine, "x86_64");
  }
  EXPECT_FALSE(archive->is_directory());
  EXPECT_TRUE(folder->is_directory());
}

TEST_F(AotiPackageTest, AnExportedProgramIsToldFromAPackage) {
  EXPECT_THAT(Refusal(WriteZip({Record("ep/models/model.json", "{}"), Record("ep/archive_format", "pt2")})),
              HasSubstr("hearth pack --format aoti"));
  dir_.Write("folder.pt2/models/model.json", "{}");
  EXPECT_THAT(Refusal(dir_.path() / "folder.pt2"), HasSubstr("hearth pack --format aoti"));
}

TEST_F(AotiPackageTest, OtherFilesAreRefusedByWhatTheyAre) {
  EXPECT_THAT(Refusal(dir_.path() / "none.pt2"), HasSubstr("does not exist"));
  EXPECT_THAT(Refusal(WriteZip({Record("a/b", "c")})), HasSubstr("no data/aotinductor/"));
  EXPECT_THAT(Refusal(testing_files::DataPath("torchscript/linear.pt")), HasSubstr("serve it as model.pt"));
  EXPECT_THAT(Refusal(WriteZip({Record("n/data/aotinductor/model/abc.cpp", "source"),
                                Record("n/data/aotinductor/model/x.json", "{}")})),
              HasSubstr("package_cpp_only"));
  EXPECT_THAT(Refusal(WriteZip({Record("n/data/aotinductor/a/a.so", "1"), Record("n/data/aotinductor/b/b.so", "2")})),
              HasSubstr("none of which is called 'model'"));
}

TEST_F(AotiPackageTest, NamesThatLeadElsewhereAreRefused) {
  EXPECT_THAT(Refusal(WriteZip({Record("n/" + std::string(kLibrary), "code"),
                                Record("n/data/aotinductor/model/../../../../x.so", "evil")})),
              HasSubstr("leads out of the archive"));
}

TEST_F(AotiPackageTest, AFolderHasOnlyRegularFiles) {
  dir_.Write(std::filesystem::path("folder.pt2") / kLibrary, "code");
  ASSERT_EQ(::mkfifo((dir_.path() / "folder.pt2/data/aotinductor/model/pipe").c_str(), 0600), 0);
  EXPECT_THAT(Refusal(dir_.path() / "folder.pt2"), HasSubstr("no regular file"));
}

TEST_F(AotiPackageTest, BadMetadataIsRefusedAndNoneIsNot) {
  const auto path = dir_.Write(std::filesystem::path("folder.pt2") / kLibrary, "code").parent_path();
  const auto without = AotiPackage::Open(dir_.path() / "folder.pt2");
  ASSERT_TRUE(without.ok()) << without.status();
  EXPECT_FALSE(without->has_metadata());
  dir_.Write(std::filesystem::path("folder.pt2") / kMetadata, "{");
  EXPECT_THAT(Refusal(dir_.path() / "folder.pt2"), HasSubstr("metadata that cannot be understood"));
}

}  // namespace
}  // namespace hearth
