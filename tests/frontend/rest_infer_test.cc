#include "server/frontend/rest_infer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <limits>
#include <string>

#include "server/frontend/convert.h"

namespace hearth {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

template <typename... T>
std::string Bytes(T... values) {
  std::string out;
  (out.append(reinterpret_cast<const char*>(&values), sizeof values), ...);
  return out;
}

std::string BytesOf(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

class RestInfer : public testing::Test {
 protected:
  absl::StatusOr<RestInferRequest> Read(const std::string& json, const std::string& binary = "") {
    return ReadInferRequest(json + binary, json.size(), pool_);
  }
  std::string Mistake(const std::string& json, const std::string& binary = "") {
    const auto request = Read(json, binary);
    if (request.ok()) return "none";
    EXPECT_EQ(request.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(request.status().message());
  }
  // The bytes of the only input.
  std::string Data(const std::string& datatype, const std::string& data) {
    const auto request = Read(R"({"inputs":[{"data":)" + data + R"(,"name":"x","datatype":")" + datatype + R"(","shape":[1]}]})");
    if (!request.ok()) return std::string(request.status().message());
    EXPECT_EQ(request->message.raw.size(), 1u);
    return BytesOf(request->message.raw[0].bytes);
  }

  BufferPool pool_{1 << 20};
};

TEST_F(RestInfer, ReadsWhatARequestSays) {
  const auto request = Read(R"({"id":"7","parameters":{"timeout":5,"keep_alive":"5m","huge":18446744073709551615,"half":0.5,"yes":true,
      "binary_data_output":true},"inputs":[{"name":"x","shape":[2,1],"datatype":"INT32","data":[[1],[2]]}],
      "outputs":[{"name":"a"},{"name":"b","parameters":{"binary_data":false,"other":1}}],"unknown":[{}]})");
  ASSERT_TRUE(request.ok()) << request.status();
  const auto& head = request->message.head;
  EXPECT_EQ(head.id(), "7");
  EXPECT_EQ(head.parameters().at("timeout").int64_param(), 5);
  EXPECT_EQ(head.parameters().at("keep_alive").string_param(), "5m");
  EXPECT_EQ(head.parameters().at("huge").uint64_param(), std::numeric_limits<std::uint64_t>::max());
  EXPECT_EQ(head.parameters().at("half").double_param(), 0.5);
  EXPECT_TRUE(head.parameters().at("yes").bool_param());
  EXPECT_EQ(head.parameters().count("binary_data_output"), 0u);
  ASSERT_EQ(head.inputs_size(), 1);
  EXPECT_THAT(head.inputs(0).shape(), ElementsAre(2, 1));
  EXPECT_EQ(BytesOf(request->message.raw[0].bytes), Bytes(std::int32_t{1}, std::int32_t{2}));
  EXPECT_TRUE(request->binary.all);
  EXPECT_THAT(request->binary.asked, ElementsAre(std::nullopt, std::optional<bool>(false)));
  EXPECT_EQ(head.outputs(1).parameters().count("binary_data"), 0u);
  EXPECT_EQ(head.outputs(1).parameters().at("other").int64_param(), 1);
  EXPECT_TRUE(ToInferRequest(request->message, pool_, kNoDeadline, TimePoint{}).ok());
}

TEST_F(RestInfer, ReadsElementsOfEveryTypeThatJsonHas) {
  EXPECT_EQ(Data("BOOL", "[true,false]"), Bytes('\1', '\0'));
  EXPECT_EQ(Data("UINT8", "[0,255]"), Bytes('\0', '\xff'));
  EXPECT_EQ(Data("UINT16", "[65535]"), Bytes(std::uint16_t{65535}));
  EXPECT_EQ(Data("UINT32", "[4294967295]"), Bytes(std::uint32_t{4294967295u}));
  EXPECT_EQ(Data("UINT64", "[18446744073709551615]"), Bytes(~std::uint64_t{0}));
  EXPECT_EQ(Data("INT8", "[-128]"), Bytes(std::int8_t{-128}));
  EXPECT_EQ(Data("INT16", "[-32768]"), Bytes(std::int16_t{-32768}));
  EXPECT_EQ(Data("INT32", "[[[-5]],6]"), Bytes(std::int32_t{-5}, std::int32_t{6}));
  EXPECT_EQ(Data("INT64", "[-9223372036854775808]"), Bytes(std::numeric_limits<std::int64_t>::min()));
  EXPECT_EQ(Data("FP32", "[0.1,-2,1e-60,Infinity]"), Bytes(0.1f, -2.0f, 0.0f, std::numeric_limits<float>::infinity()));
  EXPECT_EQ(Data("FP64", "[0.1,1e300]"), Bytes(0.1, 1e300));
  EXPECT_EQ(Data("BYTES", R"(["a","","é"])"), Bytes(1, 'a', 0, 2, '\xc3', '\xa9'));
}

TEST_F(RestInfer, RefusesElementsThatAreNotTheTypes) {
  for (const auto& [datatype, data] : std::vector<std::pair<std::string, std::string>>{
           {"UINT8", "[256]"}, {"UINT8", "[-1]"}, {"INT8", "[128]"}, {"INT64", "[9223372036854775808]"}, {"INT32", "[1.0]"},
           {"INT32", "[1e1]"}, {"INT32", "[NaN]"}, {"FP32", "[1e39]"}, {"FP64", "[1e999]"}}) {
    EXPECT_THAT(Data(datatype, data), AllOf(HasSubstr("input 'x'"), HasSubstr("does not fit " + datatype))) << datatype << data;
  }
  EXPECT_THAT(Data("INT32", R"(["1"])"), HasSubstr("input 'x': expected a number, got a string at byte"));
  EXPECT_THAT(Data("BOOL", "[1]"), HasSubstr("expected true or false, got a number"));
  EXPECT_THAT(Data("BYTES", "[1]"), HasSubstr("expected a string, got a number"));
  EXPECT_THAT(Data("FP32", "1"), HasSubstr("expected an array, got a number"));
  for (const char* datatype : {"FP16", "BF16"}) {
    EXPECT_THAT(Data(datatype, "[1]"), HasSubstr("data via JSON is not supported. Please use the binary data format"));
  }
}

TEST_F(RestInfer, TakesBinaryDataInTheOrderOfTheInputs) {
  const auto request = Read(R"({"inputs":[
      {"name":"a","datatype":"FP16","shape":[2],"parameters":{"binary_data_size":4}},
      {"name":"b","datatype":"INT8","shape":[2],"data":[1,2]},
      {"name":"c","datatype":"FP32","shape":[0,3]},
      {"name":"d","datatype":"BYTES","shape":[1],"parameters":{"binary_data_size":5}}]})",
                            std::string("abcd\1\0\0\0z", 9));
  ASSERT_TRUE(request.ok()) << request.status();
  ASSERT_EQ(request->message.raw.size(), 4u);
  EXPECT_EQ(BytesOf(request->message.raw[0].bytes), "abcd");
  EXPECT_EQ(BytesOf(request->message.raw[1].bytes), "\1\2");
  EXPECT_EQ(BytesOf(request->message.raw[2].bytes), "");
  EXPECT_EQ(BytesOf(request->message.raw[3].bytes), std::string("\1\0\0\0z", 5));
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(request->message.raw[0].bytes.data()) % 64, 0u);
  EXPECT_EQ(request->message.head.inputs(0).parameters_size(), 0);
}

