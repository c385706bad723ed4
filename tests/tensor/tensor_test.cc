#include "server/tensor/tensor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <limits>

namespace hearth {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr std::int64_t kHuge = std::numeric_limits<std::int64_t>::max();

// A kBytes tensor over `wire`, which must outlive it.
Tensor Wire(const std::string& wire, Shape shape) {
  Tensor tensor;
  tensor.dtype = DType::kBytes;
  tensor.shape = std::move(shape);
  tensor.data = std::as_bytes(std::span(wire));
  return tensor;
}

std::string Refusal(const std::string& wire, Shape shape) {
  const auto elements = UnpackBytes(Wire(wire, std::move(shape)));
  EXPECT_EQ(elements.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(elements.status().message());
}

TEST(Shape, IsPrintedAsTritonPrintsIt) {
  EXPECT_EQ(ToString(Shape{}), "[]");
  EXPECT_EQ(ToString(Shape{-1, 16}), "[-1,16]");
}

TEST(ElementCount, MultipliesAndNoticesWhatDoesNotFit) {
  EXPECT_EQ(ElementCount({}), 1);
  EXPECT_EQ(ElementCount({2, 3, 4}), 24);
  EXPECT_EQ(ElementCount({2, 0, 4}), 0);
  EXPECT_EQ(ElementCount({kHuge}), kHuge);
  EXPECT_EQ(ElementCount({-1, 2}), std::nullopt);
  EXPECT_EQ(ElementCount({kHuge, 2}), std::nullopt);
  EXPECT_EQ(ElementCount({std::int64_t{1} << 32, std::int64_t{1} << 32}), std::nullopt);
  // An empty tensor's other dimensions must be sane as well, on either side of the zero.
  EXPECT_EQ(ElementCount({0, kHuge, 2}), std::nullopt);
  EXPECT_EQ(ElementCount({kHuge, 2, 0}), std::nullopt);
  EXPECT_EQ(ElementCount({0, -1}), std::nullopt);
}

TEST(ByteSize, IsOnlyKnownForDenseTypes) {
  EXPECT_EQ(ByteSize(DType::kFp32, {2, 3}), 24u);
  EXPECT_EQ(ByteSize(DType::kBool, {}), 1u);
  EXPECT_EQ(ByteSize(DType::kInt64, {0}), 0u);
  EXPECT_EQ(ByteSize(DType::kBytes, {2}), std::nullopt);
  EXPECT_EQ(ByteSize(DType::kUnknown, {2}), std::nullopt);
  EXPECT_EQ(ByteSize(DType::kInt64, {kHuge}), std::nullopt);
  EXPECT_EQ(ByteSize(DType::kInt8, {kHuge, 2}), std::nullopt);
}

TEST(Find, GivesTheTensorOfThatName) {
  TensorList tensors(2);
  tensors[0].name = "a";
  tensors[1].name = "b";
  EXPECT_EQ(Find(tensors, "b"), &tensors[1].tensor);
  EXPECT_EQ(Find(tensors, "c"), nullptr);
  EXPECT_EQ(Find({}, "a"), nullptr);
}

TEST(BytesTensor, KeepsItsElementsThroughPackingAndUnpacking) {
  const std::string with_zero("x\0y", 3);
  const std::vector<std::string_view> elements = {"hello", "", with_zero, "\xff\xfe"};
  const Tensor tensor = PackBytes(elements, {2, 2});
  EXPECT_EQ(tensor.dtype, DType::kBytes);
  EXPECT_EQ(tensor.shape, (Shape{2, 2}));
  EXPECT_EQ(tensor.data.size(), 4 * 4 + 5 + 0 + 3 + 2u);
  const auto back = UnpackBytes(tensor);
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(*back, elements);
}

TEST(BytesTensor, OwnsItsBytes) {
  Tensor copy;
  {
    const std::string text = "gone";
    const std::vector<std::string_view> elements = {text};
    const Tensor tensor = PackBytes(elements, {1});
    copy = tensor;
  }
  EXPECT_THAT(*UnpackBytes(copy), ElementsAre("gone"));
}

TEST(BytesTensor, HasLittleEndianLengths) {
  const std::vector<std::string_view> elements = {"ab"};
  const Tensor tensor = PackBytes(elements, {});
  const std::string expected("\x02\0\0\0ab", 6);
  ASSERT_EQ(tensor.data.size(), expected.size());
  EXPECT_EQ(std::memcmp(tensor.data.data(), expected.data(), expected.size()), 0);
}

TEST(BytesTensor, CanBeEmpty) {
  EXPECT_TRUE(UnpackBytes(Wire("", {0}))->empty());
  EXPECT_TRUE(UnpackBytes(PackBytes({}, {3, 0}))->empty());
}

TEST(UnpackBytes, RefusesLengthsThatDoNotAddUp) {
  using namespace std::string_literals;
  EXPECT_THAT(Refusal("\x01\0"s, {1}),
              HasSubstr("incomplete string length indicator: 2 bytes left"));
  EXPECT_THAT(Refusal("\x05\0\0\0abc"s, {1}), HasSubstr("expected 5 bytes, 3 are left"));
  EXPECT_THAT(Refusal("\xff\xff\xff\xff"s, {1}),
              HasSubstr("expected 4294967295 bytes, 0 are left"));
  EXPECT_THAT(Refusal("\0\0\0\0\x01"s, {1}), HasSubstr("incomplete string length indicator"));
}

TEST(UnpackBytes, RefusesAnotherNumberOfElementsThanTheShapeHas) {
  using namespace std::string_literals;
  EXPECT_THAT(Refusal("\0\0\0\0\0\0\0\0"s, {1}),
              HasSubstr("unexpected number of string elements 2"));
  EXPECT_THAT(Refusal("\0\0\0\0"s, {2}), HasSubstr("expected 2 string elements, got 1"));
  EXPECT_THAT(Refusal("", {1}), HasSubstr("expected 1 string elements, got 0"));
  EXPECT_THAT(Refusal("", {-1}), HasSubstr("bad shape [-1]"));
}

}  // namespace
}  // namespace hearth
