#include <algorithm>
#include <cstdio>

#include "server/base/bytes.h"
#include "server/base/duration.h"
#include "server/config/fields.h"
#include "server/config/server_config.h"

namespace hearth {
namespace {

struct Line {
  std::string path;  // "grpc.port"
  std::size_t depth;
  std::string text;   // "port: 8001", or "grpc:" for a section
  std::string value;  // "8001"; empty for a section
};

// Writes every field down as a line.
class LineWriter {
 public:
  template <typename Fields>
  void Section(std::string_view key, const Fields& fields) {
    const std::size_t parent = path_.size();
    path_ += (path_.empty() ? "" : ".") + std::string(key);
    lines_.push_back({path_, depth_, StrCat(key, ":"), ""});
    ++depth_;
    fields();
    --depth_;
    path_.resize(parent);
  }
  void Text(std::string_view key, const std::string& text) { Add(key, QuoteYaml(text)); }
  void MaybeText(std::string_view key, const std::string& text) { Text(key, text); }
  void Texts(std::string_view key, const std::vector<std::string>& texts) { Add(key, ListOf(texts)); }
  void Flag(std::string_view key, bool flag) { Add(key, flag ? "true" : "false"); }
  void Int(std::string_view key, int value, int, int) { Add(key, StrCat(value)); }
  void Time(std::string_view key, Duration time, Duration) { Add(key, FormatDuration(time)); }
  void Bytes(std::string_view key, std::uint64_t bytes, std::uint64_t, std::uint64_t) {
    Add(key, FormatBytesExactly(bytes));
  }
  void Size(std::string_view key, const BytesOrPercent& size) { Add(key, size.ToString()); }
  void DeviceSizes(std::string_view key, const hearth::DeviceSizes& sizes) { Add(key, sizes.ToString()); }
  template <typename Enum, typename Names>
  void Word(std::string_view key, Enum value, const Names& names) {
    for (const auto& [word, named] : names) {
      if (named == value) Add(key, std::string(word));
    }
  }
  void File(std::string_view key, const PlacedFile& file) { Add(key, QuoteYaml(file.path)); }
  void Groups(std::string_view key, AccessGroups groups) { Add(key, ListOf(groups)); }
  void Roles(std::string_view key, const std::vector<ServerConfig::Access::Role>& roles) {
    std::string list;
    for (const ServerConfig::Access::Role& role : roles) {
      list += StrCat(list.empty() ? "" : ", ", "{name: ", QuoteYaml(role.name));
      if (!role.token_file.path.empty()) list += StrCat(", token_file: ", QuoteYaml(role.token_file.path));
      if (!role.certificate_names.empty()) list += StrCat(", certificate_names: ", ListOf(role.certificate_names));
      list += StrCat(", groups: ", ListOf(role.groups), "}");
    }
    Add(key, StrCat("[", list, "]"));
  }
  void Models(std::string_view key, const std::vector<ServerConfig::Preload>& models) {
    std::string list;
    for (const ServerConfig::Preload& model : models) {
      list += StrCat(list.empty() ? "" : ", ", "{name: ", QuoteYaml(model.name));
      if (model.version) list += StrCat(", version: ", *model.version);
      list += StrCat(", required: ", model.required ? "true" : "false");
      list += StrCat(", pin: ", model.pin ? "true" : "false", "}");
    }
    Add(key, StrCat("[", list, "]"));
  }

  std::vector<Line> Take() && { return std::move(lines_); }

 private:
  static std::string ListOf(const std::vector<std::string>& texts) {
    std::string list;
    for (const std::string& text : texts) list += (list.empty() ? "" : ", ") + QuoteYaml(text);
    return StrCat("[", list, "]");
  }
  static std::string ListOf(AccessGroups groups) {
    std::string list;
    for (const auto& [name, group] : kAccessGroups) {
      if (groups.Has(group)) list += StrCat(list.empty() ? "" : ", ", name);
    }
    return StrCat("[", list, "]");
  }
  void Add(std::string_view key, std::string value) {
    std::string path = (path_.empty() ? "" : path_ + ".") + std::string(key);
    lines_.push_back({std::move(path), depth_, StrCat(key, ": ", value), std::move(value)});
  }

  std::string path_;
  std::size_t depth_ = 0;
  std::vector<Line> lines_;
};

std::vector<Line> Lines(const ServerConfig& config) {
  LineWriter writer;
  VisitFields(writer, config);
  return std::move(writer).Take();
}

// Words that some reader of YAML would not take for a text.
bool IsReserved(std::string_view text) {
  constexpr std::string_view kReserved[] = {"null", "true", "false", "yes", "no",
                                            "on",   "off",  "y",     "n"};
  std::string lower(text);
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](unsigned char c) { return c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c; });
  return std::find(std::begin(kReserved), std::end(kReserved), lower) != std::end(kReserved);
}

}  // namespace

std::string QuoteYaml(std::string_view text) {
  constexpr std::string_view kLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
  const bool plain =
      !text.empty() && (text[0] == '/' || kLetters.find(text[0]) != std::string_view::npos) &&
      text.find_first_not_of(StrCat(kLetters, "0123456789/._-")) == std::string_view::npos;
  if (plain && !IsReserved(text)) return std::string(text);
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (byte < 0x20 || byte == 0x7f) {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\x%02x", byte);
      out += escape;
    } else {
      out += c;
    }
  }
  return out + '"';
}

std::string PrintServerConfig(const ServerConfig& config) {
  std::string out;
  for (const Line& line : Lines(config)) {
    out += StrCat(std::string(line.depth * 2, ' '), line.text, "\n");
  }
  return out;
}

std::vector<ConfigValue> ConfigValues(const ServerConfig& config) {
  std::vector<ConfigValue> values;
  for (Line& line : Lines(config)) {
    if (!line.value.empty()) values.push_back({std::move(line.path), std::move(line.value)});
  }
  return values;
}

std::vector<std::string> ConfigKeys() {
  std::vector<std::string> keys;
  for (ConfigValue& value : ConfigValues(ServerConfig{})) keys.push_back(std::move(value.key));
  return keys;
}

}  // namespace hearth
