#include "client/npy.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <optional>
#include <utility>

#include "client/elements.h"
#include "client/status_macros.h"
#include "client/strings.h"
#include "client/utf8.h"

namespace hearth::client {
namespace {

constexpr std::string_view kMagic("\x93NUMPY", 6);
constexpr std::size_t kMaxDims = 64;               // as numpy 2
constexpr std::size_t kMaxHeader = std::size_t{64} << 10;  // numpy's own limit is 10,000

absl::Status Bad(std::string_view why) {
  return absl::InvalidArgumentError(Cat("not a .npy file that can be read: ", why));
}

struct Header {
  std::string descr;
  bool fortran_order = false;
  Shape shape;
};

// The header is a Python dict literal of three known keys, in any order. This reads that much Python.
class HeaderReader {
 public:
  explicit HeaderReader(std::string_view text) : rest_(text) {}

  absl::StatusOr<Header> Read() {
    Header header;
    bool seen[3] = {};
    if (!Take('{')) return Bad("the header is not a dict");
    while (!Take('}')) {
      std::string key;
      if (!ReadString(key) || !Take(':')) return Bad("the header has a key without a value");
      int slot = 0;
      bool good = false;
      if (key == "descr") {
        if (Peek() == '[') return Bad("it holds records; save one field at a time");
        slot = 0, good = ReadString(header.descr);
      } else if (key == "fortran_order") {
        slot = 1, good = ReadBool(header.fortran_order);
      } else if (key == "shape") {
        slot = 2, good = ReadShape(header.shape);
      } else {
        return Bad(Cat("the header has an unknown key '", key, "'"));
      }
      if (!good) return Bad(Cat("the header's '", key, "' cannot be understood"));
      if (seen[slot]) return Bad(Cat("the header says '", key, "' twice"));
      seen[slot] = true;
      if (!Take(',') && Peek() != '}') return Bad("the header lacks a comma");
    }
    if (Peek() != '\0') return Bad("the header goes on behind its dict");
    if (!seen[0] || !seen[1] || !seen[2]) return Bad("the header lacks descr, fortran_order or shape");
    return header;
  }

 private:
  char Peek() {
    while (!rest_.empty() && (rest_[0] == ' ' || rest_[0] == '\n' || rest_[0] == '\t')) {
      rest_.remove_prefix(1);
    }
    return rest_.empty() ? '\0' : rest_[0];
  }
  bool Take(char c) {
    if (Peek() != c || rest_.empty()) return false;
    rest_.remove_prefix(1);
    return true;
  }
  bool TakeWord(std::string_view word) {
    Peek();
    if (!rest_.starts_with(word)) return false;
    rest_.remove_prefix(word.size());
    return true;
  }
  bool ReadString(std::string& out) {
    const char quote = Peek();
    if (quote != '\'' && quote != '"') return false;
    const std::size_t end = rest_.find(quote, 1);
    if (end == std::string_view::npos) return false;
    out = std::string(rest_.substr(1, end - 1));
    rest_.remove_prefix(end + 1);
    return true;
  }
  bool ReadBool(bool& out) {
    if (TakeWord("True")) return out = true, true;
    return TakeWord("False");
  }
  bool ReadShape(Shape& out) {
    if (!Take('(')) return false;
    while (!Take(')')) {
      Peek();
      std::int64_t dim = 0;
      const auto [end, error] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), dim);
      if (error != std::errc() || dim < 0 || out.size() == kMaxDims) return false;
      rest_.remove_prefix(static_cast<std::size_t>(end - rest_.data()));
      if (!rest_.empty() && rest_[0] == 'L') rest_.remove_prefix(1);  // Python 2 wrote 3L
      out.push_back(dim);
      if (!Take(',') && Peek() != ')') return false;
    }
    return true;
  }

  std::string_view rest_;
};

// What one element is in the file.
struct Element {
  DataType type = DataType::kBytes;
  std::size_t size = 0;   // bytes in the file
  bool unicode = false;   // kBytes only
};

