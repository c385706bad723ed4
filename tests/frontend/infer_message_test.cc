#include "server/frontend/infer_message.h"

#include <gmock/gmock.h>
#include <google/protobuf/util/message_differencer.h>
#include <grpcpp/support/slice.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace hearth {
namespace {

using google::protobuf::util::MessageDifferencer;
using inference::ModelInferRequest;
using inference::ModelInferResponse;
using testing::ElementsAre;

// In slices of `size`, as a network may cut a message.
grpc::ByteBuffer Cut(const std::string& bytes, std::size_t size) {
  std::vector<grpc::Slice> slices;
  for (std::size_t at = 0; at < bytes.size(); at += size) slices.emplace_back(bytes.substr(at, size));
  return {slices.data(), slices.size()};
}

std::string Joined(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  EXPECT_TRUE(buffer.Dump(&slices).ok());
  std::string bytes;
  for (const grpc::Slice& slice : slices) bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  return bytes;
}

// The message with its raw tensors where protobuf has them.
ModelInferRequest Whole(const InferMessage& message) {
  ModelInferRequest whole = message.head;
  for (const BufferPool::Buffer& raw : message.raw) {
    whole.add_raw_input_contents(raw.bytes.data(), raw.bytes.size());
  }
  return whole;
}

ModelInferRequest EveryField() {
  ModelInferRequest request;
  request.set_model_name("größe");
  request.set_model_version("3");
  request.set_id("id");
  (*request.mutable_parameters())["timeout"].set_int64_param(-1);
  (*request.mutable_parameters())["share"].set_double_param(0.5);
  for (const char* name : {"a", "b"}) {
    auto* input = request.add_inputs();
    input->set_name(name);
    input->set_datatype("FP32");
    for (const std::int64_t size : {2, -1, 1 << 20}) input->add_shape(size);
    (*input->mutable_parameters())["flag"].set_bool_param(true);
  }
  request.mutable_inputs(1)->mutable_contents()->add_fp32_contents(1.5f);
  request.add_outputs()->set_name("y");
  for (const std::string& raw : {std::string(1000, 'r'), std::string(), std::string("\0\x3a\xff", 3)}) {
    request.add_raw_input_contents(raw);
  }
  return request;
}

class InferMessageTest : public testing::Test {
 protected:
  absl::StatusOr<InferMessage> Take(const std::string& bytes, std::size_t slice = 1 << 20) {
    grpc::ByteBuffer buffer = Cut(bytes, slice);
    return TakeInferRequest(buffer, pool_);
  }
  BufferPool pool_{1 << 20};
};

TEST_F(InferMessageTest, IsWhatProtobufReadsHoweverItIsCut) {
  const ModelInferRequest request = EveryField();
  const std::string bytes = request.SerializeAsString();
  for (const std::size_t slice : {1u, 2u, 3u, 7u, 64u, 100000u}) {
    const auto message = Take(bytes, slice);
    ASSERT_TRUE(message.ok()) << message.status();
    EXPECT_TRUE(message->head.raw_input_contents().empty());
    EXPECT_EQ(message->raw.size(), 3u);
    EXPECT_TRUE(MessageDifferencer::Equals(Whole(*message), request)) << slice;
  }
}

TEST_F(InferMessageTest, FieldsMayComeInAnyOrder) {
  ModelInferRequest first, second;
  first.add_raw_input_contents("1");
  first.set_model_name("m");
  second.add_raw_input_contents("2");
  second.set_id("i");
  const auto message = Take(first.SerializeAsString() + second.SerializeAsString());
  ASSERT_TRUE(message.ok()) << message.status();
  EXPECT_EQ(message->head.model_name(), "m");
  EXPECT_EQ(message->head.id(), "i");
  EXPECT_THAT(Whole(*message).raw_input_contents(), ElementsAre("1", "2"));
}

TEST_F(InferMessageTest, RawTensorsAreAligned) {
  const auto message = Take(EveryField().SerializeAsString(), 5);
  ASSERT_TRUE(message.ok());
  for (const BufferPool::Buffer& raw : message->raw) {
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(raw.bytes.data()) % 64, 0u);
  }
}

TEST_F(InferMessageTest, TheBytesAreFreedAtOnce) {
  grpc::ByteBuffer buffer = Cut(EveryField().SerializeAsString(), 100);
  ASSERT_TRUE(TakeInferRequest(buffer, pool_).ok());
  EXPECT_EQ(buffer.Length(), 0u);
}

TEST_F(InferMessageTest, WhereTensorsFindNoMemoryTheRestIsThere) {
  BufferPool little(pool_, std::make_shared<ByteAllowance>(500));
  for (const std::size_t slice : {1u, 1u << 20}) {
    grpc::ByteBuffer buffer = Cut(EveryField().SerializeAsString(), slice);
    const auto message = TakeInferRequest(buffer, little);
    ASSERT_TRUE(message.ok()) << message.status();
    EXPECT_EQ(message->head.id(), "id");
    EXPECT_EQ(message->head.inputs_size(), 2);
    EXPECT_TRUE(absl::IsResourceExhausted(message->raw_status)) << message->raw_status;
    EXPECT_TRUE(message->raw.empty());
  }
  EXPECT_EQ(little.allowance()->held(), 0u);
}

