#include "server/frontend/json_writer.h"

#include <charconv>
#include <cmath>
#include <cstdio>

#include "server/frontend/utf8.h"

namespace hearth {
namespace {

template <typename T>
void Append(T value, std::string& out) {
  char digits[64];
  const auto [end, error] = std::to_chars(digits, digits + sizeof digits, value);
  out.append(digits, end);
}

template <typename T>
void AppendFloat(T value, std::string& out) {
  if (std::isnan(value)) {
    out += "NaN";
  } else if (std::isinf(value)) {
    out += value < 0 ? "-Infinity" : "Infinity";
  } else {
    Append(value, out);
  }
}

// Of a UTF-8 sequence by its first byte.
std::size_t SequenceLength(char first) {
  const auto byte = static_cast<unsigned char>(first);
  return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

}  // namespace

void AppendJsonString(std::string_view text, std::string& out) {
  const bool whole = IsUtf8(text);
  out += '"';
  for (std::size_t at = 0; at < text.size();) {
    const char c = text[at];
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
      ++at;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\u%04x", static_cast<unsigned>(c));
      out += escape;
      ++at;
    } else {
      const std::string_view sequence = text.substr(at, SequenceLength(c));
      if (whole || IsUtf8(sequence)) {
        out += sequence;
        at += sequence.size();
      } else {
        out += "\xEF\xBF\xBD";
        ++at;
      }
    }
  }
  out += '"';
}

void AppendJsonNumber(float value, std::string& out) { AppendFloat(value, out); }
void AppendJsonNumber(double value, std::string& out) { AppendFloat(value, out); }
void AppendJsonInt(long long value, std::string& out) { Append(value, out); }
void AppendJsonUInt(unsigned long long value, std::string& out) { Append(value, out); }

}  // namespace hearth
