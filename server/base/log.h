// Log lines: a short message and key=value fields, one line per event.
//
//   log::Info("model ready", {{"model", "vad"}, {"version", 1}, {"load_ms", 3.8}});
//
// Free of spdlog and fmt headers, so torch_backend/ may use it (the LibTorch wheel ships an fmt of
// its own that clashes). Text: `2026-01-02T03:04:05.678Z info model ready model=vad version=1`;
// JSON: one object a line with `ts`, `level`, `msg` and the fields. Values are escaped, so a
// request cannot forge a line. Thread-safe. The process-wide sink is the one global in the server.
#pragma once

#include <cmath>
#include <initializer_list>
#include <string>
#include <string_view>
#include <type_traits>

namespace hearth::log {

enum class Level { kDebug, kInfo, kWarning, kError };
enum class Format { kText, kJson };

// One field. Numbers and booleans stay such in JSON; three decimals at most, and no exponents.
struct Field {
  template <typename T>
  Field(std::string_view k, const T& v) : key(k) {
    if constexpr (std::is_same_v<T, bool>) {
      value = v ? "true" : "false";
      quoted = false;
    } else if constexpr (std::is_integral_v<T>) {
      value = std::to_string(v);
      quoted = false;
    } else if constexpr (std::is_floating_point_v<T>) {
      value = Number(static_cast<double>(v));
      quoted = !std::isfinite(v);  // JSON has no number for these
    } else {
      value = std::string(v);
    }
  }
  std::string_view key;
  std::string value;
  bool quoted = true;

 private:
  static std::string Number(double value);
};

// Before the first line is logged, and again when the configuration changes. Goes to stderr.
void Configure(Level level, Format format);
bool Enabled(Level level);

void Write(Level level, std::string_view message, std::initializer_list<Field> fields);

inline void Debug(std::string_view message, std::initializer_list<Field> fields = {}) {
  if (Enabled(Level::kDebug)) Write(Level::kDebug, message, fields);
}
inline void Info(std::string_view message, std::initializer_list<Field> fields = {}) {
  if (Enabled(Level::kInfo)) Write(Level::kInfo, message, fields);
}
inline void Warning(std::string_view message, std::initializer_list<Field> fields = {}) {
  if (Enabled(Level::kWarning)) Write(Level::kWarning, message, fields);
}
inline void Error(std::string_view message, std::initializer_list<Field> fields = {}) {
  Write(Level::kError, message, fields);
}

}  // namespace hearth::log
