#include "server/frontend/convert.h"

#include <gmock/gmock.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/slice.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "tests/serving/shared_object.h"

namespace hearth {
namespace {

using inference::InferTensorContents;
using inference::ModelInferRequest;
using inference::ModelInferResponse;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

constexpr TimePoint kNow{std::chrono::hours(1)};

// The bytes of `values`, one after the other.
template <typename T>
std::string BytesOf(std::initializer_list<T> values) {
  std::string bytes;
  for (const T value : values) {
    char raw[sizeof value];
    std::memcpy(raw, &value, sizeof value);
    bytes.append(raw, sizeof value);
  }
  return bytes;
}

std::string DataOf(const Tensor& tensor) {
  return {reinterpret_cast<const char*>(tensor.data.data()), tensor.data.size()};
}

class ConvertTest : public testing::Test {
 protected:
  ConvertTest() { wire_.set_model_name("m"); }

  ModelInferRequest::InferInputTensor& AddInput(const std::string& name,
                                                const std::string& datatype, const Shape& shape) {
    auto* input = wire_.add_inputs();
    input->set_name(name);
    input->set_datatype(datatype);
    input->mutable_shape()->Add(shape.begin(), shape.end());
    return *input;
  }
  void AddRaw(const std::string& name, const std::string& datatype, const Shape& shape,
              const std::string& raw) {
    AddInput(name, datatype, shape);
    wire_.add_raw_input_contents(raw);
  }
  inference::InferParameter& Parameter(const std::string& name) {
    return (*wire_.mutable_parameters())[name];
  }

  // As it arrives: through its bytes.
  absl::StatusOr<InferRequest> Convert(Deadline deadline = kNoDeadline, const SharedMemory* memory = nullptr) {
    const grpc::Slice slice(wire_.SerializeAsString());
    grpc::ByteBuffer bytes(&slice, 1);
    const auto message = TakeInferRequest(bytes, pool_);
    EXPECT_TRUE(message.ok()) << message.status();
    return ToInferRequest(*message, pool_, memory == nullptr ? memory_ : *memory, deadline, kNow, targets_);
  }
  static ModelInferResponse Answer(const InferResponse& response, const std::string& id,
                                   const OutputTargets& targets = {}) {
    auto bytes = ToWire(response, id, InferRpc::kUnary, targets);
    EXPECT_TRUE(bytes.ok()) << bytes.status();
    ModelInferResponse answer;
    grpc::Slice slice;
    EXPECT_TRUE(bytes->DumpToSingleSlice(&slice).ok());
    EXPECT_TRUE(answer.ParseFromArray(slice.begin(), static_cast<int>(slice.size())));
    return answer;
  }
  // The refusal, without the request's id.
  absl::Status Refusal() {
    const absl::Status status = Convert().status();
    const std::string prefix = "[request id: <id_unknown>] ";
    const std::string text(FromAbsl(status.message()));
    EXPECT_THAT(text, StartsWith(prefix));
    return absl::Status(status.code(), text.substr(std::min(prefix.size(), text.size())));
  }