TEST_F(RestInfer, RefusesDataThatIsNotThereOrTwice) {
  const std::string binary = R"({"inputs":[{"name":"x","datatype":"INT8","shape":[2],"parameters":{"binary_data_size":2}}]})";
  EXPECT_EQ(Mistake(binary, "ab"), "none");
  EXPECT_EQ(Mistake(binary, "a"), "input 'x' has a binary_data_size of 2, and 1 bytes of the body are left for it");
  EXPECT_EQ(Mistake(binary, "abc"), "the body has 1 bytes of binary data more than the inputs' binary_data_size say");
  EXPECT_THAT(Mistake(R"({"inputs":[{"name":"x","datatype":"INT8","shape":[2],"parameters":{"binary_data_size":18446744073709551615}}]})", "ab"),
              HasSubstr("has a binary_data_size of 18446744073709551615"));
  EXPECT_THAT(Mistake(R"({"inputs":[{"name":"x","datatype":"INT8","shape":[2],"parameters":{"binary_data_size":-1}}]})", "ab"),
              HasSubstr("not a whole number in range"));
  EXPECT_THAT(Mistake(R"({"inputs":[{"name":"x","datatype":"INT8","shape":[2],"data":[1,2],"parameters":{"binary_data_size":2}}]})", "ab"),
              HasSubstr("both 'data' and 'binary_data_size'"));
  EXPECT_THAT(Mistake(R"({"inputs":[{"name":"x","datatype":"INT8","shape":[2]}]})"),
              HasSubstr("unable to find data for input tensor 'x'"));
  const auto beyond = ReadInferRequest("{}", 3, pool_);
  EXPECT_EQ(beyond.status().message(), "Inference-Header-Content-Length is 3, and the body has 2 bytes");
}