absl::StatusOr<Element> ParseDescr(const std::string& descr) {
  const auto unsupported = [&](std::string_view hint) {
    return Bad(Cat("elements of type '", descr, "' have no counterpart here", hint));
  };
  if (descr.size() < 2) return unsupported("");
  const char order = descr[0], kind = descr[1];
  std::uint32_t size = 0;
  const auto [end, error] = std::from_chars(descr.data() + 2, descr.data() + descr.size(), size);
  if (kind == 'O') return unsupported("; Python objects are not read, save plain numbers or strings");
  if (error != std::errc() || end != descr.data() + descr.size()) return unsupported("");
  if (order == '>' && size > 1 && kind != 'S') {
    return unsupported(": it is big-endian, save array.astype(array.dtype.newbyteorder('<'))");
  }
  if (order != '<' && order != '|' && order != '=' && order != '>') return unsupported("");
  if (kind == 'S' && size > 0) return Element{DataType::kBytes, size, false};
  if (kind == 'U' && size > 0) return Element{DataType::kBytes, std::size_t{size} * 4, true};
  const std::string code = Cat(std::string(1, kind), size);
  constexpr std::pair<std::string_view, DataType> kKinds[] = {
      {"b1", DataType::kBool},   {"u1", DataType::kUInt8},  {"u2", DataType::kUInt16},
      {"u4", DataType::kUInt32}, {"u8", DataType::kUInt64}, {"i1", DataType::kInt8},
      {"i2", DataType::kInt16},  {"i4", DataType::kInt32},  {"i8", DataType::kInt64},
      {"f2", DataType::kFp16},   {"f4", DataType::kFp32},   {"f8", DataType::kFp64}};
  for (const auto& [name, type] : kKinds) {
    if (name == code) return Element{type, size, false};
  }
  return unsupported("");
}

// The header's text, and how far into the file the data begins.
absl::StatusOr<std::pair<std::string_view, std::size_t>> HeaderText(std::string_view content) {
  if (!content.starts_with(kMagic)) return Bad("it does not begin with \\x93NUMPY");
  if (content.size() < 10) return Bad("it is cut short");
  const int version = static_cast<unsigned char>(content[6]);
  if (version < 1 || version > 3) return Bad(Cat("its format version ", version, " is not known"));
  std::size_t start = 10, length = 0;
  if (version == 1) {
    std::uint16_t short_length = 0;
    std::memcpy(&short_length, content.data() + 8, sizeof(short_length));
    length = short_length;
  } else {
    start = 12;
    if (content.size() < start) return Bad("it is cut short");
    std::uint32_t long_length = 0;
    std::memcpy(&long_length, content.data() + 8, sizeof(long_length));
    length = long_length;
  }
  if (length > kMaxHeader) return Bad("its header is larger than any array needs");
  if (content.size() - start < length) return Bad("it ends inside its header");
  return std::pair(content.substr(start, length), start + length);
}

// Row-major from column-major: walks the result in order and keeps the source's offset alongside.
std::string ToRowMajor(std::string_view data, const Shape& shape, std::size_t size) {
  std::vector<std::size_t> stride(shape.size());
  std::size_t step = 1;
  for (std::size_t d = 0; d < shape.size(); ++d) {
    stride[d] = step;
    step *= static_cast<std::size_t>(shape[d]);
  }
  std::string out;
  out.reserve(data.size());
  std::vector<std::int64_t> index(shape.size(), 0);
  std::size_t source = 0;
  while (out.size() < data.size()) {
    out.append(data.substr(source * size, size));
    for (std::size_t d = shape.size(); d-- > 0;) {
      source += stride[d];
      if (++index[d] < shape[d]) break;
      source -= stride[d] * static_cast<std::size_t>(shape[d]);
      index[d] = 0;
    }
  }
  return out;
}

absl::StatusOr<std::string> DecodeStrings(std::string_view data, const Element& element) {
  std::string bytes;
  for (std::size_t at = 0; at < data.size(); at += element.size) {
    std::string_view raw = data.substr(at, element.size);
    if (!element.unicode) {
      const std::size_t last = raw.find_last_not_of('\0');
      AppendBytesElement(raw.substr(0, last == std::string_view::npos ? 0 : last + 1), bytes);
      continue;
    }
    std::u32string text(raw.size() / 4, U'\0');
    std::memcpy(text.data(), raw.data(), raw.size());
    text.resize(text.find_last_not_of(U'\0') + 1);  // npos + 1 is 0: nothing but padding
    std::string utf8;
    for (const char32_t c : text) {
      if (!AppendUtf8(c, utf8)) return Bad("a string holds something that is not Unicode");
    }
    AppendBytesElement(utf8, bytes);
  }
  return bytes;
}

