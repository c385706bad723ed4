#include "server/base/log.h"

#include "server/base/log_level.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <atomic>
#include <cstdio>
#include <memory>

namespace hearth::log {
namespace {

struct Sink {
  Sink() : logger("hearth", std::make_shared<spdlog::sinks::stderr_sink_mt>()) {
    logger.set_level(spdlog::level::trace);
    logger.flush_on(spdlog::level::trace);
    SetPattern(Format::kText);
  }
  void SetPattern(Format f) {
    format.store(f);
    logger.set_pattern(f == Format::kJson ? "{\"ts\":\"%Y-%m-%dT%H:%M:%S.%fZ\",\"level\":\"%l\",%v}"
                                          : "%Y-%m-%dT%H:%M:%S.%eZ %l %v",
                       spdlog::pattern_time_type::utc);
  }
  spdlog::logger logger;
  std::atomic<Format> format{Format::kText};
  std::atomic<Level> level{Level::kInfo};
};

Sink& GetSink() {
  static Sink* const sink = new Sink;  // never destroyed: threads may log until the very end
  return *sink;
}

spdlog::level::level_enum ToSpdlog(Level level) {
  switch (level) {
    case Level::kDebug:
      return spdlog::level::debug;
    case Level::kInfo:
      return spdlog::level::info;
    case Level::kWarning:
      return spdlog::level::warn;
    case Level::kError:
      return spdlog::level::err;
  }
  return spdlog::level::err;
}

// Bytes of the UTF-8 character that `text` starts with, as RFC 3629 has them; 0: it is none.
std::size_t Utf8Length(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  const std::size_t length = lead < 0x80                   ? 1
                             : lead >= 0xc2 && lead < 0xe0 ? 2
                             : lead >= 0xe0 && lead < 0xf0 ? 3
                             : lead >= 0xf0 && lead < 0xf5 ? 4
                                                           : 0;
  if (length == 0 || length > text.size()) return 0;
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
  }
  // Overlong forms, surrogates, beyond U+10FFFF.
  if ((lead == 0xe0 && byte(1) < 0xa0) || (lead == 0xed && byte(1) > 0x9f) ||
      (lead == 0xf0 && byte(1) < 0x90) || (lead == 0xf4 && byte(1) > 0x8f)) {
    return 0;
  }
  return length;
}

// JSON's escapes; they serve the text format as well. Control characters become \u00XX and bytes
// that are not UTF-8 U+FFFD, so no value can start a line of its own or make a line that is not
// JSON.
void AppendEscaped(std::string& out, std::string_view text) {
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else if (byte < 0x20 || byte == 0x7f) {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\u%04x", byte);
      out += escape;
    } else if (const std::size_t length = Utf8Length(text.substr(i)); length > 0) {
      out += text.substr(i, length);
      i += length - 1;
    } else {
      out += "\\ufffd";
    }
  }
}

bool NeedsQuotes(std::string_view text) {
  if (text.empty()) return true;
  for (const char c : text) {
    if (c == ' ' || c == '"' || c == '=' || c == '\\' || static_cast<unsigned char>(c) < 0x20)
      return true;
  }
  return false;
}

}  // namespace

std::string Field::Number(double value) {
  char buffer[352];  // the longest double has 309 digits before the point
  std::snprintf(buffer, sizeof buffer, "%.3f", value);
  std::string text = buffer;
  if (text.find('.') == std::string::npos) return text;  // nan, inf
  text.erase(text.find_last_not_of('0') + 1);
  if (text.ends_with('.')) text.pop_back();
  return text == "-0" ? "0" : text;
}

void Configure(Level level, Format format) {
  GetSink().level.store(level);
  GetSink().SetPattern(format);
}

Level CurrentLevel() { return GetSink().level.load(std::memory_order_relaxed); }

void SetLevel(Level level) { GetSink().level.store(level); }

bool Enabled(Level level) { return level >= GetSink().level.load(std::memory_order_relaxed); }

void Write(Level level, std::string_view message, std::initializer_list<Field> fields) {
  Sink& sink = GetSink();
  std::string line;
  if (sink.format.load(std::memory_order_relaxed) == Format::kJson) {
    line += "\"msg\":\"";
    AppendEscaped(line, message);
    line += '"';
    for (const Field& field : fields) {
      line += ",\"";
      AppendEscaped(line, field.key);
      line += "\":";
      if (field.quoted) line += '"';
      AppendEscaped(line, field.value);
      if (field.quoted) line += '"';
    }
  } else {
    AppendEscaped(line, message);
    for (const Field& field : fields) {
      line += ' ';
      line += field.key;
      line += '=';
      const bool quotes = field.quoted && NeedsQuotes(field.value);
      if (quotes) line += '"';
      AppendEscaped(line, field.value);
      if (quotes) line += '"';
    }
  }
  sink.logger.log(ToSpdlog(level), "{}", line);
}

}  // namespace hearth::log