TEST_F(RestInfer, RefusesBodiesThatAreNoRequest) {
  for (const char* body : {"", "[]", "null", "{", "{}x", R"({"id":7})", R"({"inputs":{}})", R"({"inputs":[1]})", R"({"inputs":[{"name":1}]})",
                           R"({"inputs":[{"shape":1}]})", R"({"inputs":[{"shape":["a"]}]})", R"({"parameters":[]})",
                           R"({"parameters":{"a":[]}})", R"({"parameters":{"a":null}})", R"({"outputs":[{"name":null}]})",
                           R"({"parameters":{"binary_data_output":1}})", R"({"id":"a","id":"b"})"}) {
    EXPECT_THAT(Mistake(body), HasSubstr("at byte ")) << body;
  }
}

TEST_F(RestInfer, TakesNoMoreTensorsOrKeysThanItsLimits) {
  std::string body = R"({"inputs":[)";
  for (int i = 0; i < (1 << 16) + 1; ++i) body += i == 0 ? "{}" : ",{}";
  EXPECT_THAT(Mistake(body + "]}"), StartsWith("more than 65536 inputs"));
  body = R"({"parameters":{)";
  for (int i = 0; i < 1001; ++i) body += StrCat(i == 0 ? "" : ",", "\"", i, "\":1");
  EXPECT_THAT(Mistake(body + "}}"), StartsWith("more than 1000 keys"));
}

TEST_F(RestInfer, AnUnknownTypeIsLeftToTheConversion) {
  const auto request = Read(R"({"inputs":[{"name":"x","datatype":"FP7","shape":[1],"data":[1]}]})");
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_THAT(ToInferRequest(request->message, pool_, kNoDeadline, TimePoint{}).status().message(), HasSubstr("FP7"));
}

TEST_F(RestInfer, ABodyWithoutJsonIsTheOnlyInputsData) {
  const auto read = [this](DType dtype, std::optional<Shape> shape, const std::string& body) {
    Signature signature;
    signature.inputs = {{"x", dtype, std::move(shape)}};
    return ReadRawRequest(body, signature, pool_);
  };
  const auto shape = [&](DType dtype, std::optional<Shape> open, std::size_t bytes) -> std::string {
    const auto request = read(dtype, std::move(open), std::string(bytes, 'a'));
    if (!request.ok()) return std::string(request.status().message());
    const auto& wire = request->message.head.inputs(0);
    EXPECT_TRUE(ToInferRequest(request->message, pool_, kNoDeadline, TimePoint{}).ok());
    EXPECT_TRUE(request->binary.all);
    return ToString(Shape(wire.shape().begin(), wire.shape().end()));
  };
  EXPECT_EQ(shape(DType::kFp32, Shape{-1, 4}, 32), "[2,4]");
  EXPECT_EQ(shape(DType::kFp32, Shape{-1, 4}, 0), "[0,4]");
  EXPECT_EQ(shape(DType::kInt8, std::nullopt, 5), "[5]");
  EXPECT_EQ(shape(DType::kFp32, Shape{4}, 8), "[4]");  // judged with all others
  EXPECT_EQ(shape(DType::kBytes, Shape{-1, -1}, 3), "[1,1]");
  EXPECT_THAT(shape(DType::kFp32, Shape{-1, 4}, 20), HasSubstr("does not say the shape of input 'x', FP32 [-1,4]"));
  EXPECT_THAT(shape(DType::kFp32, Shape{-1}, 5), HasSubstr("does not say the shape"));
  EXPECT_THAT(shape(DType::kFp32, Shape{-1, -1}, 16), HasSubstr("does not say the shape"));
  EXPECT_THAT(shape(DType::kFp32, Shape{-1, 0}, 16), HasSubstr("does not say the shape"));
  EXPECT_THAT(shape(DType::kUnknown, std::nullopt, 16), HasSubstr("does not say the datatype"));
  EXPECT_EQ(BytesOf(read(DType::kBytes, std::nullopt, "abc")->message.raw[0].bytes), Bytes(3, 'a', 'b', 'c'));
  EXPECT_THAT(std::string(ReadRawRequest("", Signature{}, pool_).status().message()), HasSubstr("models of one input"));
}

InferResponse Response(DType dtype, const std::string& data) {
  const auto bytes = std::make_shared<std::string>(data);
  InferResponse response;
  response.model = {"m", 3};
  response.outputs.push_back({"y", {dtype, {2}, std::as_bytes(std::span(*bytes)), bytes}});
  return response;
}

