#include "server/storage/safetensors.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <unordered_map>
#include <unordered_set>
#include <utility>

namespace hearth {
namespace {

constexpr std::uint64_t kLengthBytes = 8;
constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;
constexpr std::size_t kMaxRank = 64;
constexpr std::string_view kChecksumKey = "sha256.";

absl::Status Bad(std::string_view what) { return absl::InvalidArgumentError(std::string(what)); }

// 64 hexadecimal digits.
std::optional<Checksum> ParseChecksum(std::string_view text) {
  Checksum checksum;
  if (text.size() != 2 * checksum.size()) return std::nullopt;
  for (std::size_t i = 0; i < checksum.size(); ++i) {
    const char* digits = text.data() + 2 * i;
    if (std::from_chars(digits, digits + 2, checksum[i], 16).ptr != digits + 2) return std::nullopt;
  }
  return checksum;
}

// One tensor as the header describes it.
struct Described {
  std::string name;
  std::string dtype;
  Shape shape;
  std::vector<std::uint64_t> offsets;
  bool has_dtype = false, has_shape = false, has_offsets = false;
};

// Takes the header's JSON as it is parsed, so nothing is built that the header merely claims.
//   {"__metadata__": {"key": "text"}, "name": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
class HeaderReader final : public nlohmann::json_sax<nlohmann::json> {
 public:
  std::vector<Described> tensors;
  std::unordered_map<std::string, Checksum> checksums;  // by tensor
  std::string error;

  bool start_object(std::size_t) override {
    switch (where_) {
      case Where::kOutside:
        where_ = Where::kTop;
        return true;
      case Where::kTop:
        where_ = key_ == "__metadata__" ? Where::kMetadata : Where::kTensor;
        if (where_ == Where::kTensor) tensors.emplace_back().name = key_;
        return true;
      default:
        return Fail("nests objects deeper than the format does");
    }
  }
  bool end_object() override {
    if (where_ == Where::kTensor) {
      const Described& t = tensors.back();
      if (!t.has_dtype || !t.has_shape || !t.has_offsets) {
        return Fail("has a tensor without dtype, shape or data_offsets");
      }
    }
    where_ = where_ == Where::kTop ? Where::kOutside : Where::kTop;
    return true;
  }
  bool key(string_t& name) override {
    if (where_ == Where::kTop && !names_.insert(name).second) return Fail("has a name twice");
    key_ = std::move(name);
    return true;
  }
  bool string(string_t& text) override {
    if (where_ == Where::kMetadata) {
      const std::optional<Checksum> checksum = ParseChecksum(text);
      if (checksum && key_.starts_with(kChecksumKey)) checksums[key_.substr(kChecksumKey.size())] = *checksum;
      return true;
    }
    if (where_ != Where::kTensor || key_ != "dtype" || tensors.back().has_dtype) return Unexpected();
    tensors.back().dtype = std::move(text);
    tensors.back().has_dtype = true;
    return true;
  }
  bool start_array(std::size_t) override {
    if (where_ != Where::kTensor) return Unexpected();
    Described& t = tensors.back();
    bool* seen = key_ == "shape" ? &t.has_shape : key_ == "data_offsets" ? &t.has_offsets : nullptr;
    if (seen == nullptr || *seen) return Unexpected();
    *seen = true;
    where_ = key_ == "shape" ? Where::kShape : Where::kOffsets;
    return true;
  }
  bool end_array() override {
    where_ = Where::kTensor;
    return true;
  }
  bool number_unsigned(number_unsigned_t value) override {
    if (where_ == Where::kShape) {
      if (value > INT64_MAX) return Fail("has a dimension that is too large");
      if (tensors.back().shape.size() >= kMaxRank) return Fail("has a tensor of too many dimensions");
      tensors.back().shape.push_back(static_cast<std::int64_t>(value));
      return true;
    }
    if (where_ != Where::kOffsets || tensors.back().offsets.size() >= 2) return Unexpected();
    tensors.back().offsets.push_back(value);
    return true;
  }
  bool null() override { return Unexpected(); }
  bool boolean(bool) override { return Unexpected(); }
  bool number_integer(number_integer_t) override { return Unexpected(); }
  bool number_float(number_float_t, const string_t&) override { return Unexpected(); }
  bool binary(binary_t&) override { return Unexpected(); }
  bool parse_error(std::size_t at, const std::string&, const nlohmann::detail::exception&) override {
    return Fail(StrCat("is not JSON (at byte ", at, ")"));
  }

 private:
  enum class Where { kOutside, kTop, kMetadata, kTensor, kShape, kOffsets };

  bool Fail(std::string what) {
    if (error.empty()) error = std::move(what);
    return false;
  }
  bool Unexpected() { return Fail("holds something that the format does not have there"); }

