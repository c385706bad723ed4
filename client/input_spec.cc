#include "client/input_spec.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <utility>

#include "client/elements.h"
#include "client/files.h"
#include "client/literal.h"
#include "client/npy.h"
#include "client/resample.h"
#include "client/status_macros.h"
#include "client/strings.h"
#include "client/wav.h"

namespace hearth::client {
namespace {

template <typename T>
std::optional<T> ParseInteger(std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// "[2,-1]" with the brackets.
std::optional<Shape> ParseShape(std::string_view text) {
  if (text.size() < 2 || text.front() != '[' || text.back() != ']') return std::nullopt;
  text = text.substr(1, text.size() - 2);
  Shape shape;
  while (!text.empty()) {
    const std::size_t comma = std::min(text.find(','), text.size());
    std::string_view dim = text.substr(0, comma);
    while (!dim.empty() && dim.front() == ' ') dim.remove_prefix(1);
    const std::optional<std::int64_t> size = ParseInteger<std::int64_t>(dim);
    if (!size || *size < -1) return std::nullopt;
    shape.push_back(*size);
    text.remove_prefix(std::min(comma + 1, text.size()));
  }
  if (std::count(shape.begin(), shape.end(), -1) > 1) return std::nullopt;
  return shape;
}

// The shape with its -1 computed. Nothing when `count` elements cannot have it.
std::optional<Shape> FitShape(Shape shape, std::uint64_t count) {
  const auto open = std::find(shape.begin(), shape.end(), -1);
  if (open != shape.end()) {
    *open = 1;
    const std::optional<std::uint64_t> rest = ElementCount(shape);
    if (!rest || *rest == 0) return std::nullopt;
    *open = static_cast<std::int64_t>(count / *rest);
  }
  if (ElementCount(shape) != count) return std::nullopt;
  return shape;
}

bool EndsWith(std::string_view path, std::string_view extension) {
  if (path.size() < extension.size()) return false;
  path.remove_prefix(path.size() - extension.size());
  return std::equal(path.begin(), path.end(), extension.begin(), [](unsigned char a, char b) {
    return std::tolower(a) == b;
  });
}

// "x.wav:16000[0:512]" taken apart.
struct WavSource {
  std::string path;
  std::optional<int> rate;
  std::size_t begin = 0;
  std::size_t end = std::string::npos;
};

// Nothing when the text does not name a .wav file in this form.
std::optional<WavSource> ParseWavSource(std::string_view text) {
  WavSource source;
  if (text.ends_with(']')) {
    const std::size_t open = text.rfind('[');
    if (open == text.npos) return std::nullopt;
    const std::string_view range = text.substr(open + 1, text.size() - open - 2);
    const std::size_t colon = range.find(':');
    if (colon == range.npos) return std::nullopt;
    const std::string_view from = range.substr(0, colon), to = range.substr(colon + 1);
    const auto begin = from.empty() ? 0 : ParseInteger<std::size_t>(from);
    const auto end = to.empty() ? std::string::npos : ParseInteger<std::size_t>(to);
    if (!begin || !end) return std::nullopt;
    source.begin = *begin;
    source.end = *end;
    text = text.substr(0, open);
  }
  if (!EndsWith(text, ".wav")) {
    const std::size_t colon = text.rfind(':');
    if (colon == text.npos) return std::nullopt;
    source.rate = ParseInteger<int>(text.substr(colon + 1));
    text = text.substr(0, colon);
    if (!source.rate || !EndsWith(text, ".wav")) return std::nullopt;
  }
  source.path = std::string(text);
  return source;
}

absl::StatusOr<Tensor> ReadWav(const WavSource& source, const Expectation& expected) {
  if (source.rate && (*source.rate < kMinSampleRate || *source.rate > kMaxSampleRate)) {
    return absl::InvalidArgumentError(Cat("a sample rate of ", *source.rate, " is not between ",
                                          kMinSampleRate, " and ", kMaxSampleRate));
  }
  CLIENT_ASSIGN_OR_RETURN(const std::string content, ReadFile(source.path));
  absl::StatusOr<Recording> recording = ParseWav(content);
  if (!recording.ok()) {
    return absl::InvalidArgumentError(
        Cat(source.path, ": ", std::string(recording.status().message())));
  }
  std::vector<float> samples = std::move(recording->samples);
  if (source.rate) samples = Resample(samples, recording->sample_rate, *source.rate);
  const std::size_t end = std::min(source.end, samples.size());
  const std::size_t begin = std::min(source.begin, end);
  samples = std::vector<float>(samples.begin() + static_cast<std::ptrdiff_t>(begin),
                               samples.begin() + static_cast<std::ptrdiff_t>(end));
  const auto length = static_cast<std::int64_t>(samples.size());
  const Shape shape = expected.shape.size() == 1 ? Shape{length} : Shape{1, length};
  return MakeTensor(shape, samples);
}

// `type` is what a plain file holds: written out, or what the model wants.
absl::StatusOr<Tensor> ReadRaw(const InputSpec& spec, const std::string& path,
                               std::optional<DataType> type) {
  if (!type || (*type != DataType::kBytes && !spec.shape)) {
    return absl::InvalidArgumentError(
        Cat(path, " is no .npy or .wav file: say what is in it, as in ", spec.name, ":FP32[1,-1]=@",
            path, ", or send it whole as ", spec.name, ":BYTES=@", path));
  }
  CLIENT_ASSIGN_OR_RETURN(std::string content, ReadFile(path, kMaxFileBytes - 8));
  if (*type == DataType::kBytes) return MakeBytesTensor({1}, {std::move(content)});
  const std::size_t size = SizeOf(*type);
  if (content.size() % size != 0) {
    return absl::InvalidArgumentError(Cat(path, " has ", content.size(), " bytes, which is no multiple of ",
                                          ToString(*type), "'s ", size));
  }
  const auto count = static_cast<std::int64_t>(content.size() / size);
  return Tensor{*type, {count}, std::move(content)};
}

absl::StatusOr<Tensor> ReadValue(const InputSpec& spec, const Expectation& expected) {
  const std::optional<DataType> type = spec.datatype ? spec.datatype : expected.datatype;
  if (!spec.value.starts_with('@')) return ParseLiteral(spec.value, type);
  const std::string path = spec.value.substr(1);
  if (spec.datatype == DataType::kBytes) return ReadRaw(spec, path, type);
  if (const auto wav = ParseWavSource(path)) return ReadWav(*wav, expected);
  if (!EndsWith(path, ".npy")) return ReadRaw(spec, path, type);
  CLIENT_ASSIGN_OR_RETURN(const std::string content, ReadFile(path));
  absl::StatusOr<Tensor> tensor = ParseNpy(content);
  if (!tensor.ok()) {
    return absl::InvalidArgumentError(Cat(path, ": ", std::string(tensor.status().message())));
  }
  return tensor;
}

// A lone value fits any rank whose dimensions can all be one.
bool CanBeOnes(const Shape& shape) {
  return std::all_of(shape.begin(), shape.end(), [](std::int64_t dim) { return dim == -1 || dim == 1; });
}

absl::StatusOr<Tensor> Build(const InputSpec& spec, const Expectation& expected) {
  CLIENT_ASSIGN_OR_RETURN(Tensor tensor, ReadValue(spec, expected));
  if (spec.datatype && tensor.datatype != *spec.datatype) {
    CLIENT_ASSIGN_OR_RETURN(tensor, Convert(tensor, *spec.datatype));
  }
  if (expected.datatype && tensor.datatype != *expected.datatype && !spec.datatype) {
    return absl::InvalidArgumentError(Cat("it holds ", ToString(tensor.datatype), ", but the model wants ",
                                          ToString(*expected.datatype), "; to convert it write ", spec.name,
                                          ":", ToString(*expected.datatype), "=", spec.value));
  }
  const std::optional<std::uint64_t> count = ElementCount(tensor.shape);
  if (spec.shape) {
    std::optional<Shape> fitted = FitShape(*spec.shape, count.value_or(0));
    if (!fitted) {
      return absl::InvalidArgumentError(Cat(count.value_or(0), " elements do not fill the shape ",
                                            ToString(*spec.shape)));
    }
    tensor.shape = *std::move(fitted);
  } else if (tensor.shape.empty() && CanBeOnes(expected.shape)) {
    tensor.shape.assign(expected.shape.size(), 1);
  }
  return tensor;
}

// A type misspelt, not a name with a ':' in it: "FLOAT", "FP23", "fp32"; but not "0" or "serving".
bool LooksLikeType(std::string_view word) {
  const auto capital = [](char c) { return (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9'); };
  if (word.empty()) return false;
  if (std::isdigit(static_cast<unsigned char>(word.front())) == 0 &&
      std::all_of(word.begin(), word.end(), capital)) {
    return true;
  }
  std::string upper(word);
  for (char& c : upper) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return ParseDataType(upper).has_value();
}

std::string DataTypes() {
  std::string names;
  for (std::size_t i = 0; i < kDataTypeCount; ++i) {
    names += Cat(i == 0 ? "" : ", ", ToString(static_cast<DataType>(i)));
  }
  return names;
}

}  // namespace

absl::StatusOr<InputSpec> ParseInputSpec(std::string_view text) {
  const std::size_t equals = text.find('=');
  if (equals == text.npos) {
    return absl::InvalidArgumentError(Cat("'", text, "' is no input: write NAME=VALUE or NAME=@FILE"));
  }
  InputSpec spec;
  spec.value = std::string(text.substr(equals + 1));
  std::string_view name = text.substr(0, equals);
  const std::size_t colon = name.rfind(':');
  if (colon != name.npos) {
    const std::string_view tail = name.substr(colon + 1);
    const std::size_t bracket = std::min(tail.find('['), tail.size());
    spec.datatype = ParseDataType(tail.substr(0, bracket));
    if (!spec.datatype && LooksLikeType(tail.substr(0, bracket))) {
      return absl::InvalidArgumentError(
          Cat("'", tail.substr(0, bracket), "' in '", text, "' is not a datatype; they are ", DataTypes()));
    }
    if (bracket < tail.size() && (spec.datatype || bracket == 0)) {
      spec.shape = ParseShape(tail.substr(bracket));
      if (!spec.shape) {
        return absl::InvalidArgumentError(
            Cat("'", tail.substr(bracket), "' in '", text, "' is no shape: write it as [1,512], with at "
                "most one -1"));
      }
    }
    if (spec.datatype || spec.shape) name = name.substr(0, colon);
  }
  if (name.empty()) return absl::InvalidArgumentError(Cat("'", text, "' gives its input no name"));
  spec.name = std::string(name);
  return spec;
}

absl::StatusOr<Tensor> ReadInput(const InputSpec& spec, const Expectation& expected) {
  absl::StatusOr<Tensor> tensor = Build(spec, expected);
  if (tensor.ok()) return tensor;
  return absl::Status(tensor.status().code(),
                      Cat("input '", spec.name, "': ", std::string(tensor.status().message())));
}

}  // namespace hearth::client