  BufferPool pool_{1 << 20};
  SharedMemory memory_{/*allowed=*/true};
  OutputTargets targets_;
  ModelInferRequest wire_;
};

// --- raw contents ---

class RawTest : public ConvertTest, public testing::WithParamInterface<int> {};

TEST_P(RawTest, ComesInAndGoesOutUnchanged) {
  const auto dtype = static_cast<DType>(GetParam());
  const std::string name(ToString(dtype));
  const std::string raw = dtype == DType::kBytes
                              ? BytesOf<std::uint32_t>({1}) + "a" + BytesOf<std::uint32_t>({0})
                              : std::string(2 * SizeOf(dtype), '\x01');
  AddRaw("x", name, {2, 1}, raw);
  const auto request = Convert();
  ASSERT_TRUE(request.ok()) << request.status();
  ASSERT_EQ(request->inputs.size(), 1u);
  EXPECT_EQ(request->inputs[0].name, "x");
  const Tensor& tensor = request->inputs[0].tensor;
  EXPECT_EQ(tensor.dtype, dtype);
  EXPECT_THAT(tensor.shape, ElementsAre(2, 1));
  EXPECT_EQ(DataOf(tensor), raw);

  const ModelInferResponse answer = Answer({{"m", 7}, {{"y", tensor}}}, "id");
  ASSERT_EQ(answer.outputs_size(), 1);
  EXPECT_EQ(answer.outputs(0).name(), "y");
  EXPECT_EQ(answer.outputs(0).datatype(), name);
  EXPECT_THAT(answer.outputs(0).shape(), ElementsAre(2, 1));
  EXPECT_FALSE(answer.outputs(0).has_contents());
  EXPECT_THAT(answer.raw_output_contents(), ElementsAre(raw));
}

INSTANTIATE_TEST_SUITE_P(EveryType, RawTest, testing::Range(1, static_cast<int>(kDTypeCount)),
                         [](const auto& type) {
                           return std::string(ToString(static_cast<DType>(type.param)));
                         });

TEST_F(ConvertTest, RawBytesAreAlignedAndTheRequestsOwn) {
  AddRaw("x", "UINT8", {3}, "abc");
  auto request = Convert();
  ASSERT_TRUE(request.ok());
  wire_.Clear();
  const Tensor& tensor = request->inputs[0].tensor;
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(tensor.data.data()) % 64, 0u);
  EXPECT_EQ(DataOf(tensor), "abc");
  EXPECT_EQ(pool_.kept_bytes(), 0u);
  request = InferRequest();
  EXPECT_GT(pool_.kept_bytes(), 0u);  // it came from the pool, and is back
}

TEST_F(ConvertTest, RawContentsGoByPosition) {
  AddRaw("a", "UINT8", {1}, "1");
  AddRaw("b", "UINT8", {1}, "2");
  const auto request = Convert();
  ASSERT_TRUE(request.ok());
  EXPECT_EQ(DataOf(*Find(request->inputs, "a")), "1");
  EXPECT_EQ(DataOf(*Find(request->inputs, "b")), "2");
}

TEST_F(ConvertTest, ARequestWithoutInputsIsLeftToTheModel) {
  const auto request = Convert();
  ASSERT_TRUE(request.ok());
  EXPECT_TRUE(request->inputs.empty());
}

// --- typed contents ---

struct TypedCase {
  const char* datatype;
  std::function<void(InferTensorContents&)> fill;  // three elements
  std::string raw;                                 // the same, in bytes
};

class TypedTest : public ConvertTest, public testing::WithParamInterface<TypedCase> {};

TEST_P(TypedTest, BecomesTheSameBytesAsRaw) {
  GetParam().fill(*AddInput("x", GetParam().datatype, {3}).mutable_contents());
  const auto request = Convert();
  ASSERT_TRUE(request.ok()) << request.status();
  const Tensor& tensor = request->inputs[0].tensor;
  EXPECT_EQ(ToString(tensor.dtype), GetParam().datatype);
  EXPECT_EQ(DataOf(tensor), GetParam().raw);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(tensor.data.data()) % 64, 0u);
}

template <typename T, typename Field>
void Fill(Field* field, std::initializer_list<T> values) {
  for (const T value : values) field->Add(value);
}

#define INTEGERS(name, type, field)                                                            \
  TypedCase {                                                                                  \
    name,                                                                                      \
        [](InferTensorContents& c) {                                                           \
          Fill<type>(c.mutable_##field(),                                                      \
                     {std::numeric_limits<type>::min(), 1, std::numeric_limits<type>::max()}); \
        },                                                                                     \
        BytesOf<type>({std::numeric_limits<type>::min(), 1, std::numeric_limits<type>::max()}) \
  }