TEST_F(RestInfer, WritesOutputsAsJson) {
  const auto write = [](DType dtype, const std::string& data) {
    const auto http = WriteInferResponse(Response(dtype, data), "", {});
    return http.ok() ? http->body : std::string(http.status().message());
  };
  EXPECT_EQ(write(DType::kFp32, Bytes(0.1f, -2.5f)),
            R"({"model_name":"m","model_version":"3","parameters":{"hearth_cache":"hit"},"outputs":[{"name":"y","datatype":"FP32","shape":[2],"data":[0.1,-2.5]}]})");
  EXPECT_THAT(write(DType::kBool, Bytes('\1', '\0')), HasSubstr("[true,false]"));
  EXPECT_THAT(write(DType::kUInt8, Bytes('\xff', '\1')), HasSubstr("[255,1]"));
  EXPECT_THAT(write(DType::kInt8, Bytes('\xff', '\1')), HasSubstr("[-1,1]"));
  EXPECT_THAT(write(DType::kUInt64, Bytes(~std::uint64_t{0}, std::uint64_t{0})), HasSubstr("[18446744073709551615,0]"));
  EXPECT_THAT(write(DType::kBytes, Bytes(1, 'a', 1, '"')), HasSubstr(R"(["a","\""])"));
  EXPECT_THAT(write(DType::kBytes, Bytes(1, 'a', 1, '\xff')), HasSubstr("output 'y' has bytes that are not UTF-8"));
  EXPECT_THAT(write(DType::kFp16, Bytes(1)), HasSubstr("FP16 data via JSON is not supported"));
}

TEST_F(RestInfer, KnowsHowLongAnAnswerMayBecomeBeforeItIsWritten) {
  const auto expect_room = [](DType dtype, const std::string& element, std::size_t size) {
    std::string data;
    for (int i = 0; i < 1000; ++i) data += element;
    InferResponse response = Response(dtype, data);
    response.outputs[0].tensor.shape = {static_cast<std::int64_t>(1000 * element.size() / size)};
    const std::string id(kMaxRequestId, '\1');
    const auto http = WriteInferResponse(response, id, {});
    ASSERT_TRUE(http.ok()) << http.status();
    EXPECT_GE(MostJsonBytes(response, id, {}), http->body.size()) << ToString(dtype);
  };
  expect_room(DType::kBool, Bytes('\0'), 1);
  expect_room(DType::kInt8, Bytes(std::int8_t{-128}), 1);
  expect_room(DType::kInt16, Bytes(std::int16_t{-32768}), 2);
  expect_room(DType::kInt32, Bytes(std::numeric_limits<std::int32_t>::min()), 4);
  expect_room(DType::kInt64, Bytes(std::numeric_limits<std::int64_t>::min()), 8);
  expect_room(DType::kUInt64, Bytes(~std::uint64_t{0}), 8);
  expect_room(DType::kFp32, Bytes(-1.17549435e-38f), 4);
  expect_room(DType::kFp64, Bytes(-2.2250738585072014e-308), 8);
  expect_room(DType::kBytes, Bytes(1) + "\1", 5);
  expect_room(DType::kBytes, Bytes(0), 4);
  EXPECT_LT(MostJsonBytes(Response(DType::kUInt8, std::string(1 << 20, 'x')), "", {.all = true, .asked = {}}), 1u << 16);
}

TEST_F(RestInfer, BinaryOutputsAreSentFromWhereTheyLie) {
  InferResponse response = Response(DType::kFp16, "abcd");
  response.cache = CacheResult::kLoad;
  const auto http = WriteInferResponse(response, "q\"", {.all = false, .asked = {true}});
  ASSERT_TRUE(http.ok()) << http.status();
  EXPECT_EQ(http->body,
            R"({"id":"q\"","model_name":"m","model_version":"3","parameters":{"hearth_cache":"load","hearth_load_ms":0},"outputs":[{"name":"y","datatype":"FP16","shape":[2],"parameters":{"binary_data_size":4}}]})");
  ASSERT_EQ(http->parts.size(), 1u);
  EXPECT_EQ(http->parts[0].bytes.data(), response.outputs[0].tensor.data.data());
  EXPECT_THAT(http->headers, ElementsAre(std::pair<std::string, std::string>(
                                 "Inference-Header-Content-Length", std::to_string(http->body.size()))));
  EXPECT_FALSE(WriteInferResponse(response, "", {.all = true, .asked = {false}}).ok());
  EXPECT_TRUE(WriteInferResponse(response, "", {.all = true, .asked = {std::nullopt}}).ok());
}

}  // namespace
}  // namespace hearth