TEST_F(InferMessageTest, AnAnswerOfManySmallTensorsKeepsTheirOwnersUntilItIsSent) {
  TensorList outputs;
  const auto owner = std::make_shared<std::vector<std::byte>>(100);
  for (int i = 0; i < 100; ++i) outputs.push_back({"y", {DType::kUInt8, {100}, *owner, owner}});
  grpc::ByteBuffer answer = MakeInferResponse({}, outputs);
  inference::ModelInferResponse parsed;
  ASSERT_TRUE(parsed.ParseFromString(Joined(answer)));
  EXPECT_EQ(parsed.raw_output_contents_size(), 100);
  outputs.clear();
  EXPECT_GT(owner.use_count(), 1);
  answer.Clear();
  EXPECT_EQ(owner.use_count(), 1);
}

TEST_F(InferMessageTest, NoBytesAtAllAreAnEmptyMessage) {
  const auto message = Take("");
  ASSERT_TRUE(message.ok()) << message.status();
  EXPECT_TRUE(message->raw.empty());
}

TEST_F(InferMessageTest, AMessageThatIsCutShortIsRefusedWhereverThatIs) {
  const std::string bytes = EveryField().SerializeAsString();
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    const std::string start = bytes.substr(0, size);
    EXPECT_EQ(Take(start, 9).ok(), ModelInferRequest().ParseFromString(start)) << size;
  }
}

TEST_F(InferMessageTest, UnknownFieldsOfEveryKindAreAccepted) {
  // 100: a varint, eight bytes, four bytes, a string, and a group with what would be a raw tensor elsewhere.
  const std::string bytes("\xa0\x06\x05" "\xa1\x06" "12345678" "\xa5\x06" "1234" "\xa2\x06\x02" "ab"
                          "\xa3\x06" "\x3a\x01x" "\xa4\x06", 31);
  ASSERT_TRUE(ModelInferRequest().ParseFromString(bytes));
  const auto message = Take(bytes, 3);
  ASSERT_TRUE(message.ok()) << message.status();
  EXPECT_TRUE(message->raw.empty());
}

TEST_F(InferMessageTest, WhatIsNoMessageIsRefusedWithoutAskingForMemory) {
  const std::string gibibytes_announced("\x3a\xff\xff\xff\xff\x07" "x", 7);
  const std::string others[] = {
      gibibytes_announced,                            // a raw tensor
      std::string("\x0a\xff\xff\xff\xff\x07" "x", 7),  // a name
      std::string("\x00\x01", 2),                      // field 0
      "\xa3\x06",                                      // a group that does not end
      "\xa4\x06",                                      // or does not begin
      std::string("\xa3\x06\xac\x06", 4),              // or ends as another
      "\x0f",                                          // a kind of field that there is not
      std::string("\x0a\x01\xff", 3),                  // a name that is no text
  };
  for (const std::string& bytes : others) {
    ASSERT_FALSE(ModelInferRequest().ParseFromString(bytes));
    EXPECT_EQ(Take(bytes).status().code(), absl::StatusCode::kInternal);
  }
  EXPECT_EQ(pool_.kept_bytes(), 0u);
}

// --- answers ---

NamedTensor Named(const std::string& name, std::shared_ptr<std::string> bytes) {
  const auto size = static_cast<std::int64_t>(bytes->size());
  const auto* data = reinterpret_cast<const std::byte*>(bytes->data());
  return {name, {DType::kUInt8, {size}, {data, bytes->size()}, std::move(bytes)}};
}

TEST(InferResponse, IsWhatProtobufWrites) {
  ModelInferResponse head;
  head.set_model_name("m");
  head.set_id("i");
  TensorList outputs;
  ModelInferResponse expected = head;
  for (const std::size_t size : {0u, 1u, 4096u, 4097u, 100000u, 5u}) {
    outputs.push_back(Named("y", std::make_shared<std::string>(size, 'y')));
    expected.add_raw_output_contents(std::string(size, 'y'));
  }
  for (; !outputs.empty(); outputs.pop_back(), expected.mutable_raw_output_contents()->RemoveLast()) {
    EXPECT_EQ(Joined(MakeInferResponse(head, outputs)), expected.SerializeAsString()) << outputs.size();
  }
  EXPECT_EQ(Joined(MakeInferResponse(head, {})), head.SerializeAsString());
  EXPECT_EQ(Joined(MakeInferResponse({}, {})), "");
}

TEST(InferResponse, LendsLargeTensorsUntilItIsGone) {
  const auto bytes = std::make_shared<std::string>(1 << 20, 'y');
  grpc::ByteBuffer message = MakeInferResponse({}, {Named("y", bytes)});
  EXPECT_EQ(bytes.use_count(), 2);
  {
    std::vector<grpc::Slice> slices;
    ASSERT_TRUE(message.Dump(&slices).ok());
    EXPECT_TRUE(std::any_of(slices.begin(), slices.end(), [&](const grpc::Slice& slice) {
      return reinterpret_cast<const char*>(slice.begin()) == bytes->data();
    }));
  }
  message.Clear();
  EXPECT_EQ(bytes.use_count(), 1);
}

}  // namespace
}  // namespace hearth
