#include "server/frontend/infer_message.h"

#include <google/protobuf/io/coded_stream.h>
#include <grpcpp/support/proto_buffer_reader.h>
#include <grpcpp/support/slice.h>

#include <array>
#include <cstdint>
#include <limits>
#include <memory>
#include <new>
#include <string>
#include <utility>

#include "server/base/check.h"
#include "server/frontend/request_memory.h"

namespace hearth {
namespace {

using google::protobuf::io::CodedInputStream;
using google::protobuf::io::CodedOutputStream;

// The encoding's own numbers: the low bits of a tag say what follows it.
enum WireType : std::uint32_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kBeginGroup = 3, kEndGroup = 4, kFixed32 = 5 };
constexpr std::uint32_t kWireTypeBits = 3;

constexpr std::uint32_t RawTag(int field) { return static_cast<std::uint32_t>(field) << kWireTypeBits | kBytes; }
constexpr std::uint32_t kRawInputs = RawTag(inference::ModelInferRequest::kRawInputContentsFieldNumber);
constexpr std::uint32_t kRawOutputs = RawTag(inference::ModelInferResponse::kRawOutputContentsFieldNumber);
constexpr std::uint32_t kStreamedResponse = RawTag(inference::ModelStreamInferResponse::kInferResponseFieldNumber);

// Up to here a copy costs less than a slice of its own.
constexpr std::size_t kCopied = 4096;
constexpr std::size_t kMaxVarint = 10;
constexpr int kMaxShortVarint = 5;  // of a tag or a length, in any message that protobuf accepts

// Appends what the encoding calls a varint.
void AppendVarint(std::uint64_t value, std::string& to) {
  std::array<std::uint8_t, kMaxVarint> bytes;
  const std::uint8_t* const end = CodedOutputStream::WriteVarint64ToArray(value, bytes.data());
  to.append(reinterpret_cast<const char*>(bytes.data()), static_cast<std::size_t>(end - bytes.data()));
}

// Parts a message, field by field, in the order in which they came. Fields in groups, which no client of ours writes,
// stay where they are: whether groups are well-formed is for protobuf to find out.
class Parting {
 public:
  Parting(grpc::ByteBuffer& bytes, BufferPool& pool)
      : size_(bytes.Length()), reader_(&bytes), in_(&reader_), pool_(pool) {}

  // False: not a message. `head` is what is left of it. Where a tensor finds no memory, `raw_status` says so, and `raw` is empty.
  bool Read(std::string& head, std::vector<BufferPool::Buffer>& raw, absl::Status& raw_status) {
    if (!reader_.status().ok() || size_ > std::numeric_limits<int>::max()) return false;
    for (int at = 0; const std::uint32_t tag = in_.ReadTag(); at = in_.CurrentPosition()) {
      if (in_.CurrentPosition() - at > kMaxShortVarint) return false;
      if (tag == kRawInputs && groups_ == 0) {
        std::size_t size = 0;
        if (!ReadLength(size)) return false;
        if (!Gather(size, raw, raw_status)) return false;
      } else if (!Keep(tag, head)) {
        return false;
      }
    }
    return in_.ConsumedEntireMessage() && groups_ == 0;
  }

 private:
  // Never more than there is: what is reserved for it is bounded by what was received.
  bool ReadLength(std::size_t& size) {
    const int at = in_.CurrentPosition();
    std::uint64_t length = 0;
    if (!in_.ReadVarint64(&length) || in_.CurrentPosition() - at > kMaxShortVarint) return false;
    size = length;
    return size <= size_ - static_cast<std::size_t>(in_.CurrentPosition());
  }

  bool Gather(std::size_t size, std::vector<BufferPool::Buffer>& raw, absl::Status& raw_status) {
    const int bytes = static_cast<int>(size);
    if (!raw_status.ok()) return in_.Skip(bytes);
    try {
      raw.push_back(pool_.Allocate(size));
    } catch (const std::bad_alloc& why) {
      raw.clear();
      raw_status = NoMemoryFor("the inputs of this request", why);
      return in_.Skip(bytes);
    }
    return in_.ReadRaw(raw.back().bytes.data(), bytes);
  }

