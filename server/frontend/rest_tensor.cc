#include "server/frontend/rest_tensor.h"

#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <system_error>
#include <type_traits>
#include <vector>

#include "server/frontend/growing_buffer.h"
#include "server/frontend/json_writer.h"
#include "server/frontend/utf8.h"

namespace hearth {
namespace {

// One input on its way in.
struct Sink {
  JsonReader& json;
  DType dtype;
  GrowingBuffer& bytes;

  absl::Status DoesNotFit(std::string_view value) const {
    return json.Error(StrCat("value ", value.substr(0, 40), " does not fit ", ToString(dtype)));
  }
};

// Nothing: it is beyond the type's range. What is too small for it is the nearest it has.
template <typename Float>
std::optional<Float> ParseFloat(std::string_view text) {
  if (text == "NaN") return std::numeric_limits<Float>::quiet_NaN();
  if (text == "Infinity") return std::numeric_limits<Float>::infinity();
  if (text == "-Infinity") return -std::numeric_limits<Float>::infinity();
  Float value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc()) return value;
  // Too large or too small; from_chars does not say which.
  const double wide = std::strtod(std::string(text).c_str(), nullptr);
  if (std::abs(wide) > 1) return std::nullopt;
  return static_cast<Float>(wide);
}

template <typename T>
absl::Status ReadElement(const Sink& sink) {
  T value{};
  if constexpr (std::is_same_v<T, bool>) {
    HEARTH_ASSIGN_OR_RETURN(value, sink.json.Bool());
  } else {
    HEARTH_ASSIGN_OR_RETURN(const std::string_view text, sink.json.Number());
    if constexpr (std::is_floating_point_v<T>) {
      const std::optional<T> parsed = ParseFloat<T>(text);
      if (!parsed) return sink.DoesNotFit(text);
      value = *parsed;
    } else {
      const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
      if (error != std::errc() || end != text.data() + text.size()) return sink.DoesNotFit(text);
    }
  }
  sink.bytes.Append(&value, sizeof value);
  return absl::OkStatus();
}

absl::Status ReadWord(const Sink& sink) {
  HEARTH_ASSIGN_OR_RETURN(const std::string word, sink.json.String());
  const auto length = static_cast<std::uint32_t>(word.size());
  if (length != word.size()) return sink.json.Error("a string of 4 GiB and more");
  sink.bytes.Append(&length, sizeof length);
  sink.bytes.Append(word.data(), word.size());
  return absl::OkStatus();
}

using Read = absl::Status (*)(const Sink&);

// Null: JSON has no way to write them.
Read ReaderOf(DType dtype) {
  switch (dtype) {
    case DType::kBool:
      return &ReadElement<bool>;
    case DType::kUInt8:
      return &ReadElement<std::uint8_t>;
    case DType::kUInt16:
      return &ReadElement<std::uint16_t>;
    case DType::kUInt32:
      return &ReadElement<std::uint32_t>;
    case DType::kUInt64:
      return &ReadElement<std::uint64_t>;
    case DType::kInt8:
      return &ReadElement<std::int8_t>;
    case DType::kInt16:
      return &ReadElement<std::int16_t>;
    case DType::kInt32:
      return &ReadElement<std::int32_t>;
    case DType::kInt64:
      return &ReadElement<std::int64_t>;
    case DType::kFp32:
      return &ReadElement<float>;
    case DType::kFp64:
      return &ReadElement<double>;
    case DType::kBytes:
      return &ReadWord;
    case DType::kFp16:
    case DType::kBf16:
    case DType::kUnknown:
      break;
  }
  return nullptr;
}

absl::Status ReadNested(const Sink& sink, Read element) {
  return sink.json.Array([&] {
    return sink.json.Peek() == JsonReader::Kind::kArray ? ReadNested(sink, element) : element(sink);
  });
}

template <typename T>
void AppendNumbers(const Tensor& tensor, std::string& out) {
  const std::size_t count = tensor.data.size() / sizeof(T);
  for (std::size_t i = 0; i < count; ++i) {
    T value;
    std::memcpy(&value, tensor.data.data() + i * sizeof(T), sizeof value);
    if (i > 0) out += ',';
    if constexpr (std::is_floating_point_v<T>) {
      AppendJsonNumber(value, out);
    } else if constexpr (std::is_signed_v<T>) {
      AppendJsonInt(value, out);
    } else {
      AppendJsonUInt(value, out);
    }
  }
}

void AppendBools(const Tensor& tensor, std::string& out) {
  bool first = true;
  for (const std::byte value : tensor.data) {
    if (!std::exchange(first, false)) out += ',';
    out += value == std::byte{0} ? "false" : "true";
  }
}

absl::Status AppendWords(const Tensor& tensor, std::string_view output, std::string& out) {
  HEARTH_ASSIGN_OR_RETURN(const std::vector<std::string_view> words, UnpackBytes(tensor));
  bool first = true;
  for (const std::string_view word : words) {
    if (!IsUtf8(word)) {
      return absl::InvalidArgumentError(StrCat("output '", output, "' has bytes that are not UTF-8, which JSON cannot "
                                               "carry: ask for it with the parameter binary_data"));
    }
    if (!std::exchange(first, false)) out += ',';
    AppendJsonString(word, out);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<BufferPool::Buffer> ReadElements(JsonReader& json, DType dtype, std::string_view input,
                                                BufferPool& pool) {
  const Read element = ReaderOf(dtype);
  if (element == nullptr) {
    return absl::InvalidArgumentError(StrCat("sending ", ToString(dtype), " data via JSON is not supported. Please use the "
                                             "binary data format for input '", input, "'"));
  }
  GrowingBuffer bytes(pool);
  const absl::Status read = ReadNested(Sink{json, dtype, bytes}, element);
  if (!read.ok()) return Annotate(read, StrCat("input '", input, "'"));
  return bytes.Take();
}

absl::Status AppendElements(const Tensor& tensor, std::string_view output, std::string& out) {
  out += '[';
  switch (tensor.dtype) {
    case DType::kBool:
      AppendBools(tensor, out);
      break;
    case DType::kUInt8:
      AppendNumbers<std::uint8_t>(tensor, out);
      break;
    case DType::kUInt16:
      AppendNumbers<std::uint16_t>(tensor, out);
      break;
    case DType::kUInt32:
      AppendNumbers<std::uint32_t>(tensor, out);
      break;
    case DType::kUInt64:
      AppendNumbers<std::uint64_t>(tensor, out);
      break;
    case DType::kInt8:
      AppendNumbers<std::int8_t>(tensor, out);
      break;
    case DType::kInt16:
      AppendNumbers<std::int16_t>(tensor, out);
      break;
    case DType::kInt32:
      AppendNumbers<std::int32_t>(tensor, out);
      break;
    case DType::kInt64:
      AppendNumbers<std::int64_t>(tensor, out);
      break;
    case DType::kFp32:
      AppendNumbers<float>(tensor, out);
      break;
    case DType::kFp64:
      AppendNumbers<double>(tensor, out);
      break;
    case DType::kBytes:
      HEARTH_RETURN_IF_ERROR(AppendWords(tensor, output, out));
      break;
    case DType::kFp16:
    case DType::kBf16:
    case DType::kUnknown:
      return absl::InvalidArgumentError(StrCat("sending ", ToString(tensor.dtype), " data via JSON is not supported. "
                                               "Please use the binary data format for output '", output, "'"));
  }
  out += ']';
  return absl::OkStatus();
}

}  // namespace hearth
