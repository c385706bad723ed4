#include "server/storage/file_reader.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "tests/storage/files.h"

namespace hearth {
namespace {

namespace fs = std::filesystem;
using testing_files::TempDir;

class FileReaderTest : public testing::Test {
 protected:
  std::string Read(std::uint64_t offset, std::size_t length) const {
    std::string text(length, '?');
    const absl::Status read = reader_->Read(offset, std::as_writable_bytes(std::span(text)));
    return read.ok() ? text : std::string(read.message());
  }

  const TempDir dir_;
  const fs::path file_ = dir_.Write("w", "0123456789");
  std::shared_ptr<const MappedFile> mapped_ = *MappedFile::Open(file_);
  const std::shared_ptr<const FileReader> reader_ = *FileReader::Of(*mapped_);
};

TEST_F(FileReaderTest, ReadsWhatWasMappedAfterTheMappingAndThePathAreGone) {
  const std::weak_ptr<const MappedFile> mapping = mapped_;
  mapped_.reset();
  EXPECT_TRUE(mapping.expired()) << "a reader keeps no mapping";
  fs::remove(file_);
  dir_.Write("w", "something else");
  EXPECT_EQ(Read(3, 4), "3456");
  EXPECT_TRUE(reader_->Intact());
}

TEST_F(FileReaderTest, SeesTheFileAndNotWhatThisProcessWroteToItsMapping) {
  mapped_->mutable_data()[3] = std::byte{'x'};
  EXPECT_EQ(Read(3, 1), "3");
  EXPECT_TRUE(reader_->Intact());
}

TEST_F(FileReaderTest, AFileCutShortIsNotReadBeyondItsEnd) {
  fs::resize_file(file_, 5);
  EXPECT_FALSE(reader_->Intact());
  EXPECT_EQ(Read(0, 5), "01234");
  EXPECT_EQ(Read(3, 4), "cannot be read at byte 5: it was cut short");
}

TEST_F(FileReaderTest, AFileWrittenToInPlaceIsNotIntact) {
  std::ofstream(file_, std::ios::app) << "more";
  EXPECT_FALSE(reader_->Intact());
}

}  // namespace
}  // namespace hearth
