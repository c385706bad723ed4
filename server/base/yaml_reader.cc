#include "server/base/yaml_reader.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>

#include "absl/strings/numbers.h"
#include "server/base/bytes.h"
#include "server/base/duration.h"
#include "server/base/yaml_tree.h"

namespace hearth {

using yaml_internal::Entry;
using yaml_internal::JoinPath;
using yaml_internal::Kind;
using yaml_internal::Position;
using yaml_internal::Problem;
using yaml_internal::Tree;

struct YamlReader::Impl {
  std::string file;
  Tree root;
  bool valid = true;  // the file is YAML
  std::vector<Problem> problems;

  std::string Where(const Position& at) const {
    return at.origin.empty() ? StrCat(file, ":", at.line, ":", at.column) : at.origin;
  }
};

namespace {

// A value as a message shows it: short, on one line.
std::string Shown(std::string_view text) {
  constexpr std::size_t kLongest = 60;
  std::string out = "'";
  for (const char c : text.substr(0, kLongest))
    out += static_cast<unsigned char>(c) < ' ' ? '?' : c;
  return out + (text.size() > kLongest ? "...'" : "'");
}

std::string_view Name(Kind kind) {
  switch (kind) {
    case Kind::kNull:
      return "nothing";
    case Kind::kScalar:
      return "a single value";
    case Kind::kList:
      return "a list";
    case Kind::kMap:
      return "a mapping";
  }
  return "";
}

// Everything in a tree made from an override comes from there, wherever it stood in its text.
void SetOrigin(Tree& tree, const std::string& origin) {
  tree.at = tree.key_at = {0, 0, origin};
  for (Tree& item : tree.items) SetOrigin(item, origin);
  for (Entry& entry : tree.entries) SetOrigin(entry.value, origin);
}

Tree ValueOf(const YamlOverride& override, std::vector<Problem>* problems) {
  Tree value;
  if (override.value.starts_with('[') || override.value.starts_with('{')) {
    std::vector<Problem> found;
    yaml_internal::ParseTree(override.value, &value, &found);
    for (Problem& problem : found) {
      problems->push_back({{0, 0, override.origin}, override.path, std::move(problem.message)});
    }
  } else {
    value.kind = Kind::kScalar;
    value.text = override.value;
  }
  SetOrigin(value, override.origin);
  return value;
}

// Makes `at` a mapping, in which an override of `path` needs a key. A value that stood there is an
// error, and not one that the override hides.
void MakeMap(Tree& at, std::string_view at_path, const YamlOverride& override,
             std::vector<Problem>* problems) {
  if (at.kind == Kind::kMap) return;
  if (at.kind != Kind::kNull) {
    problems->push_back({at.at, std::string(at_path),
                         StrCat("is ", Name(at.kind), ", but ", override.origin,
                                " sets a key under it; remove one of them")});
  }
  if (!at.replaced.empty()) {  // reading it tells what else is wrong
    Tree map = std::move(at.replaced.front());
    at = std::move(map);
    return;
  }
  Tree map;
  map.kind = Kind::kMap;
  map.at = map.key_at = {0, 0, override.origin};
  at = std::move(map);
}

// If a mapping is wrong where the path needs one, reading says so.
void Apply(const YamlOverride& override, Tree& root, std::vector<Problem>* problems) {
  const Position here{0, 0, override.origin};
  Tree* at = &root;
  std::string_view rest = override.path;
  while (true) {
    const std::size_t dot = rest.find('.');
    const std::string_view key = rest.substr(0, dot);
    if (key.empty()) {
      problems->push_back(
          {here, "", StrCat(Shown(override.path), " is not a path such as grpc.port")});
      return;
    }
    const std::size_t above = override.path.size() - rest.size();
    MakeMap(*at, std::string_view(override.path).substr(0, above == 0 ? 0 : above - 1), override,
            problems);
    Tree* next = at->Find(key);
    if (next == nullptr) {
      next = &at->entries.emplace_back(Entry{std::string(key), {}}).value;
      next->at = next->key_at = here;
    }
    at = next;
    if (dot == std::string_view::npos) break;
    rest.remove_prefix(dot + 1);
  }
  Tree value = ValueOf(override, problems);
  // Whether a single value may stand there, only reading can tell.
  if (value.kind != Kind::kMap && at->kind == Kind::kMap && !at->entries.empty()) {
    value.replaced.push_back(std::move(*at));
  } else if (value.kind != Kind::kMap) {
    value.replaced = std::move(at->replaced);
  }
  *at = std::move(value);
}

// Insertions, deletions, substitutions and swaps of neighbours, each counted as one.
std::size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> before(b.size() + 1), last(b.size() + 1), row(b.size() + 1);
  std::iota(last.begin(), last.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t substituted = last[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, substituted});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        row[j] = std::min(row[j], before[j - 2] + 1);
      }
    }
    before.swap(last);
    last.swap(row);
  }
  return last[b.size()];
}

std::string NumberText(double value) {
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, "%g", value);
  return buffer;
}

}  // namespace

