#include "server/storage/torchscript_archive.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "server/storage/archive_pickle.h"
#include "tests/storage/files.h"
#include "tests/storage/zip_builder.h"

namespace hearth {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing_files::BuildZip;
using testing_files::ReadData;

absl::StatusOr<TorchScriptContents> Contents(std::span<const std::byte> file) {
  const absl::StatusOr<Archive> archive = Archive::Open(file);
  if (!archive.ok()) return archive.status();
  return ReadTorchScript(*archive);
}

TorchScriptContents Real(const std::string& name) {
  const auto file = ReadData("torchscript/" + name + ".pt");
  auto contents = Contents(file);
  EXPECT_TRUE(contents.ok()) << name << ": " << contents.status();
  return contents.ok() ? *std::move(contents) : TorchScriptContents{};
}

std::string Refusal(const std::string& name) {
  const auto file = ReadData("torchscript/" + name + ".pt");
  return std::string(Contents(file).status().message());
}

TEST(TorchScriptArchive, ALinearLayer) {
  const TorchScriptContents c = Real("linear");
  EXPECT_EQ(c.weight_bytes(), (4 * 3 + 3) * sizeof(float));
  ASSERT_EQ(c.data.tensors.size(), 2u);
  EXPECT_EQ(c.data.tensors[0].sizes, (Shape{3, 4}));
  EXPECT_TRUE(c.data.tensors[0].requires_grad);
  EXPECT_THAT(c.data.classes, Contains(HasSubstr("Linear")));
  EXPECT_GE(c.version, 3);
  EXPECT_TRUE(c.constants.tensors.empty());
}

std::vector<std::string> NamesIn(const std::string& model, TensorNames names) {
  const auto file = ReadData("torchscript/" + model + ".pt");
  const auto archive = Archive::Open(file);
  EXPECT_TRUE(archive.ok()) << archive.status();
  const auto data = WalkArchive(*archive, "data", PickleDialect::kTorchScript, names);
  EXPECT_TRUE(data.ok()) << data.status();
  std::vector<std::string> found;
  for (const PickledTensor& tensor : data->tensors) found.push_back(tensor.name);
  return found;
}

TEST(TorchScriptArchive, TensorsHaveTheNamesOfTheirAttributesWhereThoseAreWanted) {
  EXPECT_THAT(NamesIn("linear", TensorNames::kYes), ElementsAre("linear.weight", "linear.bias"));
  EXPECT_THAT(NamesIn("linear", TensorNames::kNo), ElementsAre("", ""));
}

TEST(TorchScriptArchive, TiedWeightsAndViewsCountOnce) {
  const TorchScriptContents c = Real("views");
  EXPECT_EQ(c.data.storages.size(), 7u);
  EXPECT_EQ(c.data.tensors.size(), 9u);
  const auto has = [&](const Shape& sizes, const std::vector<std::int64_t>& strides,
                       std::int64_t offset) {
    return std::any_of(c.data.tensors.begin(), c.data.tensors.end(), [&](const PickledTensor& t) {
      return t.sizes == sizes && t.strides == strides && t.offset == offset;
    });
  };
  EXPECT_TRUE(has({3, 2}, {5, 1}, 6));  // base[1:, 1:3]
  EXPECT_TRUE(has({5, 4}, {1, 5}, 0));  // base.t()
  EXPECT_TRUE(has({3, 4}, {0, 0}, 0));  // expanded
  EXPECT_TRUE(has({0, 3}, {3, 1}, 0));  // empty
  EXPECT_TRUE(has({}, {}, 0));          // a scalar
}

TEST(TorchScriptArchive, ARecompressedArchiveSaysTheSame) {
  const TorchScriptContents a = Real("views");
  const TorchScriptContents b = Real("recompressed");
  EXPECT_EQ(a.weight_bytes(), b.weight_bytes());
  EXPECT_EQ(a.data.tensors.size(), b.data.tensors.size());
  EXPECT_EQ(a.data.classes, b.data.classes);
}

TEST(TorchScriptArchive, EveryElementType) {
  const TorchScriptContents c = Real("dtypes");
  std::vector<std::string> types;
  for (const PickledStorage& s : c.data.storages) types.emplace_back(s.type->name);
  for (const char* name :
       {"BFloat16", "Half", "Double", "ComplexFloat", "ComplexDouble", "Char", "Byte", "Short",
        "Int", "Long", "Bool", "UInt16", "UInt32", "UInt64", "Float8_e4m3fn"}) {
    EXPECT_THAT(types, Contains(name));
  }
}

TEST(TorchScriptArchive, AttributesOfEveryKind) {
  const TorchScriptContents c = Real("attributes");
  EXPECT_EQ(c.data.tensors.size(), 6u);
  EXPECT_THAT(c.data.classes, Contains(HasSubstr("Color")));
}

TEST(TorchScriptArchive, AModuleWithItsOwnState) {
  EXPECT_EQ(Real("own_state").weight_bytes(), 12u);
}

TEST(TorchScriptArchive, QuantizedModules) {
  const TorchScriptContents c = Real("quantized");
  EXPECT_THAT(c.data.classes, Contains("__torch__.torch.classes.quantized.LinearPackedParamsBase"));
  EXPECT_GE(std::count_if(c.data.tensors.begin(), c.data.tensors.end(),
                          [](const PickledTensor& t) { return t.quantized; }),
            3);
}

TEST(TorchScriptArchive, AFrozenModuleHasItsWeightsAmongTheConstants) {
  const TorchScriptContents c = Real("frozen");
  EXPECT_EQ(c.constants.storage_bytes(), (4 * 3 + 3) * sizeof(float));
  EXPECT_EQ(c.data.storage_bytes(), 0u);
}

TEST(TorchScriptArchive, RefusalsSayWhatToDo) {
  EXPECT_THAT(Refusal("sparse"), HasSubstr(".to_dense()"));
  EXPECT_THAT(Refusal("two_types"), HasSubstr("does not fit into its storage of 4 elements"));
  EXPECT_THAT(Refusal("state_dict"), HasSubstr("torch.jit.save(torch.jit.script(model), path)"));
  EXPECT_THAT(Refusal("state_dict"), HasSubstr("`hearth pack`"));
  EXPECT_THAT(Refusal("legacy_state_dict"), HasSubstr("`hearth pack`"));
}

TEST(TorchScriptArchive, RefusesAWeightRecordThatIsTooShort) {
  const auto file = ReadData("torchscript/linear.pt");
  const auto archive = Archive::Open(file);
  ASSERT_TRUE(archive.ok()) << archive.status();
  std::vector<testing_files::ZipRecord> records;
  for (const Archive::Record& r : archive->records()) {
    const auto bytes = *archive->Read(r);
    std::string content(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    if (r.name == "data/0") content.resize(47);
    records.push_back({.name = "n/" + r.name, .content = content});
  }
  const auto short_file = BuildZip(records);
  EXPECT_THAT(std::string(Contents(short_file).status().message()),
              HasSubstr("storage '0' claims 48 bytes, but its record has 47"));
}

TEST(TorchScriptArchive, NeedsBothPicklesAndAVersion) {
  const testing_files::ZipRecord data{.name = "n/data.pkl", .content = "\x80\x02N."};
  const testing_files::ZipRecord code{.name = "n/code/a.py", .content = ""};
  const testing_files::ZipRecord constants{.name = "n/constants.pkl", .content = "\x80\x02)."};
  const testing_files::ZipRecord version{.name = "n/version", .content = "3\n"};
  EXPECT_TRUE(Contents(BuildZip({data, code, constants, version})).ok());
  EXPECT_THAT(std::string(Contents(BuildZip({data, code, version})).status().message()),
              HasSubstr("no constants.pkl"));
  EXPECT_THAT(std::string(Contents(BuildZip({data, code, constants})).status().message()),
              HasSubstr("version"));
}

// What a hostile or damaged pickle does is decided by its own bytes, so each bit of them is tried.
TEST(TorchScriptArchive, SurvivesEveryFlippedBitOfThePickles) {
  for (const char* name : {"attributes", "quantized", "views", "frozen"}) {
    auto file = ReadData(std::string("torchscript/") + name + ".pt");
    const auto archive = Archive::Open(file);
    ASSERT_TRUE(archive.ok()) << archive.status();
    int refused = 0;
    for (const char* pickle : {"data.pkl", "constants.pkl"}) {
      const Archive::Record& record = *archive->Find(pickle);
      for (std::uint64_t bit = 0; bit < record.size * 8; ++bit) {
        std::byte& target = file[record.data_offset + bit / 8];
        const std::byte flip{static_cast<unsigned char>(1u << (bit % 8))};
        target ^= flip;
        if (!ReadTorchScript(*archive).ok()) ++refused;
        target ^= flip;
      }
    }
    EXPECT_GT(refused, 100) << name;
  }
}

TEST(TorchScriptArchive, RefusesEveryTruncatedPickle) {
  const auto file = ReadData("torchscript/attributes.pt");
  const auto archive = Archive::Open(file);
  ASSERT_TRUE(archive.ok()) << archive.status();
  const auto pickle = *archive->View(*archive->Find("data.pkl"));
  const auto any = [](std::string_view) { return UINT64_MAX; };
  ASSERT_TRUE(WalkPickle(pickle, any).ok());
  for (std::size_t length = 0; length < pickle.size(); ++length) {
    // A copy, so that the sanitizers see a step past its end.
    const std::vector<std::byte> cut(pickle.begin(),
                                     pickle.begin() + static_cast<std::ptrdiff_t>(length));
    EXPECT_FALSE(WalkPickle(cut, any).ok()) << length;
  }
}

}  // namespace
}  // namespace hearth
