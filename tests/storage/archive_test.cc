#include "server/storage/archive.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "tests/storage/files.h"
#include "tests/storage/zip_builder.h"

namespace hearth {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing_files::BuildZip;
using testing_files::ReadData;
using testing_files::ToBytes;
using testing_files::ZipRecord;

std::string Text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::string Refusal(const std::vector<std::byte>& file) {
  const absl::StatusOr<Archive> archive = Archive::Open(file);
  if (archive.ok()) return "(opened)";
  EXPECT_EQ(archive.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(archive.status().message());
}

TEST(Archive, FindsRecordsBelowTheTopFolder) {
  const auto file =
      BuildZip({{.name = "net/data.pkl", .content = "abc"},
                {.name = "net/code/a.py", .content = std::string(5000, 'x'), .deflate = true},
                {.name = "__MACOSX/junk", .content = "j"}});
  const auto archive = Archive::Open(file);
  ASSERT_TRUE(archive.ok()) << archive.status();
  EXPECT_EQ(archive->top_folder(), "net");
  EXPECT_EQ(archive->records().size(), 2u);
  const Archive::Record* stored = archive->Find("data.pkl");
  ASSERT_NE(stored, nullptr);
  ASSERT_TRUE(archive->View(*stored).has_value());
  EXPECT_EQ(Text(*archive->View(*stored)), "abc");
  EXPECT_EQ(archive->View(*stored)->data(), file.data() + stored->data_offset);
  EXPECT_EQ(Text(*archive->Read(*stored)), "abc");
  const Archive::Record* deflated = archive->Find("code/a.py");
  ASSERT_NE(deflated, nullptr);
  EXPECT_LT(deflated->compressed_size, deflated->size);
  EXPECT_FALSE(archive->View(*deflated).has_value());
  EXPECT_EQ(Text(*archive->Read(*deflated)), std::string(5000, 'x'));
  EXPECT_EQ(archive->Find("net/data.pkl"), nullptr);
  EXPECT_EQ(archive->Find("data"), nullptr);
}

TEST(Archive, WorksWithoutATopFolder) {
  const auto file =
      BuildZip({{.name = "data.pkl", .content = "abc"}, {.name = "code/a.py", .content = "x"}});
  const auto archive = Archive::Open(file);
  ASSERT_TRUE(archive.ok()) << archive.status();
  EXPECT_EQ(archive->top_folder(), "");
  EXPECT_TRUE(archive->Contains("code/a.py"));
  EXPECT_EQ(archive->kind(), ArchiveKind::kTorchScript);
}

TEST(Archive, TakesTheDataOffsetFromTheLocalHeader) {
  const auto file =
      BuildZip({{.name = "n/data.pkl", .content = "abc", .local_extra = std::string(37, 'Z')}});
  const auto archive = Archive::Open(file);
  ASSERT_TRUE(archive.ok()) << archive.status();
  EXPECT_EQ(Text(*archive->Read(*archive->Find("data.pkl"))), "abc");
}

TEST(Archive, ReadsZip64AndComments) {
  const auto file =
      BuildZip({{.name = "n/data.pkl", .content = "abc", .zip64 = true},
                {.name = "n/x", .content = std::string(999, 'y'), .deflate = true, .zip64 = true}},
               {.zip64 = true, .comment = "made by hand"});
  const auto archive = Archive::Open(file);
  ASSERT_TRUE(archive.ok()) << archive.status();
  EXPECT_EQ(Text(*archive->Read(*archive->Find("data.pkl"))), "abc");
  EXPECT_EQ(Text(*archive->Read(*archive->Find("x"))), std::string(999, 'y'));
}

TEST(Archive, AnEmptyRecordHasNoBytes) {
  for (const bool deflate : {false, true}) {
    const auto file = BuildZip({{.name = "n/data.pkl", .content = "", .deflate = deflate}});
    const auto archive = Archive::Open(file);
    ASSERT_TRUE(archive.ok()) << archive.status();
    const auto bytes = archive->Read(*archive->Find("data.pkl"));
    ASSERT_TRUE(bytes.ok()) << bytes.status();
    EXPECT_TRUE(bytes->empty());
    EXPECT_TRUE(archive->VerifyChecksum(*archive->Find("data.pkl")).ok());
  }
}

TEST(Archive, TellsTorchScriptFromTorchSave) {
  const auto script = ReadData("torchscript/linear.pt");
  EXPECT_EQ(Archive::Open(script)->kind(), ArchiveKind::kTorchScript);
  EXPECT_TRUE(RequireTorchScript(*Archive::Open(script)).ok());
  const auto state = ReadData("torchscript/state_dict.pt");
  EXPECT_EQ(Archive::Open(state)->kind(), ArchiveKind::kTorchSave);
  EXPECT_THAT(std::string(RequireTorchScript(*Archive::Open(state)).message()),
              AllOf(HasSubstr("no program inside"), HasSubstr("`hearth pack`"),
                    HasSubstr("torch.jit.save(torch.jit.script(model), path)")));
  const auto other = BuildZip({{.name = "word/document.xml", .content = "<x/>"}});
  EXPECT_EQ(Archive::Open(other)->kind(), ArchiveKind::kOther);
  EXPECT_THAT(std::string(RequireTorchScript(*Archive::Open(other)).message()),
              HasSubstr("no data.pkl"));
}

TEST(Archive, RefusesABigEndianArchive) {
  const auto file = BuildZip({{.name = "n/data.pkl", .content = "x"},
                              {.name = "n/constants.pkl", .content = "x"},
                              {.name = "n/byteorder", .content = "big"}});
  EXPECT_THAT(std::string(RequireTorchScript(*Archive::Open(file)).message()),
              HasSubstr("big-endian"));
}

TEST(Archive, SaysWhatAFileThatIsNoArchiveSeemsToBe) {
  EXPECT_THAT(Refusal(ToBytes("<!DOCTYPE html>")), HasSubstr("web page"));
  EXPECT_THAT(Refusal(ToBytes("version https://git-lfs.github.com/spec/v1\n")),
              HasSubstr("git lfs pull"));
  EXPECT_THAT(Refusal(ToBytes("\x89HDF\r\n\x1a\n....")), HasSubstr("HDF5"));
  for (const char* text : {"", "x", "hello"}) {
    EXPECT_THAT(Refusal(ToBytes(text)), HasSubstr("torch.jit.save(torch.jit.script(model), path)"));
  }
}

TEST(Archive, WhateverOldTorchSaveWroteIsSentToHearthPack) {
  EXPECT_THAT(Refusal(ReadData("torchscript/legacy_state_dict.pt")), AllOf(HasSubstr("pickle"), HasSubstr("`hearth pack`")));
  for (const char* protocol : {"\x80\x02", "\x80\x03", "\x80\x04", "\x80\x05"}) {
    EXPECT_THAT(Refusal(ToBytes(StrCat(protocol, "}q."))), AllOf(HasSubstr("pickle"), HasSubstr("`hearth pack`")));
  }
  EXPECT_THAT(Refusal(ToBytes(std::string(257, 'x') + "ustar")), AllOf(HasSubstr("tar file"), HasSubstr("`hearth pack`")));
}

TEST(Archive, RefusesNamesThatLeadOut) {
  for (const char* name :
       {"../data.pkl", "n/../../x", "n/..", "/etc/passwd", "n\\data.pkl", ".."}) {
    EXPECT_NE(Refusal(BuildZip({{.name = name, .content = "x"}})), "(opened)") << name;
  }
  EXPECT_NE(Refusal(BuildZip({{.name = std::string("n/a\0b", 5), .content = "x"}})), "(opened)");
  EXPECT_NE(Refusal(BuildZip({{.name = "", .content = "x"}})), "(opened)");
  EXPECT_EQ(Refusal(BuildZip({{.name = "n/..a/b..", .content = "x"}})), "(opened)");
}

TEST(Archive, RefusesTwoRecordsOfOneName) {
  EXPECT_THAT(Refusal(BuildZip({{.name = "n/a", .content = "x"}, {.name = "n/a", .content = "y"}})),
              HasSubstr("two records named 'n/a'"));
}

TEST(Archive, RefusesEncryptedRecords) {
  EXPECT_THAT(Refusal(BuildZip({{.name = "n/a", .content = "x", .flags = 1}})),
              HasSubstr("encrypted"));
}

TEST(Archive, RefusesOtherCompressionMethods) {
  EXPECT_THAT(Refusal(BuildZip({{.name = "n/a", .content = "x", .method = 14}})),
              HasSubstr("method 14"));
}

TEST(Archive, RefusesSeveralParts) {
  EXPECT_THAT(Refusal(BuildZip({{.name = "n/a", .content = "x", .disk = 3}})),
              HasSubstr("several parts"));
  EXPECT_THAT(Refusal(BuildZip({{.name = "n/a", .content = "x"}}, {.disks = 2})),
              HasSubstr("several parts"));
  EXPECT_THAT(Refusal(BuildZip({{.name = "n/a", .content = "x"}}, {.zip64 = true, .disks = 2})),
              HasSubstr("several parts"));
}

TEST(Archive, RefusesRecordsOutsideTheFile) {
  const std::int64_t huge = INT64_MAX;
  for (const std::int64_t lie :
       {std::int64_t{1000}, std::int64_t{1} << 62, huge, std::int64_t{2}}) {
    const ZipRecord record{.name = "n/a",
                           .content = "x",
                           .claimed_size = lie,
                           .claimed_compressed = lie,
                           .zip64 = true};
    EXPECT_THAT(Refusal(BuildZip({record}, {.zip64 = true})), HasSubstr("reaches out of the file"))
        << lie;
  }
  for (const std::int64_t lie : {std::int64_t{1}, std::int64_t{1000}, huge, huge - 30}) {
    const ZipRecord record{.name = "n/a", .content = "x", .claimed_offset = lie, .zip64 = true};
    EXPECT_THAT(Refusal(BuildZip({record}, {.zip64 = true})), HasSubstr("header")) << lie;
  }
}

TEST(Archive, RefusesRecordsThatOverlap) {
  const ZipRecord first{.name = "n/a",
                        .content = std::string(200, 'x'),
                        .claimed_size = 201,
                        .claimed_compressed = 201};
  EXPECT_THAT(Refusal(BuildZip({first, {.name = "n/b", .content = "y"}})), HasSubstr("overlap"));
}

TEST(Archive, RefusesAStoredRecordOfTwoSizes) {
  EXPECT_THAT(Refusal(BuildZip({{.name = "n/a", .content = "xyz", .claimed_size = 2}})),
              HasSubstr("two sizes"));
}

TEST(Archive, RefusesAnotherNameInTheLocalHeader) {
  EXPECT_THAT(Refusal(BuildZip({{.name = "n/a", .content = "x", .local_name = "n/b"}})),
              HasSubstr("another name"));
}

TEST(Archive, RefusesFalseTablesOfContents) {
  const std::vector<ZipRecord> one = {{.name = "n/a", .content = "x"}};
  EXPECT_NE(Refusal(BuildZip(one, {.claimed_count = 2})), "(opened)");
  EXPECT_NE(Refusal(BuildZip(one, {.zip64 = true, .claimed_count = INT64_MAX})), "(opened)");
  EXPECT_NE(Refusal(BuildZip(one, {.zip64 = true, .claimed_directory_offset = INT64_MAX})),
            "(opened)");
  EXPECT_NE(Refusal(BuildZip(one, {.zip64 = true, .claimed_directory_size = INT64_MAX})),
            "(opened)");
  EXPECT_NE(Refusal(BuildZip(one, {.claimed_directory_offset = 1})), "(opened)");
  EXPECT_NE(Refusal(BuildZip(one, {.claimed_directory_size = 4})), "(opened)");
  EXPECT_EQ(Refusal(BuildZip(one)), "(opened)");
}

TEST(Archive, DoesNotUnpackMoreOrLessThanDeclared) {
  for (const int lie : {999, 1001, 0, 1}) {
    const auto file = BuildZip(
        {{.name = "n/a", .content = std::string(1000, 'x'), .deflate = true, .claimed_size = lie}});
    const auto archive = Archive::Open(file);
    ASSERT_TRUE(archive.ok()) << archive.status();
    EXPECT_EQ(archive->Read(*archive->Find("a")).status().code(),
              absl::StatusCode::kInvalidArgument)
        << lie;
    EXPECT_EQ(archive->VerifyChecksum(*archive->Find("a")).code(), absl::StatusCode::kDataLoss)
        << lie;
  }
}

TEST(Archive, RefusesABombBeforeAllocatingForIt) {
  const auto file = BuildZip({{.name = "n/a",
                               .content = "x",
                               .deflate = true,
                               .claimed_size = std::int64_t{1} << 62,
                               .claimed_compressed = 3,
                               .zip64 = true}},
                             {.zip64 = true});
  const auto archive = Archive::Open(file);
  ASSERT_TRUE(archive.ok()) << archive.status();
  EXPECT_EQ(archive->Read(*archive->Find("a")).status().code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(archive->Read(*archive->Find("a"), UINT64_MAX).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(Archive, ReadHonoursTheCallersLimit) {
  const auto file = BuildZip({{.name = "n/a", .content = "12345"}});
  const auto archive = Archive::Open(file);
  EXPECT_TRUE(archive->Read(*archive->Find("a"), 5).ok());
  EXPECT_EQ(archive->Read(*archive->Find("a"), 4).status().code(),
            absl::StatusCode::kResourceExhausted);
}

TEST(Archive, VerifiesChecksumsOfBytesFromElsewhereInPieces) {
  std::string content(100'000, 'q');
  for (std::size_t i = 0; i < content.size(); ++i) content[i] = static_cast<char>(i * i % 251);
  const auto file = BuildZip({{.name = "n/a", .content = content}, {.name = "n/b", .content = content, .deflate = true}});
  const auto archive = Archive::Open(file);
  ASSERT_TRUE(archive.ok()) << archive.status();
  for (const char* name : {"a", "b"}) {
    const Archive::Record& record = *archive->Find(name);
    auto copy = file;
    std::uint64_t asked = 0;
    const auto verify = [&] {
      asked = 0;
      return Archive::VerifyChecksum(record, {7, [&](std::uint64_t offset, std::uint64_t length) {
                                                EXPECT_LE(length, 7u);
                                                asked += length;
                                                return absl::StatusOr<std::span<const std::byte>>(
                                                    std::span(copy).subspan(offset, length));
                                              }});
    };
    EXPECT_EQ(verify(), absl::OkStatus()) << name;
    EXPECT_EQ(asked, record.compressed_size) << name;
    copy[record.data_offset + record.compressed_size / 2] ^= std::byte{4};
    EXPECT_EQ(verify().code(), absl::StatusCode::kDataLoss) << name;
    const absl::Status stopped = Archive::VerifyChecksum(
        record, {7, [&](std::uint64_t, std::uint64_t) -> absl::StatusOr<std::span<const std::byte>> {
                   return absl::CancelledError("enough");
                 }});
    EXPECT_EQ(stopped, absl::CancelledError("enough")) << name;
  }
}

TEST(Archive, VerifiesChecksumsOnDemand) {
  auto file = BuildZip({{.name = "n/a", .content = "weights"},
                        {.name = "n/b", .content = std::string(1 << 20, 'q'), .deflate = true}});
  auto archive = Archive::Open(file);
  ASSERT_TRUE(archive.ok()) << archive.status();
  const Archive::Record& record = *archive->Find("a");
  EXPECT_TRUE(archive->VerifyChecksum(record).ok());
  EXPECT_TRUE(archive->VerifyChecksum(*archive->Find("b")).ok());
  file[record.data_offset] ^= std::byte{1};
  EXPECT_EQ(archive->VerifyChecksum(record).code(), absl::StatusCode::kDataLoss);
}

TEST(Archive, ChecksumsOfRealArchivesAreRight) {
  for (const char* name :
       {"linear", "views", "dtypes", "attributes", "quantized", "frozen", "recompressed"}) {
    const auto file = ReadData(std::string("torchscript/") + name + ".pt");
    const auto archive = Archive::Open(file);
    ASSERT_TRUE(archive.ok()) << archive.status();
    ASSERT_FALSE(archive->records().empty());
    for (const Archive::Record& record : archive->records()) {
      EXPECT_TRUE(archive->VerifyChecksum(record).ok()) << name << " " << record.name;
    }
  }
}

TEST(Archive, WeightsInRealArchivesAreAlignedTo64Bytes) {
  const auto file = ReadData("torchscript/views.pt");
  const auto archive = Archive::Open(file);
  int weights = 0;
  for (const Archive::Record& record : archive->records()) {
    if (!record.name.starts_with("data/")) continue;
    ++weights;
    EXPECT_EQ(record.data_offset % 64, 0u) << record.name;
  }
  EXPECT_EQ(weights, 7);
}

// Whatever is cut off or changed: an answer, never a read out of bounds (the sanitizers look).
TEST(Archive, SurvivesEveryTruncation) {
  const auto file = ReadData("torchscript/own_state.pt");
  for (std::size_t length = 0; length < file.size(); ++length) {
    const std::vector<std::byte> cut(file.begin(),
                                     file.begin() + static_cast<std::ptrdiff_t>(length));
    EXPECT_FALSE(Archive::Open(cut).ok()) << length;
  }
}

TEST(Archive, SurvivesEveryFlippedBit) {
  auto file = ReadData("torchscript/own_state.pt");
  int opened = 0;
  for (std::size_t bit = 0; bit < file.size() * 8; ++bit) {
    const std::byte flip{static_cast<unsigned char>(1u << (bit % 8))};
    file[bit / 8] ^= flip;
    if (const auto archive = Archive::Open(file); archive.ok()) {
      ++opened;
      for (const Archive::Record& record : archive->records()) (void)archive->Read(record, 1 << 20);
    }
    file[bit / 8] ^= flip;
  }
  EXPECT_GT(opened, 0);  // most bits are content
}

}  // namespace
}  // namespace hearth
