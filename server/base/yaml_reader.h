// Strict reading of small YAML files: the daemon's configuration, a model's model.yaml.
//
//   YamlReader yaml(text, "hearth.yaml");
//   yaml.root().Map([&](YamlMap& m) {
//     m["name"].Read(config.name);                       // left as it is when the key is absent
//     m["level"].ReadEnum(config.level, {{"debug", Level::kDebug}, {"info", Level::kInfo}});
//     m["grpc"].Map([&](YamlMap& grpc) { grpc["port"].Read(config.grpc.port, 0, 65535); });
//     m["models"].List([&](YamlNode item) { ... item.Map(...) ... });
//   });
//   return yaml.status();
//
// Nothing stops at the first mistake: wrong types, values out of range, keys given twice and keys
// that nobody asked for are all collected, and status() reports them together, one a line:
//
//   hearth.yaml:12:9: key 'cache.budget.host': 'lots' is not a size; write ...
//   hearth.yaml:15:3: key 'cache.bugdet': unknown key; did you mean 'budget'?
//
// Aliases, tags of one's own and more than one document are refused. Free of yaml-cpp headers; no
// exception of that library gets out. Everything here is thread-compatible.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <iterator>
#include <limits>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "server/base/clock.h"
#include "server/base/status.h"

namespace hearth {

class YamlMap;
class YamlReader;
namespace yaml_internal {
struct Tree;
}

// A value set from outside the file.
struct YamlOverride {
  std::string path;    // "cache.budget.host"
  std::string value;   // taken as it is; as YAML when it starts with [ or {
  std::string origin;  // what messages show instead of file:line, "--set cache.budget.host"
};

// One value, or the place where it would be. Cheap to copy; must not outlive its YamlReader.
//
// Read*() return true when a good value was there and was stored. An absent key is no error (see
// Require) and leaves the output alone; so does a bad value, which is reported.
class YamlNode {
 public:
  bool present() const { return tree_ != nullptr; }
  bool is_map() const;
  bool is_list() const;
  bool is_scalar() const;
  const std::string& path() const { return path_; }  // "models[1].name"
  std::string where() const;  // as messages say it: "hearth.yaml:12:9", or an override's origin

  // Scalars.
  bool Read(std::string& out) const;
  bool Read(bool& out) const;      // true or false
  bool Read(Duration& out) const;  // "250ms", "10s", "5m", "1h"; not negative
  bool Read(double& out, double min = -std::numeric_limits<double>::infinity(),
            double max = std::numeric_limits<double>::infinity()) const;
  template <typename Int>
    requires(std::is_integral_v<Int> && !std::is_same_v<Int, bool>)
  bool Read(Int& out, std::int64_t min = Lowest<Int>(), std::int64_t max = Highest<Int>()) const {
    std::int64_t value = 0;
    if (!ReadInt(value, min, max)) return false;
    out = static_cast<Int>(value);
    return true;
  }
  bool ReadBytes(std::uint64_t& out) const;  // "12GiB"; see ParseBytes

  // `names`: pairs of a word and its value, in braces or in an array.
  template <typename Enum,
            typename Names = std::initializer_list<std::pair<std::string_view, Enum>>>
  bool ReadEnum(Enum& out, const Names& names) const {
    std::vector<std::string_view> words;
    for (const auto& name : names) words.push_back(name.first);
    std::size_t chosen = 0;
    if (!ReadWord(chosen, words)) return false;
    out = (std::begin(names) + chosen)->second;
    return true;
  }
  // Anything else that is written as one word: `parse` gets the text; its error is reported here.
  bool ReadWith(const std::function<absl::Status(std::string_view text)>& parse) const;

  // A list of scalars; replaces `out`.
  bool Read(std::vector<std::string>& out) const;
  bool Read(std::vector<std::int64_t>& out, std::int64_t min = Lowest<std::int64_t>(),
            std::int64_t max = Highest<std::int64_t>()) const;
  // Calls `each` for every item. True when it is a list.
  bool List(const std::function<void(YamlNode item)>& each) const;

  // A mapping with known keys: `read` asks for them; those it did not ask for are errors
  // afterwards. True when it is a mapping.
  bool Map(const std::function<void(YamlMap& map)>& read) const;
  // A mapping whose keys are free.
  bool Entries(const std::function<void(const std::string& key, YamlNode value)>& each) const;

  // Absent is an error from here on: "key 'models[0].name': is required".
  const YamlNode& Require() const;
  // Reports `message` about this value.
  void Error(std::string_view message) const;

 private:
  friend class YamlMap;
  friend class YamlReader;
  YamlNode(YamlReader* reader, const yaml_internal::Tree* tree, const yaml_internal::Tree* parent,
           std::string path)
      : reader_(reader), tree_(tree), parent_(parent), path_(std::move(path)) {}

  template <typename Int>
  static constexpr std::int64_t Lowest() {
    return static_cast<std::int64_t>(std::numeric_limits<Int>::min());
  }
  template <typename Int>
  static constexpr std::int64_t Highest() {
    return std::in_range<std::int64_t>(std::numeric_limits<Int>::max())
               ? static_cast<std::int64_t>(std::numeric_limits<Int>::max())
               : std::numeric_limits<std::int64_t>::max();
  }
  bool ReadInt(std::int64_t& out, std::int64_t min, std::int64_t max) const;
  bool ReadWord(std::size_t& chosen, const std::vector<std::string_view>& words) const;
  const std::string* Scalar(std::string_view expected) const;  // null: absent, or reported

  YamlReader* reader_;
  const yaml_internal::Tree* tree_;    // null: absent
  const yaml_internal::Tree* parent_;  // where to point when absent; null for the root
  std::string path_;
};

// A mapping while it is being read. Remembers which keys were asked for.
class YamlMap {
 public:
  YamlNode operator[](std::string_view key);
  void Error(std::string_view message) const { self_.Error(message); }

 private:
  friend class YamlNode;
  explicit YamlMap(const YamlNode& self) : self_(self) {}
  void ReportUnknownKeys() const;

  const YamlNode& self_;
  std::vector<std::string> known_;
};

// A parsed text with its overrides, and the errors found so far.
class YamlReader {
 public:
  // `file` is only for messages. `overrides` are applied in order: the last one wins. A single value
  // takes the place of a mapping; where only a mapping may stand that is an error, as is an
  // override of a key under a single value. A text that
  // is not YAML is the first error, and the document is then empty but for the overrides.
  YamlReader(std::string_view text, std::string file,
             const std::vector<YamlOverride>& overrides = {});
  ~YamlReader();
  YamlReader(const YamlReader&) = delete;
  YamlReader& operator=(const YamlReader&) = delete;

  // An empty document reads as an empty mapping.
  YamlNode root();

  // Reports `message` about the value at a dotted path, or the nearest mapping around it that
  // exists: for what can only be judged once everything is read.
  void ErrorAt(std::string_view path, std::string_view message);

  // Reports `message` about something that is not in the document: "--set x: ...".
  void ErrorFrom(std::string origin, std::string_view message);

  // OK, or INVALID_ARGUMENT with every error, one a line: those of the file by line, then the
  // others.
  [[nodiscard]] absl::Status status() const;

 private:
  friend class YamlNode;
  friend class YamlMap;
  struct Impl;
  void Report(const yaml_internal::Tree* where, const std::string& path, std::string_view message);

  std::unique_ptr<Impl> impl_;
};

// The closest of `known` to `word` by edit distance; empty when none is near.
[[nodiscard]] std::string_view ClosestWord(std::string_view word,
                                           const std::vector<std::string>& known);

}  // namespace hearth