std::string_view ClosestWord(std::string_view word, const std::vector<std::string>& known) {
  constexpr std::size_t kLongest = 64;  // the distance costs length * length
  std::string_view best;
  if (word.size() > kLongest) return best;
  std::size_t best_distance = std::max<std::size_t>(1, word.size() / 3) + 1;
  for (const std::string& candidate : known) {
    const std::size_t distance = EditDistance(word, candidate);
    if (distance < best_distance) {
      best_distance = distance;
      best = candidate;
    }
  }
  return best;
}

// ---- YamlReader

YamlReader::YamlReader(std::string_view text, std::string file,
                       const std::vector<YamlOverride>& overrides)
    : impl_(std::make_unique<Impl>()) {
  impl_->file = std::move(file);
  impl_->valid = yaml_internal::ParseTree(std::string(text), &impl_->root, &impl_->problems);
  for (const YamlOverride& override : overrides) Apply(override, impl_->root, &impl_->problems);
}

YamlReader::~YamlReader() = default;

YamlNode YamlReader::root() { return {this, &impl_->root, nullptr, ""}; }

void YamlReader::Report(const Tree* where, const std::string& path, std::string_view message) {
  impl_->problems.push_back({where->at, path, std::string(message)});
}

void YamlReader::ErrorAt(std::string_view path, std::string_view message) {
  const Tree* at = &impl_->root;
  std::string_view rest = path;
  while (!rest.empty()) {
    const std::size_t dot = rest.find('.');
    const Tree* next = at->Find(rest.substr(0, dot));
    if (next == nullptr) break;
    at = next;
    rest = dot == std::string_view::npos ? std::string_view() : rest.substr(dot + 1);
  }
  Report(at, std::string(path), message);
}

void YamlReader::ErrorFrom(std::string origin, std::string_view message) {
  impl_->problems.push_back({{0, 0, std::move(origin)}, "", std::string(message)});
}

absl::Status YamlReader::status() const {
  std::vector<const Problem*> problems;
  for (const Problem& problem : impl_->problems) {
    // In a text that is not YAML nothing was found; only say what broke it.
    if (impl_->valid || !problem.at.origin.empty() || problem.path.empty()) {
      problems.push_back(&problem);
    }
  }
  if (problems.empty()) return absl::OkStatus();
  std::stable_sort(problems.begin(), problems.end(), [](const Problem* a, const Problem* b) {
    if (a->at.origin.empty() != b->at.origin.empty()) return a->at.origin.empty();
    return std::pair(a->at.line, a->at.column) < std::pair(b->at.line, b->at.column);
  });
  std::string lines;
  for (const Problem* problem : problems) {
    if (!lines.empty()) lines += '\n';
    lines += impl_->Where(problem->at);
    if (!problem->path.empty()) lines += StrCat(": key ", Shown(problem->path));
    lines += StrCat(": ", problem->message);
  }
  return absl::InvalidArgumentError(lines);
}

// ---- YamlMap

YamlNode YamlMap::operator[](std::string_view key) {
  known_.emplace_back(key);
  return {self_.reader_, self_.tree_->Find(key), self_.tree_, JoinPath(self_.path_, key)};
}

void YamlMap::ReportUnknownKeys() const {
  for (const Entry& entry : self_.tree_->entries) {
    if (std::find(known_.begin(), known_.end(), entry.key) != known_.end()) continue;
    const std::string_view closest = ClosestWord(entry.key, known_);
    self_.reader_->impl_->problems.push_back(
        {entry.value.key_at, JoinPath(self_.path_, entry.key),
         closest.empty() ? "unknown key" : StrCat("unknown key; did you mean '", closest, "'?")});
  }
}

// ---- YamlNode

bool YamlNode::is_map() const { return present() && tree_->kind == Kind::kMap; }
bool YamlNode::is_list() const { return present() && tree_->kind == Kind::kList; }
bool YamlNode::is_scalar() const { return present() && tree_->kind == Kind::kScalar; }

std::string YamlNode::where() const {
  return reader_->impl_->Where((tree_ != nullptr ? tree_ : parent_)->at);
}

void YamlNode::Error(std::string_view message) const {
  const Tree* where = tree_ != nullptr ? tree_ : parent_;
  reader_->Report(where, path_, message);
}

const YamlNode& YamlNode::Require() const {
  if (!present()) Error("is required");
  return *this;
}

const std::string* YamlNode::Scalar(std::string_view expected) const {
  if (!present()) return nullptr;
  if (tree_->kind == Kind::kScalar) return &tree_->text;
  Error(tree_->kind == Kind::kNull ? StrCat("has no value; give ", expected, " or remove the key")
                                   : StrCat("must be ", expected, ", not ", Name(tree_->kind)));
  return nullptr;
}

bool YamlNode::Read(std::string& out) const {
  const std::string* text = Scalar("a text");
  if (text == nullptr) return false;
  out = *text;
  return true;
}

bool YamlNode::Read(bool& out) const { return ReadEnum(out, {{"true", true}, {"false", false}}); }

