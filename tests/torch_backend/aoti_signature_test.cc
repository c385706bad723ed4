#include "server/torch_backend/aoti_signature.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace hearth {
namespace {

using ::testing::HasSubstr;

Tensor Zeros(DType dtype, Shape shape) {
  const std::size_t size = *ByteSize(dtype, shape);
  auto bytes = std::make_shared<std::vector<std::byte>>(size);
  return {dtype, std::move(shape), *bytes, bytes};
}

ModelOptions Declared(std::vector<TensorInfo> inputs) {
  ModelOptions options;
  options.inputs = std::move(inputs);
  return options;
}

std::string Message(const absl::Status& status) { return std::string(status.message()); }

const TensorInfo kX{"x", DType::kFp32, Shape{-1, 4}, false};
const TensorInfo kY{"y", DType::kFp32, Shape{-1, -1}, false};

AotiMetadata Named() {
  AotiMetadata metadata;
  metadata.has_signature = true;
  metadata.inputs = {{kX, {"n", ""}}, {kY, {"", "n"}}};
  metadata.outputs = {{{"out", DType::kFp32, Shape{-1}, false}, {""}}};
  metadata.dimensions["n"] = {1, 8};
  return metadata;
}

TEST(AotiSignature, EveryInputNeedsATypeAndAShape) {
  const auto nothing = AotiSignature::Make({}, {}, 2, 1);
  EXPECT_THAT(Message(nothing.status()), HasSubstr("declare each in model.yaml"));
  const auto no_shape = AotiSignature::Make({}, Declared({{"x", DType::kFp32, std::nullopt, false}}), 1, 1);
  EXPECT_THAT(Message(no_shape.status()), HasSubstr("declare each in model.yaml"));
  const auto too_few = AotiSignature::Make({}, Declared({kX}), 2, 1);
  EXPECT_THAT(Message(too_few.status()), HasSubstr("model.yaml declares 1 input, but the program has 2"));
}

TEST(AotiSignature, OutputsWithoutNamesAreCountedAsTritonDoes) {
  const auto made = AotiSignature::Make({}, Declared({kX}), 1, 2);
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_EQ(made->output_names(), (std::vector<std::string>{"OUTPUT__0", "OUTPUT__1"}));
}

TEST(AotiSignature, OpenFirstDimensionsAreOneBatchWhereNothingElseIsSaid) {
  const auto made = AotiSignature::Make({}, Declared({kX, kY}), 2, 1);
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_TRUE(made->CheckInputs({{"y", Zeros(DType::kFp32, {3, 7})}, {"x", Zeros(DType::kFp32, {3, 4})}}).ok());
  const auto differ = made->CheckInputs({{"x", Zeros(DType::kFp32, {3, 4})}, {"y", Zeros(DType::kFp32, {2, 7})}});
  EXPECT_EQ(differ.status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(AotiSignature, InputsComeInTheProgramsOrder) {
  const auto made = AotiSignature::Make({}, Declared({kX, kY}), 2, 1);
  const TensorList inputs = {{"y", Zeros(DType::kFp32, {3, 7})}, {"x", Zeros(DType::kFp32, {3, 4})}};
  const auto ordered = made->CheckInputs(inputs);
  ASSERT_TRUE(ordered.ok()) << ordered.status();
  EXPECT_EQ((*ordered)[0], &inputs[1].tensor);
  EXPECT_EQ((*ordered)[1], &inputs[0].tensor);
}

TEST(AotiSignature, DimensionsOfOneNameHaveOneSizeWithinTheirRange) {
  const auto made = AotiSignature::Make(Named(), {}, 2, 1);
  ASSERT_TRUE(made.ok()) << made.status();
  const auto check = [&](Shape x, Shape y) {
    return made->CheckInputs({{"x", Zeros(DType::kFp32, std::move(x))}, {"y", Zeros(DType::kFp32, std::move(y))}})
        .status();
  };
  EXPECT_TRUE(check({3, 4}, {5, 3}).ok());
  EXPECT_THAT(Message(check({3, 4}, {3, 5})), HasSubstr("'y' has 5 in dimension 1"));
  EXPECT_THAT(Message(check({9, 4}, {1, 9})), HasSubstr("1 to 8"));
  EXPECT_THAT(Message(check({0, 4}, {1, 0})), HasSubstr("1 to 8"));
  EXPECT_THAT(Message(check({3, 5}, {1, 3})), HasSubstr("compiled for [-1,4]"));
  EXPECT_THAT(Message(check({4}, {1, 4})), HasSubstr("compiled for [-1,4]"));
}

TEST(AotiSignature, AnotherTypeOrNoInputIsRefused) {
  const auto made = AotiSignature::Make({}, Declared({kX}), 1, 1);
  EXPECT_THAT(Message(made->CheckInputs({{"x", Zeros(DType::kFp64, {1, 4})}}).status()), HasSubstr("is FP64"));
  EXPECT_THAT(Message(made->CheckInputs({}).status()), HasSubstr("is missing"));
}

TEST(AotiSignature, ModelYamlMayNarrowAndNotContradict) {
  const auto narrowed = AotiSignature::Make(Named(), Declared({{"x", DType::kUnknown, Shape{2, 4}, false}}), 2, 1);
  ASSERT_TRUE(narrowed.ok()) << narrowed.status();
  EXPECT_EQ(*narrowed->signature().inputs[0].shape, (Shape{2, 4}));
  EXPECT_THAT(Message(AotiSignature::Make(Named(), Declared({{"x", DType::kUnknown, Shape{-1, -1}, false}}), 2, 1).status()),
              HasSubstr("compiled for [-1,4]"));
  EXPECT_THAT(Message(AotiSignature::Make(Named(), Declared({{"x", DType::kInt64, std::nullopt, false}}), 2, 1).status()),
              HasSubstr("compiled for FP32"));
}

TEST(AotiSignature, MetadataThatTheLibraryContradictsIsRefused) {
  EXPECT_THAT(Message(AotiSignature::Make(Named(), {}, 3, 1).status()), HasSubstr("its library has 3"));
}

TEST(AotiSignature, ProbesAreShapesThatItTakes) {
  const auto made = AotiSignature::Make(Named(), {}, 2, 1);
  EXPECT_EQ(made->ProbeShapes(), (std::vector<Shape>{{2, 4}, {2, 2}}));
}

}  // namespace
}  // namespace hearth
