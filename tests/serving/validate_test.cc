#include "server/serving/validate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

namespace hearth {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr std::byte kBytes[4096] = {};

NamedTensor Input(std::string name, DType dtype, Shape shape, std::size_t bytes) {
  return {std::move(name), {dtype, std::move(shape), {kBytes, bytes}, nullptr}};
}

NamedTensor Strings(std::string name, Shape shape, std::string_view wire) {
  return {std::move(name),
          {DType::kBytes, std::move(shape),
           std::as_bytes(std::span<const char>(wire.data(), wire.size())), nullptr}};
}

Signature TwoInputs() {
  Signature signature;
  signature.inputs = {{"INPUT0", DType::kFp32, Shape{-1, 16}, false},
                      {"INPUT1", DType::kInt32, Shape{-1, 16}, false}};
  signature.outputs = {{"OUTPUT0", DType::kFp32, Shape{-1, 16}, false}};
  signature.max_batch_size = 8;
  return signature;
}

Signature AnyInput() {
  Signature signature;
  signature.inputs = {{"x", DType::kUnknown, std::nullopt, false}};
  signature.outputs_known = false;
  return signature;
}

TensorList GoodInputs(std::int64_t batch = 1) {
  const auto bytes = static_cast<std::size_t>(batch) * 64;
  return {Input("INPUT0", DType::kFp32, {batch, 16}, bytes),
          Input("INPUT1", DType::kInt32, {batch, 16}, bytes)};
}

absl::Status Validate(const TensorList& inputs, const Signature& signature = TwoInputs(),
                      const std::vector<std::string>& outputs = {}, const std::string& id = "7",
                      RequestLimits limits = {}) {
  const std::string model = "m";
  return ValidateRequest({model, id, inputs, outputs}, signature, limits);
}

// The text behind the prefix "[request id: 7] ".
std::string Refusal(const absl::Status& status) {
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  const std::string text(FromAbsl(status.message()));
  constexpr std::string_view kPrefix = "[request id: 7] ";
  EXPECT_THAT(text, StartsWith(std::string(kPrefix)));
  return text.starts_with(kPrefix) ? text.substr(kPrefix.size()) : text;
}

TEST(Validate, AcceptsWhatTheSignatureAsksFor) {
  EXPECT_TRUE(Validate(GoodInputs(1)).ok());
  EXPECT_TRUE(Validate(GoodInputs(8)).ok());
  EXPECT_TRUE(Validate(GoodInputs(0)).ok());
  EXPECT_TRUE(Validate(GoodInputs(1), TwoInputs(), {"OUTPUT0"}).ok());
}

TEST(Validate, TakesInputsInAnyOrder) {
  TensorList inputs = GoodInputs();
  std::swap(inputs[0], inputs[1]);
  EXPECT_TRUE(Validate(inputs).ok());
}

TEST(Validate, SaysWhoseRequestItWas) {
  EXPECT_THAT(std::string(FromAbsl(Validate({}, TwoInputs(), {}, "").message())),
              StartsWith("[request id: <id_unknown>] expected 2 inputs"));
  EXPECT_THAT(std::string(FromAbsl(Validate({}, TwoInputs(), {}, "abc").message())),
              StartsWith("[request id: abc] "));
}

TEST(Validate, NamesTheInputsThatAreMissing) {
  TensorList inputs = GoodInputs();
  inputs.pop_back();
  EXPECT_THAT(Refusal(Validate(inputs)),
              StartsWith("expected 2 inputs but got 1 inputs for model 'm'. Got input(s) "
                         "['INPUT0'], but missing required input(s) ['INPUT1']"));
}

TEST(Validate, OptionalInputsMayBeMissingAndOthersMayNot) {
  Signature signature = TwoInputs();
  signature.inputs[1].optional = true;
  TensorList inputs = GoodInputs();
  EXPECT_TRUE(Validate({inputs[0]}, signature).ok());
  EXPECT_THAT(
      Refusal(Validate({inputs[1]}, signature)),
      StartsWith("expected number of inputs between 1 and 2 but got 1 inputs for model 'm'. "
                 "Got input(s) ['INPUT1'], but missing required input(s) ['INPUT0']"));
}

TEST(Validate, RefusesAnUnexpectedInput) {
  TensorList inputs = GoodInputs();
  inputs[1].name = "X";
  EXPECT_EQ(Refusal(Validate(inputs)), "unexpected inference input 'X' for model 'm'");
  inputs = GoodInputs();
  inputs.push_back(Input("X", DType::kFp32, {1, 16}, 64));
  EXPECT_EQ(Refusal(Validate(inputs)), "unexpected inference input 'X' for model 'm'");
}

TEST(Validate, RefusesAnInputGivenTwice) {
  TensorList inputs = GoodInputs();
  inputs[1] = inputs[0];
  EXPECT_EQ(Refusal(Validate(inputs)), "input 'INPUT0' already exists in request");
}

TEST(Validate, RefusesOutputsThatDoNotExistOrComeTwice) {
  EXPECT_EQ(Refusal(Validate(GoodInputs(), TwoInputs(), {"X"})),
            "unexpected inference output 'X' for model 'm'");
  EXPECT_EQ(Refusal(Validate(GoodInputs(), TwoInputs(), {"OUTPUT0", "OUTPUT0"})),
            "output 'OUTPUT0' already exists in request");
}

TEST(Validate, LetsUnknownOutputsThroughWhereOnlyARunCanTell) {
  EXPECT_TRUE(Validate({Input("x", DType::kInt8, {3}, 3)}, AnyInput(), {"whatever"}).ok());
}

TEST(Validate, HoldsTheProgramToTheOutputsThatModelYamlDeclares) {
  Signature signature = AnyInput();
  signature.outputs_known = true;
  signature.outputs = {{"a", DType::kFp32, Shape{3}, false},
                       {"b", DType::kInt64, Shape{-1}, false}};
  const auto check = [&](const NamedTensor& output) {
    return CheckDeclaredOutputs({"m", "7", {}, {}}, signature, {output});
  };
  EXPECT_TRUE(check(Input("a", DType::kInt64, {}, 8)).ok()) << "learnt, not declared";

  signature.declared_outputs = {{"a", DType::kFp32, Shape{-1, 3}, false},
                                {"b", DType::kUnknown, std::nullopt, false}};
  EXPECT_TRUE(check(Input("a", DType::kFp32, {2, 3}, 24)).ok());
  EXPECT_TRUE(check(Input("b", DType::kInt64, {}, 8)).ok()) << "left open";
  EXPECT_TRUE(check(Input("c", DType::kInt64, {}, 8)).ok());
  const absl::Status type = check(Input("a", DType::kInt64, {2, 3}, 48));
  EXPECT_EQ(type, absl::InternalError("[request id: 7] model 'm' returned output 'a' as INT64 "
                                      "[2,3], but its configuration declares FP32 [-1,3]; mend one "
                                      "of them"));
  EXPECT_EQ(check(Input("a", DType::kFp32, {3}, 12)).code(), absl::StatusCode::kInternal);
}

TEST(Validate, RefusesAnotherDType) {
  TensorList inputs = GoodInputs();
  inputs[0].tensor.dtype = DType::kInt32;
  EXPECT_EQ(Refusal(Validate(inputs)),
            "inference input 'INPUT0' data-type is 'INT32', but model 'm' expects 'FP32'");
}

TEST(Validate, RefusesAnotherShape) {
  TensorList inputs = GoodInputs();
  inputs[1] = Input("INPUT1", DType::kInt32, {1, 17}, 68);
  EXPECT_EQ(Refusal(Validate(inputs)),
            "unexpected shape for input 'INPUT1' for model 'm'. Expected [-1,16], got [1,17].");
  inputs[1] = Input("INPUT1", DType::kInt32, {1, 16, 1}, 64);
  EXPECT_EQ(Refusal(Validate(inputs)),
            "unexpected shape for input 'INPUT1' for model 'm'. Expected [-1,16], got [1,16,1].");
}

TEST(Validate, RefusesABatchThatIsTooLarge) {
  EXPECT_EQ(Refusal(Validate(GoodInputs(9))), "inference request batch-size must be <= 8 for 'm'");
}

TEST(Validate, RefusesUnequalBatches) {
  TensorList inputs = GoodInputs(1);
  inputs[1] = GoodInputs(2)[1];
  EXPECT_EQ(Refusal(Validate(inputs)),
            "input 'INPUT1' batch size does not match other inputs for 'm'");
  inputs[1] = Input("INPUT1", DType::kInt32, {}, 4);
  EXPECT_THAT(Refusal(Validate(inputs)),
              StartsWith("input 'INPUT1' batch size does not match other inputs for 'm'"));
}

TEST(Validate, LeavesTheFirstDimensionAloneWithoutBatching) {
  Signature signature = TwoInputs();
  signature.max_batch_size = 0;
  TensorList inputs = GoodInputs(1);
  inputs[1] = GoodInputs(20)[1];
  EXPECT_TRUE(Validate(inputs, signature).ok());
}

TEST(Validate, RefusesTooFewAndTooManyBytes) {
  TensorList inputs = GoodInputs();
  inputs[0].tensor.data = {kBytes, 60};
  EXPECT_EQ(Refusal(Validate(inputs)),
            "input byte size mismatch for input 'INPUT0' for model 'm'. Expected 64, got 60");
  inputs[0].tensor.data = {kBytes, 65};
  EXPECT_THAT(Refusal(Validate(inputs)), EndsWith("Expected 64, got 65"));
}

TEST(Validate, RefusesAnInputWithoutData) {
  TensorList inputs = GoodInputs();
  inputs[0].tensor.data = {};
  EXPECT_EQ(Refusal(Validate(inputs)),
            "unable to find data for input tensor 'INPUT0' for model 'm' in request.");
}

TEST(Validate, AnEmptyTensorNeedsNoData) {
  EXPECT_TRUE(Validate({Input("x", DType::kFp32, {0, 16}, 0)}, AnyInput()).ok());
  EXPECT_TRUE(Validate({Strings("x", {0}, {})}, AnyInput()).ok());
  TensorList inputs = {Input("x", DType::kFp32, {0, 16}, 4)};
  EXPECT_THAT(Refusal(Validate(inputs, AnyInput())), EndsWith("Expected 0, got 4"));
}

TEST(Validate, AnOpenSignatureAcceptsEveryDTypeAndRank) {
  for (std::size_t i = 1; i < kDTypeCount; ++i) {
    const auto dtype = static_cast<DType>(i);
    if (dtype == DType::kBytes) continue;
    EXPECT_TRUE(Validate({Input("x", dtype, {}, SizeOf(dtype))}, AnyInput()).ok());
    EXPECT_TRUE(Validate({Input("x", dtype, {2, 3}, 6 * SizeOf(dtype))}, AnyInput()).ok());
  }
  EXPECT_THAT(Refusal(Validate({Input("x", DType::kUnknown, {1}, 1)}, AnyInput())),
              StartsWith("inference input 'x' data-type is ''"));
}

TEST(Validate, HoldsAgainstShapesThatCannotBe) {
  constexpr auto kHuge = std::numeric_limits<std::int64_t>::max();
  for (const Shape& shape :
       {Shape{-1}, Shape{-4, -4}, Shape{kHuge, 2}, Shape{kHuge, kHuge, 4}, Shape{kHuge / 2}}) {
    EXPECT_THAT(Refusal(Validate({Input("x", DType::kFp64, shape, 16)}, AnyInput())),
                HasSubstr("which no tensor can have"))
        << ToString(shape);
  }
  EXPECT_THAT(Refusal(Validate({Strings("x", {-1}, {})}, AnyInput())),
              HasSubstr("which no tensor can have"));
}

TEST(Validate, HoldsItsLimits) {
  RequestLimits limits;
  limits.max_tensors = 1;
  limits.max_dims = 2;
  EXPECT_TRUE(Validate({Input("x", DType::kInt8, {1, 1}, 1)}, AnyInput(), {"y"}, "7", limits).ok());
  EXPECT_THAT(
      Refusal(Validate({Input("x", DType::kInt8, {1, 1, 1}, 1)}, AnyInput(), {}, "7", limits)),
      HasSubstr("has 3 dimensions; at most 2"));
  EXPECT_THAT(Refusal(Validate(GoodInputs(), AnyInput(), {}, "7", limits)), HasSubstr("at most 1"));
  EXPECT_THAT(
      Refusal(Validate({Input("x", DType::kInt8, {1}, 1)}, AnyInput(), {"a", "b"}, "7", limits)),
      HasSubstr("at most 1"));
}

TEST(Validate, CountsStringElements) {
  using namespace std::string_view_literals;
  const auto check = [](Shape shape, std::string_view wire) {
    return Validate({Strings("x", std::move(shape), wire)}, AnyInput());
  };
  EXPECT_TRUE(check({2}, "\3\0\0\0abc\0\0\0\0"sv).ok());
  EXPECT_TRUE(check({}, "\1\0\0\0a"sv).ok());
  EXPECT_EQ(Refusal(check({3}, "\3\0\0\0abc\0\0\0\0"sv)),
            "expected 3 string elements for inference input 'x' for model 'm', got 2");
  EXPECT_THAT(Refusal(check({1}, "\3\0\0\0abc\0\0\0\0"sv)),
              StartsWith("unexpected number of string elements 2 for inference input 'x'"));
  EXPECT_THAT(Refusal(check({2}, "\3\0\0\0abc\0\0"sv)),
              StartsWith("incomplete string length indicator for inference input 'x'"));
  EXPECT_THAT(Refusal(check({1}, "\4\0\0\0abc"sv)),
              StartsWith("incomplete string data for inference input 'x'"));
  EXPECT_THAT(Refusal(check({1}, "\xff\xff\xff\xff"sv)),
              StartsWith("incomplete string data for inference input 'x'"));
}

TEST(Validate, CountsBatchElements) {
  EXPECT_EQ(BatchSize(GoodInputs(5), TwoInputs()), 5);
  Signature signature = TwoInputs();
  signature.max_batch_size = 0;
  EXPECT_EQ(BatchSize(GoodInputs(5), signature), 1);
  EXPECT_EQ(BatchSize({}, TwoInputs()), 1);
}

TEST(Validate, RefusesStringsForATensorOfTheProgram) {
  Signature signature = AnyInput();
  const TensorList words = {Strings("x", {1}, std::string_view("\1\0\0\0a", 5))};
  EXPECT_TRUE(Validate(words, signature).ok());
  signature.inputs[0].is_tensor = true;
  EXPECT_EQ(Refusal(Validate(words, signature)),
            "inference input 'x' data-type is 'BYTES', but model 'm' expects 'any but BYTES'");
  EXPECT_TRUE(Validate({Input("x", DType::kFp16, {2}, 4)}, signature).ok());
}

}  // namespace
}  // namespace hearth