std::string DescrOf(DataType type) {
  constexpr std::string_view kDescr[kDataTypeCount - 1] = {"|b1", "|u1", "<u2", "<u4", "<u8", "|i1",
                                                           "<i2", "<i4", "<i8", "<f2", "<f4", "<f4",
                                                           "<f8"};
  return std::string(kDescr[static_cast<std::size_t>(type)]);
}

// As fixed-width strings, padded with zeros; sets `width`.
absl::StatusOr<std::string> PackStrings(const Tensor& tensor, std::size_t& width) {
  CLIENT_ASSIGN_OR_RETURN(const std::vector<std::string_view> elements, BytesElements(tensor));
  width = 1;
  for (const std::string_view element : elements) {
    if (element.ends_with('\0')) {
      return absl::InvalidArgumentError(
          "a BYTES element ends in a zero byte, which a .npy file cannot keep");
    }
    width = std::max(width, element.size());
  }
  // One long element among many short ones would be padded beyond all measure.
  if (width > (std::size_t{1} << 31) / std::max<std::size_t>(elements.size(), 1)) {
    return absl::InvalidArgumentError("the strings differ too much in length for a .npy file");
  }
  std::string data;
  for (const std::string_view element : elements) {
    data.append(element);
    data.append(width - element.size(), '\0');
  }
  return data;
}

}  // namespace

absl::StatusOr<Tensor> ParseNpy(std::string_view content) {
  CLIENT_ASSIGN_OR_RETURN(const auto text, HeaderText(content));
  CLIENT_ASSIGN_OR_RETURN(Header header, HeaderReader(text.first).Read());
  CLIENT_ASSIGN_OR_RETURN(const Element element, ParseDescr(header.descr));
  const std::optional<std::uint64_t> count = ElementCount(header.shape);
  const std::size_t present = content.size() - text.second;
  if (!count || *count > present / element.size) {
    return Bad(Cat("its shape ", ToString(header.shape), " needs more data than the ", present,
                   " bytes it has"));
  }
  std::string_view data = content.substr(text.second, *count * element.size);
  std::string reordered;
  if (header.fortran_order) {
    reordered = ToRowMajor(data, header.shape, element.size);
    data = reordered;
  }
  Tensor tensor{element.type, std::move(header.shape), {}};
  if (element.type == DataType::kBytes) {
    CLIENT_ASSIGN_OR_RETURN(tensor.bytes, DecodeStrings(data, element));
  } else {
    tensor.bytes = std::string(data);
  }
  if (element.type == DataType::kBool) {
    for (char& c : tensor.bytes) c = c != 0 ? 1 : 0;
  }
  return tensor;
}

absl::StatusOr<std::string> FormatNpy(const Tensor& tensor) {
  CLIENT_RETURN_IF_ERROR(Validate(tensor));
  std::string descr, data;
  if (tensor.datatype == DataType::kBytes) {
    std::size_t width = 0;
    CLIENT_ASSIGN_OR_RETURN(data, PackStrings(tensor, width));
    descr = Cat("|S", width);
  } else {
    descr = DescrOf(tensor.datatype);
    if (tensor.datatype == DataType::kBf16) {
      CLIENT_ASSIGN_OR_RETURN(const Tensor wide, Convert(tensor, DataType::kFp32));
      data = wide.bytes;
    } else {
      data = tensor.bytes;
    }
  }
  std::string shape;
  for (const std::int64_t dim : tensor.shape) shape += Cat(shape.empty() ? "" : ", ", dim);
  if (tensor.shape.size() == 1) shape += ',';  // as Python spells a tuple of one
  std::string header = Cat("{'descr': '", descr, "', 'fortran_order': False, 'shape': (", shape, "), }");
  // Data begins at a multiple of 64, so that it can be mapped; the newline is part of the header.
  header.append(63 - (kMagic.size() + 4 + header.size()) % 64, ' ');
  header += '\n';
  const auto length = static_cast<std::uint16_t>(header.size());
  std::string out(kMagic);
  out += '\x01';
  out += '\0';
  out += static_cast<char>(length & 0xFF);
  out += static_cast<char>(length >> 8);
  return out + header + data;
}

}  // namespace hearth::client
