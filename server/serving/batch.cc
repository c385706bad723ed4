#include "server/serving/batch.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <numeric>
#include <utility>

#include "server/base/check.h"
#include "server/base/strings.h"

namespace hearth {
namespace {

bool Pads(const std::vector<std::string>& pad, const std::string& name) {
  return std::find(pad.begin(), pad.end(), name) != pad.end();
}

// The first dimension apart.
std::span<const std::int64_t> Row(const Shape& shape) { return std::span(shape).subspan(1); }

bool SameRow(const Shape& a, const Shape& b) { return std::ranges::equal(Row(a), Row(b)); }

// Bytes of so many BYTES elements at the beginning. REQUIRES: a valid tensor with as many.
std::size_t StringBytes(std::span<const std::byte> data, std::int64_t elements) {
  std::size_t at = 0;
  for (std::int64_t i = 0; i < elements; ++i) {
    std::uint32_t length = 0;
    HEARTH_CHECK(at + sizeof(length) <= data.size());
    std::memcpy(&length, data.data() + at, sizeof(length));
    at += sizeof(length) + length;
  }
  HEARTH_CHECK(at <= data.size());
  return at;
}

// A block of `from` at the beginning of a larger one of `to`, dimension by dimension; what lies beside it is not touched.
void Place(const std::byte* source, std::byte* target, std::span<const std::int64_t> from, std::span<const std::int64_t> to,
           std::size_t element) {
  if (std::ranges::equal(from, to)) {
    const std::int64_t count = std::accumulate(from.begin(), from.end(), std::int64_t{1}, std::multiplies<>());
    std::memcpy(target, source, static_cast<std::size_t>(count) * element);
    return;
  }
  const auto bytes = [&](std::span<const std::int64_t> inner) {
    return static_cast<std::size_t>(std::accumulate(inner.begin(), inner.end(), std::int64_t{1}, std::multiplies<>())) * element;
  };
  const std::size_t source_step = bytes(from.subspan(1));
  const std::size_t target_step = bytes(to.subspan(1));
  for (std::int64_t i = 0; i < from[0]; ++i) {
    Place(source + static_cast<std::size_t>(i) * source_step, target + static_cast<std::size_t>(i) * target_step,
          from.subspan(1), to.subspan(1), element);
  }
}

absl::StatusOr<Tensor> JoinPadded(std::span<const Tensor* const> parts, const std::string& name, Shape shape,
                                  BufferPool& buffers) {
  const DType dtype = parts[0]->dtype;
  if (dtype == DType::kBytes) {
    return absl::InvalidArgumentError(StrCat("input '", name, "' holds strings, which batching.pad cannot fill up"));
  }
  const std::optional<std::size_t> bytes = ByteSize(dtype, shape);
  if (!bytes) return absl::ResourceExhaustedError(StrCat("input '", name, "' is too large once it is filled up to its batch"));
  BufferPool::Buffer buffer = buffers.Allocate(*bytes);
  std::memset(buffer.bytes.data(), 0, buffer.bytes.size());
  const std::size_t row = shape[0] == 0 ? 0 : *bytes / static_cast<std::size_t>(shape[0]);
  std::size_t at = 0;
  for (const Tensor* part : parts) {
    Shape to = shape;
    to[0] = part->shape[0];
    if (!part->data.empty()) Place(part->data.data(), buffer.bytes.data() + at, part->shape, to, SizeOf(dtype));
    at += row * static_cast<std::size_t>(part->shape[0]);
  }
  return Tensor{dtype, std::move(shape), buffer.bytes, std::move(buffer.owner)};
}

absl::StatusOr<Tensor> JoinTensors(std::span<const Tensor* const> parts, const std::string& name, BufferPool& buffers) {
  Shape shape = parts[0]->shape;
  shape[0] = 0;
  bool padded = false;
  std::size_t bytes = 0;
  for (const Tensor* part : parts) {
    shape[0] += part->shape[0];
    bytes += part->data.size();
    for (std::size_t i = 1; i < shape.size(); ++i) {
      padded = padded || part->shape[i] != parts[0]->shape[i];
      shape[i] = std::max(shape[i], part->shape[i]);
    }
  }
  if (padded) return JoinPadded(parts, name, std::move(shape), buffers);
  BufferPool::Buffer buffer = buffers.Allocate(bytes);
  std::size_t at = 0;
  for (const Tensor* part : parts) {
    if (!part->data.empty()) std::memcpy(buffer.bytes.data() + at, part->data.data(), part->data.size());
    at += part->data.size();
  }
  return Tensor{parts[0]->dtype, std::move(shape), buffer.bytes, std::move(buffer.owner)};
}

// A part of `whole`, which is to be sent: a client that does not take it keeps no more than its part.
Tensor Part(const Tensor& whole, std::span<const std::byte> bytes, Shape shape) {
  constexpr std::size_t kCopiedAnyway = 4096;  // when the answer is written
  if (bytes.size() <= kCopiedAnyway || bytes.size() == whole.data.size()) return {whole.dtype, std::move(shape), bytes, whole.owner};
  auto own = std::make_shared_for_overwrite<std::byte[]>(bytes.size());
  std::memcpy(own.get(), bytes.data(), bytes.size());
  const std::span<const std::byte> copy(own.get(), bytes.size());
  return {whole.dtype, std::move(shape), copy, std::move(own)};
}

}  // namespace

bool MayJoin(const TensorList& a, const TensorList& b, const std::vector<std::string>& pad) {
  if (a.size() != b.size()) return false;
  return std::ranges::all_of(a, [&](const NamedTensor& one) {
    const Tensor* other = Find(b, one.name);
    if (other == nullptr || other->dtype != one.tensor.dtype || other->shape.size() != one.tensor.shape.size()) return false;
    return SameRow(one.tensor.shape, other->shape) || Pads(pad, one.name);
  });
}

absl::StatusOr<TensorList> Join(std::span<const TensorList* const> requests, BufferPool& buffers) {
  TensorList joined;
  joined.reserve(requests[0]->size());
  std::vector<const Tensor*> parts(requests.size());
  for (const NamedTensor& input : *requests[0]) {
    for (std::size_t i = 0; i < requests.size(); ++i) {
      parts[i] = Find(*requests[i], input.name);
      HEARTH_CHECK(parts[i] != nullptr && !parts[i]->shape.empty());
    }
    HEARTH_ASSIGN_OR_RETURN(Tensor tensor, JoinTensors(parts, input.name, buffers));
    joined.push_back({input.name, std::move(tensor)});
  }
  return joined;
}

absl::StatusOr<std::vector<TensorList>> Split(const TensorList& outputs, std::span<const std::int64_t> rows) {
  const std::int64_t all = std::accumulate(rows.begin(), rows.end(), std::int64_t{0});
  std::vector<TensorList> split(rows.size());
  for (const NamedTensor& output : outputs) {
    const Tensor& whole = output.tensor;
    if (whole.shape.empty() || whole.shape[0] != all) {
      return absl::FailedPreconditionError(
          StrCat("output '", output.name, "' has shape ", ToString(whole.shape), " for a batch of ", all,
                 ": its first dimension has to be the batch's, or no one can tell whose it is"));
    }
    const std::int64_t elements = all == 0 ? 0 : *ElementCount(whole.shape) / all;  // of a row
    std::span<const std::byte> rest = whole.data;
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const std::size_t bytes = whole.dtype == DType::kBytes
                                    ? StringBytes(rest, rows[i] * elements)
                                    : static_cast<std::size_t>(rows[i] * elements) * SizeOf(whole.dtype);
      Shape shape = whole.shape;
      shape[0] = rows[i];
      split[i].push_back({output.name, Part(whole, rest.first(bytes), std::move(shape))});
      rest = rest.subspan(bytes);
    }
  }
  return split;
}

}  // namespace hearth