INSTANTIATE_TEST_SUITE_P(
    EveryType, TypedTest,
    testing::Values(INTEGERS("INT8", std::int8_t, int_contents),
                    INTEGERS("INT16", std::int16_t, int_contents),
                    INTEGERS("INT32", std::int32_t, int_contents),
                    INTEGERS("INT64", std::int64_t, int64_contents),
                    INTEGERS("UINT8", std::uint8_t, uint_contents),
                    INTEGERS("UINT16", std::uint16_t, uint_contents),
                    INTEGERS("UINT32", std::uint32_t, uint_contents),
                    INTEGERS("UINT64", std::uint64_t, uint64_contents),
                    TypedCase{"BOOL",
                              [](InferTensorContents& c) {
                                Fill<bool>(c.mutable_bool_contents(), {true, false, true});
                              },
                              BytesOf<bool>({true, false, true})},
                    TypedCase{"FP32",
                              [](InferTensorContents& c) {
                                Fill<float>(c.mutable_fp32_contents(), {-1.5F, 0.0F, 1e30F});
                              },
                              BytesOf<float>({-1.5F, 0.0F, 1e30F})},
                    TypedCase{"FP64",
                              [](InferTensorContents& c) {
                                Fill<double>(c.mutable_fp64_contents(), {-1.5, 0.0, 1e300});
                              },
                              BytesOf<double>({-1.5, 0.0, 1e300})},
                    TypedCase{"BYTES",
                              [](InferTensorContents& c) {
                                c.add_bytes_contents("one");
                                c.add_bytes_contents("");
                                c.add_bytes_contents(std::string("\0\xff", 2));
                              },
                              BytesOf<std::uint32_t>({3}) + "one" + BytesOf<std::uint32_t>({0}) +
                                  BytesOf<std::uint32_t>({2}) + std::string("\0\xff", 2)}),
    [](const auto& test) { return std::string(test.param.datatype); });

