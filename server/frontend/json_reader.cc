#include "server/frontend/json_reader.h"

#include <charconv>
#include <system_error>

#include "server/frontend/utf8.h"

namespace hearth {
namespace {

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

void AppendUtf8(unsigned point, std::string& out) {
  const auto add = [&out](unsigned byte) { out += static_cast<char>(byte); };
  if (point < 0x80) {
    add(point);
  } else if (point < 0x800) {
    add(0xC0 | (point >> 6));
    add(0x80 | (point & 0x3F));
  } else if (point < 0x10000) {
    add(0xE0 | (point >> 12));
    add(0x80 | ((point >> 6) & 0x3F));
    add(0x80 | (point & 0x3F));
  } else {
    add(0xF0 | (point >> 18));
    add(0x80 | ((point >> 12) & 0x3F));
    add(0x80 | ((point >> 6) & 0x3F));
    add(0x80 | (point & 0x3F));
  }
}

std::string_view Name(JsonReader::Kind kind) {
  switch (kind) {
    case JsonReader::Kind::kNull:
      return "null";
    case JsonReader::Kind::kBool:
      return "a boolean";
    case JsonReader::Kind::kNumber:
      return "a number";
    case JsonReader::Kind::kString:
      return "a string";
    case JsonReader::Kind::kArray:
      return "an array";
    case JsonReader::Kind::kObject:
      return "an object";
    case JsonReader::Kind::kNone:
      break;
  }
  return "something else";
}

}  // namespace

absl::Status JsonReader::Error(std::string_view what) const {
  return absl::InvalidArgumentError(StrCat(what, " at byte ", at_));
}

absl::Status JsonReader::WrongKind(std::string_view wanted) {
  const Kind kind = Peek();
  if (at_ == text_.size()) return Error(StrCat("expected ", wanted, ", and the JSON ends"));
  return Error(StrCat("expected ", wanted, ", got ", Name(kind)));
}

void JsonReader::SkipBlanks() {
  while (at_ < text_.size()) {
    const char c = text_[at_];
    if (c != ' ' && c != '\n' && c != '\r' && c != '\t') return;
    ++at_;
  }
}

std::size_t JsonReader::position() {
  SkipBlanks();
  return at_;
}

bool JsonReader::Take(char c) {
  SkipBlanks();
  if (at_ == text_.size() || text_[at_] != c) return false;
  ++at_;
  return true;
}

JsonReader::Kind JsonReader::Peek() {
  SkipBlanks();
  if (at_ == text_.size()) return Kind::kNone;
  const char c = text_[at_];
  if (IsDigit(c) || c == '-' || c == 'N' || c == 'I') return Kind::kNumber;
  switch (c) {
    case '"':
      return Kind::kString;
    case '[':
      return Kind::kArray;
    case '{':
      return Kind::kObject;
    case 't':
    case 'f':
      return Kind::kBool;
    case 'n':
      return Kind::kNull;
    default:
      return Kind::kNone;
  }
}

absl::Status JsonReader::TakeWord(std::string_view word) {
  if (text_.substr(at_, word.size()) != word) return Error(StrCat("expected ", word));
  at_ += word.size();
  return absl::OkStatus();
}

absl::Status JsonReader::Object(absl::FunctionRef<absl::Status(const std::string& key)> member) {
  if (!Take('{')) return WrongKind("an object");
  if (++depth_ > kMaxDepth) return Error(StrCat("more than ", kMaxDepth, " levels of arrays and objects"));
  if (!Take('}')) {
    do {
      if (Peek() != Kind::kString) return WrongKind("a key in double quotes");
      HEARTH_ASSIGN_OR_RETURN(const std::string key, String());
      if (!Take(':')) return Error("expected ':' after a key");
      HEARTH_RETURN_IF_ERROR(member(key));
    } while (Take(','));
    if (!Take('}')) return Error("expected ',' or '}' in an object");
  }
  --depth_;
  return absl::OkStatus();
}

absl::Status JsonReader::Array(absl::FunctionRef<absl::Status()> element) {
  if (!Take('[')) return WrongKind("an array");
  if (++depth_ > kMaxDepth) return Error(StrCat("more than ", kMaxDepth, " levels of arrays and objects"));
  if (!Take(']')) {
    do {
      HEARTH_RETURN_IF_ERROR(element());
    } while (Take(','));
    if (!Take(']')) return Error("expected ',' or ']' in an array");
  }
  --depth_;
  return absl::OkStatus();
}

absl::StatusOr<unsigned> JsonReader::TakeHex4() {
  unsigned value = 0;
  const char* const begin = text_.data() + at_;
  if (text_.size() - at_ < 4) return Error("a string's escape is cut short");
  const auto [end, error] = std::from_chars(begin, begin + 4, value, 16);
  if (error != std::errc() || end != begin + 4) return Error("\\u is not followed by four hexadecimal digits");
  at_ += 4;
  return value;
}

// What follows a backslash.
absl::Status JsonReader::TakeEscape(std::string& out) {
  constexpr std::string_view kLetters = "\"\\/bfnrt";
  constexpr std::string_view kMeanings = "\"\\/\b\f\n\r\t";
  if (at_ == text_.size()) return Error("a string has no end");
  const char c = text_[at_++];
  if (const auto known = kLetters.find(c); known != kLetters.npos) {
    out += kMeanings[known];
    return absl::OkStatus();
  }
  if (c != 'u') return Error("a string has an escape that JSON has not");
  HEARTH_ASSIGN_OR_RETURN(unsigned point, TakeHex4());
  if (point >= 0xD800 && point < 0xDC00) {  // the first half of one beyond 16 bits
    if (text_.substr(at_, 2) != "\\u") return Error("a string has half a surrogate pair");
    at_ += 2;
    HEARTH_ASSIGN_OR_RETURN(const unsigned second, TakeHex4());
    if (second < 0xDC00 || second > 0xDFFF) return Error("a string has half a surrogate pair");
    point = 0x10000 + ((point - 0xD800) << 10) + (second - 0xDC00);
  } else if (point >= 0xDC00 && point < 0xE000) {
    return Error("a string has half a surrogate pair");
  }
  AppendUtf8(point, out);
  return absl::OkStatus();
}

absl::StatusOr<std::string> JsonReader::String() {
  if (!Take('"')) return WrongKind("a string");
  std::string out;
  while (true) {
    const std::size_t begin = at_;
    while (at_ < text_.size() && text_[at_] != '"' && text_[at_] != '\\' && static_cast<unsigned char>(text_[at_]) >= 0x20) {
      ++at_;
    }
    out.append(text_.substr(begin, at_ - begin));
    if (at_ == text_.size()) return Error("a string has no end");
    if (text_[at_] == '"') break;
    if (text_[at_] != '\\') return Error("a string has a control character; write it as an escape");
    ++at_;
    HEARTH_RETURN_IF_ERROR(TakeEscape(out));
  }
  ++at_;
  if (!IsUtf8(out)) return Error("a string is not UTF-8; send bytes as binary data");
  return out;
}

absl::StatusOr<std::string_view> JsonReader::Number() {
  if (Peek() != Kind::kNumber) return WrongKind("a number");
  const std::size_t begin = at_;
  const auto written = [&] { return text_.substr(begin, at_ - begin); };
  if (text_[at_] == 'N') {
    HEARTH_RETURN_IF_ERROR(TakeWord("NaN"));
    return written();
  }
  if (text_[at_] == '-') ++at_;
  const auto here = [&] { return at_ < text_.size() ? text_[at_] : '\0'; };
  const auto digits = [&] {
    const std::size_t first = at_;
    while (IsDigit(here())) ++at_;
    return at_ > first;
  };
  if (here() == 'I') {
    HEARTH_RETURN_IF_ERROR(TakeWord("Infinity"));
    return written();
  }
  if (here() == '0') {
    ++at_;
    if (IsDigit(here())) return Error("a number begins with 0");
  } else if (!digits()) {
    return Error("a number has no digits");
  }
  if (here() == '.') {
    ++at_;
    if (!digits()) return Error("a number has no digits after its point");
  }
  if (here() == 'e' || here() == 'E') {
    ++at_;
    if (here() == '+' || here() == '-') ++at_;
    if (!digits()) return Error("a number's exponent has no digits");
  }
  return written();
}

absl::StatusOr<bool> JsonReader::Bool() {
  if (Peek() != Kind::kBool) return WrongKind("true or false");
  const bool value = text_[at_] == 't';
  HEARTH_RETURN_IF_ERROR(TakeWord(value ? "true" : "false"));
  return value;
}

absl::Status JsonReader::Null() {
  if (Peek() != Kind::kNull) return WrongKind("null");
  return TakeWord("null");
}

absl::Status JsonReader::Skip() {
  switch (Peek()) {
    case Kind::kNull:
      return Null();
    case Kind::kBool:
      return Bool().status();
    case Kind::kNumber:
      return Number().status();
    case Kind::kString:
      return String().status();
    case Kind::kArray:
      return Array([this] { return Skip(); });
    case Kind::kObject:
      return Object([this](const std::string&) { return Skip(); });
    case Kind::kNone:
      break;
  }
  return WrongKind("a value");
}

namespace {

template <typename Int>
absl::StatusOr<Int> WholeNumber(JsonReader& reader) {
  HEARTH_ASSIGN_OR_RETURN(const std::string_view text, reader.Number());
  Int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) {
    return reader.Error(StrCat("'", text.substr(0, 40), "' is not a whole number in range"));
  }
  return value;
}

}  // namespace

absl::StatusOr<std::int64_t> JsonReader::Int64() { return WholeNumber<std::int64_t>(*this); }
absl::StatusOr<std::uint64_t> JsonReader::UInt64() { return WholeNumber<std::uint64_t>(*this); }

absl::Status JsonReader::End() {
  SkipBlanks();
  if (at_ < text_.size()) return Error("something follows the JSON");
  return absl::OkStatus();
}

}  // namespace hearth