  bool Keep(std::uint32_t tag, std::string& head) {
    AppendVarint(tag, head);
    switch (tag & ((1u << kWireTypeBits) - 1)) {
      case kVarint: {
        std::uint64_t value = 0;
        if (!in_.ReadVarint64(&value)) return false;
        AppendVarint(value, head);
        return true;
      }
      case kFixed64:
        return KeepBytes(8, head);
      case kFixed32:
        return KeepBytes(4, head);
      case kBytes: {
        std::size_t size = 0;
        if (!ReadLength(size)) return false;
        AppendVarint(size, head);
        return KeepBytes(size, head);
      }
      case kBeginGroup:
        ++groups_;
        return true;
      case kEndGroup:
        return groups_-- > 0;
    }
    return false;
  }

  bool KeepBytes(std::size_t size, std::string& head) {
    const std::size_t at = head.size();
    head.resize(at + size);
    return in_.ReadRaw(head.data() + at, static_cast<int>(size));
  }

  const std::size_t size_;
  grpc::ProtoBufferReader reader_;
  CodedInputStream in_;
  BufferPool& pool_;
  int groups_ = 0;  // open ones
};

absl::StatusOr<InferMessage> Take(grpc::ByteBuffer& bytes, BufferPool& pool) {
  InferMessage message;
  std::string head;
  if (!Parting(bytes, pool).Read(head, message.raw, message.raw_status) || !message.head.ParseFromString(head)) {
    return absl::InternalError("the request is not a ModelInferRequest: its bytes cannot be parsed; was it sent to "
                               "another service's method, or by a client of another protocol?");
  }
  return message;
}

// The bytes of `tensor`, which stay where they are until gRPC has sent them.
grpc::Slice Lend(const Tensor& tensor) {
  auto* owner = new std::shared_ptr<const void>(tensor.owner);
  return {const_cast<std::byte*>(tensor.data.data()), tensor.data.size(),
          [](void* p) { delete static_cast<std::shared_ptr<const void>*>(p); }, owner};
}

}  // namespace

absl::StatusOr<InferMessage> TakeInferRequest(grpc::ByteBuffer& bytes, BufferPool& pool) {
  absl::StatusOr<InferMessage> message;
  try {
    message = Take(bytes, pool);
  } catch (const std::bad_alloc& why) {
    message = NoMemoryFor("the inputs of this request", why);
  }
  bytes.Clear();
  return message;
}

grpc::ByteBuffer MakeInferResponse(const inference::ModelInferResponse& head, const TensorList& outputs) {
  HEARTH_CHECK(head.raw_output_contents().empty());
  std::vector<grpc::Slice> slices;
  std::string copied = head.SerializeAsString();
  // What is copied does not count any more, so little may be.
  const std::size_t copied_at_most = AreSmall(outputs) ? kCopied : 0;
  for (const NamedTensor& output : outputs) {
    const std::span<const std::byte> data = output.tensor.data;
    AppendVarint(kRawOutputs, copied);
    AppendVarint(data.size(), copied);
    if (data.size() <= copied_at_most) {
      copied.append(reinterpret_cast<const char*>(data.data()), data.size());
    } else {
      slices.emplace_back(std::exchange(copied, {}));
      slices.push_back(Lend(output.tensor));
    }
  }
  if (!copied.empty() || slices.empty()) slices.emplace_back(copied);
  return {slices.data(), slices.size()};
}

grpc::ByteBuffer WrapForStream(const grpc::ByteBuffer& response) {
  std::string head;
  AppendVarint(kStreamedResponse, head);
  AppendVarint(response.Length(), head);
  std::vector<grpc::Slice> slices;
  HEARTH_CHECK(response.Dump(&slices).ok());  // nothing of ours is compressed
  slices.insert(slices.begin(), grpc::Slice(head));
  return {slices.data(), slices.size()};
}

}  // namespace hearth