TEST_F(ConvertTest, AValueThatDoesNotFitItsTypeIsRefused) {
  AddInput("x", "INT8", {1}).mutable_contents()->add_int_contents(128);
  const absl::Status status = Refusal();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(FromAbsl(status.message()), "value 128 of input 'x' for model 'm' does not fit INT8");

  wire_.clear_inputs();
  AddInput("x", "INT16", {1}).mutable_contents()->add_int_contents(-40'000);
  EXPECT_THAT(Refusal().ToString(), HasSubstr("value -40000"));
  wire_.clear_inputs();
  AddInput("x", "UINT8", {1}).mutable_contents()->add_uint_contents(256);
  EXPECT_THAT(Refusal().ToString(), HasSubstr("value 256"));
  wire_.clear_inputs();
  AddInput("x", "UINT16", {1}).mutable_contents()->add_uint_contents(65'536);
  EXPECT_THAT(Refusal().ToString(), HasSubstr("value 65536"));
}

TEST_F(ConvertTest, AnEmptyTensorNeedsNoData) {
  for (const char* datatype : {"FP32", "FP16", "BF16", "BYTES", "INT8"}) {
    wire_.clear_inputs();
    AddInput("x", datatype, {0, 3});
    const auto request = Convert();
    ASSERT_TRUE(request.ok()) << request.status();
    EXPECT_TRUE(request->inputs[0].tensor.data.empty());
  }
}

// --- refusals ---

TEST_F(ConvertTest, RawAndTypedContentsTogetherAreRefused) {
  AddRaw("x", "FP32", {1}, "1234");
  wire_.mutable_inputs(0)->mutable_contents()->add_fp32_contents(1);
  const absl::Status status = Refusal();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(
      FromAbsl(status.message()),
      "contents field must not be specified when using raw_input_contents for 'x' for model 'm'");
}

TEST_F(ConvertTest, TypedContentsOfAnotherTypeAreRefused) {
  AddInput("x", "FP32", {1}).mutable_contents()->add_int_contents(1);
  const absl::Status status = Refusal();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(FromAbsl(status.message()),
            "unexpected explicit tensor data for input tensor 'x' for model 'm' of type 'INT32', "
            "expected datatype 'FP32'");
}

TEST_F(ConvertTest, TypedContentsOfTwoTypesAreRefused) {
  auto* contents = AddInput("x", "FP32", {1}).mutable_contents();
  contents->add_fp32_contents(1);
  contents->add_bytes_contents("x");
  EXPECT_THAT(Refusal().ToString(), HasSubstr("of type 'BYTES', expected datatype 'FP32'"));
}

TEST_F(ConvertTest, HalfPrecisionHasNoTypedContents) {
  for (const char* datatype : {"FP16", "BF16"}) {
    wire_.clear_inputs();
    AddInput("x", datatype, {1}).mutable_contents()->add_fp32_contents(1);
    EXPECT_THAT(Refusal().ToString(), HasSubstr("of type 'FP32', expected datatype"));
  }
}

TEST_F(ConvertTest, AnInputWithoutDataIsRefused) {
  AddInput("x", "FP32", {1});
  EXPECT_EQ(FromAbsl(Refusal().message()),
            "unable to find data for input tensor 'x' for model 'm' in request.");
  wire_.mutable_inputs(0)->mutable_contents();  // there, and empty
  EXPECT_THAT(Refusal().ToString(), HasSubstr("unable to find data for input tensor 'x'"));
}

TEST_F(ConvertTest, FewerRawContentsThanInputsAreRefused) {
  AddRaw("a", "UINT8", {1}, "1");
  AddInput("b", "UINT8", {1});
  EXPECT_THAT(Refusal().ToString(), HasSubstr("unable to find data for input tensor 'b'"));
}

TEST_F(ConvertTest, MoreRawContentsThanInputsAreRefused) {
  AddRaw("a", "UINT8", {1}, "1");
  wire_.add_raw_input_contents("2");
  EXPECT_EQ(FromAbsl(Refusal().message()),
            "expected at most 1 raw_input_contents, one per input, for model 'm', got 2");
}

TEST_F(ConvertTest, ADatatypeThatDoesNotExistIsRefused) {
  for (const char* datatype : {"", "FP7", "fp32", "STRING"}) {
    wire_.Clear();
    wire_.set_model_name("m");
    AddRaw("x", datatype, {1}, "1234");
    const absl::Status status = Refusal();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(
        std::string(FromAbsl(status.message())),
        StartsWith(StrCat("unknown data-type '", datatype, "' for input 'x' for model 'm'")));
  }
}

TEST_F(ConvertTest, RefusalsNameTheRequest) {
  AddInput("x", "FP32", {1});
  wire_.set_id("r-17");
  EXPECT_THAT(Convert().status().ToString(), HasSubstr("[request id: r-17] unable to find data"));
}

TEST_F(ConvertTest, SizesAreLeftToServing) {
  AddRaw("x", "FP32", {-1, 4}, "123");
  const auto request = Convert();
  ASSERT_TRUE(request.ok());
  EXPECT_THAT(request->inputs[0].tensor.shape, ElementsAre(-1, 4));
  EXPECT_EQ(DataOf(request->inputs[0].tensor), "123");
}

// --- everything beside the tensors ---

TEST_F(ConvertTest, NamesAndOutputsAreTakenOver) {
  wire_.set_model_version("3");
  wire_.set_id("42");
  wire_.add_outputs()->set_name("b");
  wire_.add_outputs()->set_name("a");
  const Deadline deadline = kNow + std::chrono::seconds(5);
  const auto request = Convert(deadline);
  ASSERT_TRUE(request.ok());
  EXPECT_EQ(request->model, "m");
  EXPECT_EQ(request->version, "3");
  EXPECT_EQ(request->id, "42");
  EXPECT_THAT(request->outputs, ElementsAre("b", "a"));
  EXPECT_EQ(request->deadline, deadline);
  EXPECT_EQ(request->received, kNow);
}

TEST_F(ConvertTest, ATimeoutTightensTheDeadline) {
  Parameter("timeout").set_int64_param(2'000'000);
  EXPECT_EQ(Convert()->deadline, kNow + std::chrono::seconds(2));
  EXPECT_EQ(Convert(kNow + std::chrono::seconds(5))->deadline, kNow + std::chrono::seconds(2));
  EXPECT_EQ(Convert(kNow + std::chrono::seconds(1))->deadline, kNow + std::chrono::seconds(1));
}

TEST_F(ConvertTest, ATimeoutOfZeroOrOfAgesIsNone) {
  Parameter("timeout").set_int64_param(0);
  EXPECT_EQ(Convert()->deadline, kNoDeadline);
  Parameter("timeout").set_int64_param(std::numeric_limits<std::int64_t>::max());
  EXPECT_EQ(Convert()->deadline, kNoDeadline);
  EXPECT_EQ(Convert(kNow + std::chrono::seconds(1))->deadline, kNow + std::chrono::seconds(1));
}

TEST_F(ConvertTest, AKeepAliveIsATimeOrSeconds) {
  EXPECT_EQ(Convert()->keep_alive, std::nullopt);
  Parameter("keep_alive").set_string_param("5m");
  EXPECT_EQ(Convert()->keep_alive, std::chrono::minutes(5));
  Parameter("keep_alive").set_int64_param(90);
  EXPECT_EQ(Convert()->keep_alive, std::chrono::seconds(90));
  Parameter("keep_alive").set_string_param("soon");
  EXPECT_THAT(Refusal().ToString(), HasSubstr("invalid value 'soon' for 'keep_alive' parameter, expected a time"));
  Parameter("keep_alive").set_bool_param(true);
  EXPECT_THAT(Refusal().ToString(), HasSubstr("expected string_param or int64_param"));
}

TEST_F(ConvertTest, AParameterOfTheWrongTypeIsRefused) {
  Parameter("timeout").set_string_param("soon");
  const absl::Status status = Refusal();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(FromAbsl(status.message()),
            "invalid value type for 'timeout' parameter, expected int64_param.");
  for (const char* name :
       {"priority", "sequence_start", "sequence_end", "triton_enable_empty_final_response"}) {
    wire_.clear_parameters();
    Parameter(name).set_double_param(1);
    EXPECT_THAT(Refusal().ToString(),
                HasSubstr(StrCat("invalid value type for '", name, "' parameter")));
  }
  wire_.clear_parameters();
  Parameter("sequence_id").set_bool_param(true);
  EXPECT_THAT(Refusal().ToString(), HasSubstr("invalid value type for 'sequence_id' parameter"));
  wire_.clear_parameters();
  Parameter("priority").set_int64_param(-1);
  EXPECT_EQ(Refusal().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(ConvertTest, ANegativeTimeoutIsRefused) {
  Parameter("timeout").set_int64_param(-1);
  EXPECT_THAT(Refusal().ToString(), HasSubstr("invalid value -1 for 'timeout' parameter"));
}

TEST_F(ConvertTest, ParametersThatChangeNothingAreAccepted) {
  Parameter("triton_enable_empty_final_response").set_bool_param(true);
  Parameter("triton_something_new").set_string_param("x");
  Parameter("custom").set_double_param(0.5);
  Parameter("priority").set_uint64_param(3);
  Parameter("sequence_id").set_int64_param(0);
  Parameter("sequence_start").set_bool_param(false);
  EXPECT_TRUE(Convert().ok()) << Convert().status();
}

TEST_F(ConvertTest, ReadsWhichSequenceItIsOf) {
  EXPECT_EQ(Convert()->sequence, std::nullopt);
  Parameter("sequence_id").set_int64_param(7);
  Parameter("sequence_start").set_bool_param(true);
  auto sequence = Convert()->sequence.value();
  EXPECT_EQ(sequence.id, "7");
  EXPECT_TRUE(sequence.start && !sequence.end);
  Parameter("sequence_id").set_uint64_param(7);
  EXPECT_EQ(Convert()->sequence->id, "7");
  Parameter("sequence_id").set_string_param("7");
  EXPECT_EQ(Convert()->sequence->id, "'7'");  // another one
  Parameter("sequence_id").set_string_param("");
  EXPECT_EQ(Convert()->sequence, std::nullopt);
  Parameter("sequence_id").set_string_param(std::string(129, 's'));
  EXPECT_THAT(Refusal().ToString(), HasSubstr("'sequence_id' is longer than 128 bytes"));
}

TEST_F(ConvertTest, ReadsItsPriority) {
  EXPECT_EQ(Convert()->priority, 0);
  Parameter("priority").set_uint64_param(3);
  EXPECT_EQ(Convert()->priority, 3);
  Parameter("priority").set_int64_param(2);
  EXPECT_EQ(Convert()->priority, 2);
  Parameter("priority").set_uint64_param(std::numeric_limits<std::uint64_t>::max());
  EXPECT_EQ(Convert()->priority, std::numeric_limits<int>::max());
}

// --- shared memory ---

class SharedTensorTest : public ConvertTest {
 protected:
  SharedTensorTest() {
    object_.Set("0123456789abcdef");
    EXPECT_TRUE(memory_.Register({"r", object_.key(), 2, 12}).ok());  // 23456789abcd
  }
  using Parameters = google::protobuf::Map<std::string, inference::InferParameter>;
  static void Place(Parameters& parameters, std::int64_t offset, std::int64_t size, const std::string& region = "r") {
    parameters["shared_memory_region"].set_string_param(region);
    parameters["shared_memory_byte_size"].set_int64_param(size);
    if (offset != 0) parameters["shared_memory_offset"].set_int64_param(offset);
  }
  Parameters& AddOutput(const std::string& name) {
    auto* output = wire_.add_outputs();
    output->set_name(name);
    return *output->mutable_parameters();
  }

  SharedObject object_{16};
};

TEST_F(SharedTensorTest, InputsComeFromItAndTakeNoRawEntry) {
  AddRaw("a", "UINT8", {2}, "aa");
  Place(*AddInput("x", "UINT8", {4}).mutable_parameters(), 8, 4);
  AddRaw("b", "UINT8", {2}, "bb");
  const auto request = Convert();
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(DataOf(request->inputs[0].tensor), "aa");
  EXPECT_EQ(DataOf(request->inputs[1].tensor), "abcd");
  EXPECT_EQ(DataOf(request->inputs[2].tensor), "bb");
  object_.Set("................");
  EXPECT_EQ(DataOf(request->inputs[1].tensor), "abcd") << "it is a copy";
  wire_.add_raw_input_contents("one too many");
  EXPECT_THAT(Refusal().ToString(), HasSubstr("expected at most 2 raw_input_contents"));
}

TEST_F(SharedTensorTest, OutputsGoThereAndHaveAnEmptyEntry) {
  Place(AddOutput("y"), 1, 8);
  AddOutput("z");
  ASSERT_TRUE(Convert().ok());
  const std::string data = "YYYY";
  const Tensor tensor{DType::kUInt8, {4}, std::as_bytes(std::span(data)), nullptr};
  InferResponse response{{"m", 1}, {{"y", tensor}, {"z", tensor}}};
  ASSERT_TRUE(Deliver(targets_, response).ok());
  EXPECT_EQ(object_.Get(), "012YYYY789abcdef");
  const ModelInferResponse wire = Answer(response, "", targets_);
  EXPECT_THAT(wire.raw_output_contents(), ElementsAre("", "YYYY"));
  EXPECT_THAT(wire.outputs(0).shape(), ElementsAre(4));
  EXPECT_EQ(wire.outputs(0).parameters().at("shared_memory_region").string_param(), "r");
  EXPECT_TRUE(wire.outputs(1).parameters().empty());

  const std::string large(9, 'L');
  InferResponse more{{"m", 1}, {{"y", {DType::kUInt8, {9}, std::as_bytes(std::span(large)), nullptr}}, {"z", tensor}}};
  const absl::Status refused = Deliver(targets_, more);
  EXPECT_EQ(refused.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(refused.ToString(), HasSubstr("(8 bytes) should be at least 9 bytes to hold the results"));
  EXPECT_EQ(object_.Get(), "012YYYY789abcdef");
}

TEST_F(SharedTensorTest, WhatIsBeyondTheRegionIsRefusedWhateverItOverflows) {
  constexpr std::int64_t kHuge = std::numeric_limits<std::int64_t>::max();
  for (const auto& [offset, size] : {std::pair<std::int64_t, std::int64_t>{0, 13}, {12, 1}, {kHuge, 1}}) {
    wire_.clear_inputs();
    wire_.clear_outputs();
    Place(*AddInput("x", "UINT8", {1}).mutable_parameters(), offset, size);
    EXPECT_THAT(Refusal().ToString(), HasSubstr("Invalid offset + byte size for shared memory region: 'r'"));
    wire_.clear_inputs();
    Place(AddOutput("y"), offset, size);
    EXPECT_THAT(Refusal().ToString(), HasSubstr("Invalid offset + byte size for shared memory region: 'r'"));
  }
  wire_.clear_outputs();
  Place(*AddInput("x", "UINT8", {1}).mutable_parameters(), 0, kHuge);
  EXPECT_THAT(Refusal().ToString(), HasSubstr("more than 2 GiB"));
  wire_.clear_inputs();
  Place(*AddInput("x", "UINT8", {1}).mutable_parameters(), -1, 1);
  EXPECT_THAT(Refusal().ToString(), HasSubstr("invalid value -1 for 'shared_memory_offset'"));
  wire_.clear_inputs();
  Place(*AddInput("x", "UINT8", {1}).mutable_parameters(), 0, 1, "nowhere");
  EXPECT_EQ(Refusal().code(), absl::StatusCode::kNotFound);
}

TEST_F(SharedTensorTest, HalfAPlaceIsRefused) {
  auto& input = AddInput("x", "UINT8", {1});
  (*input.mutable_parameters())["shared_memory_region"].set_string_param("r");
  EXPECT_THAT(Refusal().ToString(), HasSubstr("'shared_memory_byte_size' must be specified"));
  (*input.mutable_parameters())["shared_memory_byte_size"].set_string_param("1");
  EXPECT_THAT(Refusal().ToString(), HasSubstr("expected int64_param"));
  input.mutable_parameters()->erase("shared_memory_region");
  EXPECT_THAT(Refusal().ToString(), HasSubstr("without 'shared_memory_region'"));
  Place(*input.mutable_parameters(), 0, 1);
  EXPECT_TRUE(Convert().ok());
  input.mutable_contents()->add_uint_contents(1);
  EXPECT_THAT(Refusal().ToString(), HasSubstr("unexpected 'content'"));
}

TEST_F(SharedTensorTest, IsUnimplementedWhereItIsNotAllowed) {
  const SharedMemory off(/*allowed=*/false);
  Place(*AddInput("x", "UINT8", {1}).mutable_parameters(), 0, 1);
  absl::Status status = Convert(kNoDeadline, &off).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(status.ToString(), HasSubstr("Client shared memory is disabled."));
  wire_.clear_inputs();
  Place(AddOutput("y"), 0, 1);
  EXPECT_EQ(Convert(kNoDeadline, &off).status().code(), absl::StatusCode::kUnimplemented);
}

TEST_F(ConvertTest, ClassificationIsANumberOfClasses) {
  wire_.add_outputs()->set_name("x");
  auto* output = wire_.add_outputs();
  output->set_name("y");
  auto& classes = (*output->mutable_parameters())["classification"];
  classes.set_int64_param(3);
  const auto request = Convert();
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_THAT(request->top_classes, ElementsAre(0, 3));
  classes.set_string_param("3");
  EXPECT_THAT(Refusal().ToString(), HasSubstr("invalid value type for 'classification' parameter, expected int64_param."));
  classes.set_int64_param(-1);
  EXPECT_THAT(Refusal().ToString(), HasSubstr("invalid value -1 for 'classification' parameter"));
}

TEST_F(SharedTensorTest, ClassesDoNotGoThere) {
  auto& output = AddOutput("y");
  Place(output, 0, 1);
  output["classification"].set_int64_param(2);
  const absl::Status status = Convert().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.ToString(), HasSubstr("the classes of output 'y' do not go to shared memory"));
}

// --- answers ---

TEST_F(ConvertTest, AnAnswerHasOneRawEntryPerOutput) {
  const Tensor empty{DType::kFp32, {0}, {}, nullptr};
  const std::string_view words[] = {"ab"};
  const InferResponse response{{"m", 12}, {{"none", empty}, {"words", PackBytes(words, {1})}}};
  const ModelInferResponse wire = Answer(response, "id-1");
  EXPECT_EQ(wire.model_name(), "m");
  EXPECT_EQ(wire.model_version(), "12");
  EXPECT_EQ(wire.id(), "id-1");
  ASSERT_EQ(wire.parameters_size(), 1);
  EXPECT_EQ(wire.parameters().at("hearth_cache").string_param(), "hit");
  ASSERT_EQ(wire.outputs_size(), 2);
  EXPECT_EQ(wire.outputs(1).datatype(), "BYTES");
  EXPECT_THAT(wire.raw_output_contents(), ElementsAre("", BytesOf<std::uint32_t>({2}) + "ab"));
}

TEST_F(ConvertTest, AnAnswerSaysHowTheModelWasFound) {
  InferResponse response{{"m", 1}, {}};
  response.cache = CacheResult::kLoad;
  response.waited_for_load = std::chrono::microseconds(1500);
  const ModelInferResponse wire = Answer(response, "");
  EXPECT_EQ(wire.parameters().at("hearth_cache").string_param(), "load");
  EXPECT_DOUBLE_EQ(wire.parameters().at("hearth_load_ms").double_param(), 1.5);
}

TEST_F(ConvertTest, AnAnswerThatNoMessageCanHoldIsRefused) {
  // The bytes are never looked at: only their number is.
  const std::byte one{};
  const Tensor huge{DType::kUInt8, {3LL << 30}, {&one, std::size_t{3} << 30}, nullptr};
  const absl::Status status = ToWire({{"m", 1}, {{"y", huge}}}, "").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(status.ToString(), HasSubstr("the outputs of model 'm' are 3"));
}

}  // namespace
}  // namespace hearth