bool YamlNode::ReadWith(const std::function<absl::Status(std::string_view)>& parse) const {
  const std::string* text = Scalar("a single value");
  if (text == nullptr) return false;
  const absl::Status status = parse(*text);
  if (!status.ok()) Error(FromAbsl(status.message()));
  return status.ok();
}

bool YamlNode::Read(Duration& out) const {
  return ReadWith([&](std::string_view text) -> absl::Status {
    HEARTH_ASSIGN_OR_RETURN(out, ParseDuration(text));
    return absl::OkStatus();
  });
}

bool YamlNode::ReadBytes(std::uint64_t& out) const {
  return ReadWith([&](std::string_view text) -> absl::Status {
    HEARTH_ASSIGN_OR_RETURN(out, ParseBytes(text));
    return absl::OkStatus();
  });
}

bool YamlNode::Read(double& out, double min, double max) const {
  const std::string* text = Scalar("a number");
  if (text == nullptr) return false;
  double value = 0;
  if (!absl::SimpleAtod(*text, &value) || !std::isfinite(value)) {
    Error(StrCat(Shown(*text), " is not a number"));
  } else if (value < min || value > max) {
    Error(StrCat(*text, " is out of range; it must be between ", NumberText(min), " and ",
                 NumberText(max)));
  } else {
    out = value;
    return true;
  }
  return false;
}

bool YamlNode::ReadInt(std::int64_t& out, std::int64_t min, std::int64_t max) const {
  const std::string* text = Scalar("a whole number");
  if (text == nullptr) return false;
  std::int64_t value = 0;
  const bool plain = !text->empty() && text->find_first_not_of("+-0123456789") == std::string::npos;
  if (!plain || !absl::SimpleAtoi(*text, &value)) {
    Error(StrCat(Shown(*text), " is not a whole number"));
  } else if (value < min || value > max) {
    Error(StrCat(value, " is out of range; it must be between ", min, " and ", max));
  } else {
    out = value;
    return true;
  }
  return false;
}

bool YamlNode::ReadWord(std::size_t& chosen, const std::vector<std::string_view>& words) const {
  const std::string* text = Scalar(StrCat("one of ", QuotedList(words)));
  if (text == nullptr) return false;
  const auto found = std::find(words.begin(), words.end(), *text);
  if (found == words.end()) {
    Error(StrCat(Shown(*text), " is not one of ", QuotedList(words)));
    return false;
  }
  chosen = static_cast<std::size_t>(found - words.begin());
  return true;
}

bool YamlNode::Read(std::vector<std::string>& out) const {
  // From outside the file a single value is good enough: HEARTH_REPOSITORY__ROOTS=/models.
  if (is_scalar() && !tree_->at.origin.empty()) {
    out = {tree_->text};
    return true;
  }
  std::vector<std::string> values;
  bool good = true;
  const bool list = List([&](YamlNode item) { good &= item.Read(values.emplace_back()); });
  if (list && good) out = std::move(values);
  return list && good;
}

bool YamlNode::Read(std::vector<std::int64_t>& out, std::int64_t min, std::int64_t max) const {
  std::vector<std::int64_t> values;
  bool good = true;
  const bool list =
      List([&](YamlNode item) { good &= item.ReadInt(values.emplace_back(), min, max); });
  if (list && good) out = std::move(values);
  return list && good;
}

bool YamlNode::List(const std::function<void(YamlNode)>& each) const {
  if (!present() || tree_->kind == Kind::kNull) return false;
  if (tree_->kind != Kind::kList) {
    Error(StrCat("must be a list, not ", Name(tree_->kind)));
    return false;
  }
  for (std::size_t i = 0; i < tree_->items.size(); ++i) {
    each(YamlNode(reader_, &tree_->items[i], tree_, StrCat(path_, "[", i, "]")));
  }
  return true;
}

bool YamlNode::Map(const std::function<void(YamlMap&)>& read) const {
  if (!present() || tree_->kind == Kind::kNull) return false;
  if (!tree_->replaced.empty()) {
    const Tree& mapping = tree_->replaced.front();
    Error(StrCat("is a mapping; set a key in it, such as ", JoinPath(path_, mapping.entries.front().key)));
    return YamlNode(reader_, &mapping, parent_, path_).Map(read);
  }
  if (tree_->kind != Kind::kMap) {
    Error(StrCat("must be a mapping, not ", Name(tree_->kind)));
    return false;
  }
  YamlMap map(*this);
  read(map);
  map.ReportUnknownKeys();
  return true;
}

bool YamlNode::Entries(const std::function<void(const std::string&, YamlNode)>& each) const {
  if (!present() || tree_->kind == Kind::kNull) return false;
  if (tree_->kind != Kind::kMap) {
    Error(StrCat("must be a mapping, not ", Name(tree_->kind)));
    return false;
  }
  for (const Entry& entry : tree_->entries) {
    each(entry.key, YamlNode(reader_, &entry.value, tree_, JoinPath(path_, entry.key)));
  }
  return true;
}

}  // namespace hearth
