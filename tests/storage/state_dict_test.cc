// Against tests/data/weights, which torch.save wrote.
#include "server/storage/state_dict.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <string>

#include "server/storage/weights_file.h"
#include "tests/storage/files.h"

namespace hearth {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

std::filesystem::path Data(const std::string& name) {
  return std::filesystem::path(HEARTH_SOURCE_DIR) / "tests/data/weights" / name;
}
absl::StatusOr<Weights> Read(const std::string& name) { return ReadWeights(Data(name)); }

const WeightTensor& Named(const Weights& weights, std::string_view name) {
  for (const WeightTensor& tensor : weights.tensors) {
    if (tensor.name == name) return tensor;
  }
  ADD_FAILURE() << "no tensor " << name;
  return weights.tensors.front();
}

TEST(StateDict, TiedAndViewedTensorsShareTheirStorage) {
  const auto weights = Read("some.pth");
  ASSERT_TRUE(weights.ok()) << weights.status();
  EXPECT_THAT(weights->tensors, SizeIs(6));
  const WeightTensor& weight = Named(*weights, "weight");
  const WeightTensor& view = Named(*weights, "view");
  EXPECT_EQ(Named(*weights, "tied").storage, weight.storage);
  EXPECT_EQ(view.storage, weight.storage);
  EXPECT_EQ(view.offset, 4 + 2);
  EXPECT_THAT(view.sizes, ElementsAre(2, 2));
  EXPECT_THAT(view.strides, ElementsAre(4, 1));
  EXPECT_THAT(Named(*weights, "turned").strides, ElementsAre(1, 4));
  EXPECT_THAT(Named(*weights, "größe").sizes, ElementsAre());
}

TEST(StateDict, BytesLieWhereTheFileHasThem) {
  const auto weights = Read("some.pth");
  ASSERT_TRUE(weights.ok());
  const WeightStorage& storage = weights->storages[Named(*weights, "größe").storage];
  EXPECT_TRUE(storage.mappable());
  float value = 0;
  std::memcpy(&value, storage.file->bytes().data() + storage.offset, sizeof value);
  EXPECT_EQ(value, 2.5F);
}

TEST(StateDict, ReadsEveryElementType) {
  const auto weights = Read("types.pth");
  ASSERT_TRUE(weights.ok()) << weights.status();
  for (const WeightTensor& tensor : weights->tensors) {
    EXPECT_EQ("torch." + std::string(tensor.type->torch), tensor.name);
    EXPECT_EQ(weights->storages[tensor.storage].size, 3 * tensor.type->size) << tensor.name;
  }
  EXPECT_THAT(weights->tensors, SizeIs(16));
}

TEST(StateDict, ReadsWhatModulesAndParametersAndCheckpointsHold) {
  for (const char* name : {"module.pth", "checkpoint.pth"}) {
    const auto weights = Read(name);
    ASSERT_TRUE(weights.ok()) << name << ": " << weights.status();
    EXPECT_THAT(weights->tensors, SizeIs(7)) << name;
    EXPECT_EQ(Named(*weights, "1.num_batches_tracked").type->name, "Long");
  }
  EXPECT_THAT(Read("parameters.pth")->tensors, SizeIs(4));
}

TEST(StateDict, RefusesPickledObjectsWithTheWayOut) {
  const absl::Status refused = Read("whole_module.pth").status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(refused.message(), HasSubstr("torch.nn.modules.container.Sequential"));
  EXPECT_THAT(refused.message(), HasSubstr("hearth pack"));
}

TEST(StateDict, RefusesADictionaryWithoutTensors) {
  EXPECT_THAT(Read("no_tensors.pth").status().message(), HasSubstr("no tensors by name"));
}

TEST(StateDict, RefusesATorchScriptArchive) {
  const auto refused = ReadWeights(std::filesystem::path(HEARTH_SOURCE_DIR) / "tests/data/torchscript/linear.pt");
  EXPECT_THAT(refused.status().message(), HasSubstr("serve it as model.pt"));
}

TEST(StateDict, SurvivesEveryFlippedBitOfAFile) {
  const testing_files::TempDir dir;
  const auto file = MappedFile::Open(Data("some.pth"));
  ASSERT_TRUE(file.ok());
  const std::span<const std::byte> bytes = (*file)->bytes();
  std::string content(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  for (std::size_t bit = 0; bit < content.size() * 8; bit += 5) {
    content[bit / 8] = static_cast<char>(content[bit / 8] ^ (1 << (bit % 8)));
    const auto weights = ReadWeights(dir.Write("w.pth", content));
    if (weights.ok()) {
      for (const WeightTensor& tensor : weights->tensors) ASSERT_LT(tensor.storage, weights->storages.size());
      for (const WeightStorage& storage : weights->storages) ASSERT_LE(storage.offset, content.size());
    }
    content[bit / 8] = static_cast<char>(content[bit / 8] ^ (1 << (bit % 8)));
  }
}

TEST(Safetensors, ReadsWhatTheLibraryWrites) {
  const auto types = Read("types.safetensors");
  ASSERT_TRUE(types.ok()) << types.status();
  EXPECT_THAT(types->tensors, SizeIs(16));
  for (const WeightTensor& tensor : types->tensors) {
    EXPECT_EQ("torch." + std::string(tensor.type->torch), tensor.name);
  }
  EXPECT_THAT(Read("some.safetensors")->tensors, SizeIs(6));
}

}  // namespace
}  // namespace hearth