  Where where_ = Where::kOutside;
  std::string key_;
  std::unordered_set<std::string> names_;
};

// The length of the header. REQUIRES: kLengthBytes bytes at least.
std::uint64_t StatedLength(std::span<const std::byte> file) {
  std::uint64_t length = 0;
  std::memcpy(&length, file.data(), kLengthBytes);
  return length;
}

// Of a file without one.
absl::Status NoHeader(std::span<const std::byte> file) {
  if (!HasSafetensorsBrace(file)) {
    return Bad("does not begin with the length of a header and a header, as safetensors files do");
  }
  const std::uint64_t length = StatedLength(file);
  const std::string says = StrCat("says that its safetensors header has ", length, " bytes");
  if (length > kMaxHeaderBytes) return Bad(StrCat(says, "; at most ", kMaxHeaderBytes, " are allowed"));
  if (length < 2) return Bad(StrCat(says, ", which is no header"));
  return Bad(StrCat(says, ", and ends after ", file.size() - kLengthBytes, " of them: is the file complete?"));
}

// `hearth pack` puts it between tensors to align them: the format allows no gaps.
bool IsPadding(const WeightTensor& tensor) {
  return tensor.name.starts_with("__padding__") && tensor.type->dtype == DType::kUInt8;
}

absl::StatusOr<WeightTensor> ToTensor(Described& described, std::size_t storage) {
  const ElementType* type = FindSafetensorsType(described.dtype);
  if (type == nullptr) {
    return Bad(StrCat("has tensors of type '", described.dtype.substr(0, 40), "', which is not known"));
  }
  const std::optional<std::int64_t> count = ElementCount(described.shape);
  std::uint64_t bytes = 0;
  if (described.offsets.size() != 2 || !count ||
      __builtin_mul_overflow(static_cast<std::uint64_t>(*count), type->size, &bytes) ||
      described.offsets[1] < described.offsets[0] ||
      described.offsets[1] - described.offsets[0] != bytes) {
    return Bad(StrCat("has a tensor whose bytes do not go with its shape ", ToString(described.shape)));
  }
  return WeightTensor{.name = std::move(described.name),
                      .storage = storage,
                      .type = type,
                      .sizes = described.shape,
                      .strides = ContiguousStrides(described.shape)};
}

}  // namespace

std::vector<std::int64_t> ContiguousStrides(const Shape& sizes) {
  std::vector<std::int64_t> strides(sizes.size());
  std::int64_t stride = 1;
  for (std::size_t i = sizes.size(); i-- > 0;) {
    strides[i] = stride;
    if (__builtin_mul_overflow(stride, std::max<std::int64_t>(sizes[i], 1), &stride)) stride = 0;
  }
  return strides;
}

bool LooksLikeSafetensors(std::span<const std::byte> file) {
  if (!HasSafetensorsBrace(file)) return false;
  const std::uint64_t length = StatedLength(file);
  return length >= 2 && length <= kMaxHeaderBytes && length <= file.size() - kLengthBytes;
}

bool HasSafetensorsBrace(std::span<const std::byte> file) {
  return file.size() > kLengthBytes && file[kLengthBytes] == std::byte{'{'};
}

absl::StatusOr<Weights> safetensors_internal::Parse(std::span<const std::byte> file) {
  if (!LooksLikeSafetensors(file)) return NoHeader(file);
  const std::uint64_t length = StatedLength(file);
  const auto* text = reinterpret_cast<const char*>(file.data() + kLengthBytes);
  HeaderReader header;
  if (!nlohmann::json::sax_parse(text, text + length, &header)) {
    return Bad(StrCat("has a header that ", header.error));
  }
  // In the order of their bytes, empty ones before what begins at the same place.
  std::sort(header.tensors.begin(), header.tensors.end(), [](const Described& a, const Described& b) {
    return a.offsets < b.offsets;
  });
  const std::uint64_t begin = kLengthBytes + length;
  std::uint64_t next = 0;
  Weights weights;
  for (Described& described : header.tensors) {
    HEARTH_ASSIGN_OR_RETURN(WeightTensor tensor, ToTensor(described, weights.storages.size()));
    if (described.offsets[0] != next) {
      return Bad("has tensors that overlap or leave a gap between them");
    }
    next = described.offsets[1];
    if (next > file.size() - begin) return Bad("is cut short: a tensor ends behind the end of the file");
    if (IsPadding(tensor)) continue;
    weights.storages.push_back(
        {.file = nullptr, .offset = begin + described.offsets[0], .size = next - described.offsets[0], .unpack = {}});
    if (const auto found = header.checksums.find(tensor.name); found != header.checksums.end()) {
      weights.storages.back().checksum = found->second;
    }
    weights.tensors.push_back(std::move(tensor));
  }
  if (next != file.size() - begin) return Bad("has bytes behind its last tensor");
  return weights;
}

absl::StatusOr<Weights> ReadSafetensors(const std::shared_ptr<const MappedFile>& file) {
  HEARTH_ASSIGN_OR_RETURN(Weights weights, safetensors_internal::Parse(file->bytes()));
  for (WeightStorage& storage : weights.storages) storage.file = file;
  return weights;
}

}  // namespace hearth
