#include "server/base/yaml_tree.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/mark.h>
#include <yaml-cpp/parser.h>

#include <memory>
#include <sstream>

#include "server/base/strings.h"

namespace hearth::yaml_internal {
namespace {

Position At(const YAML::Mark& mark) { return {mark.line + 1, mark.column + 1, ""}; }

// Builds the tree from the parser's events rather than from YAML::Node, which forgets a key that is
// given twice and follows aliases, so that a few lines can stand for gigabytes.
class TreeBuilder final : public YAML::EventHandler {
 public:
  TreeBuilder(Tree* root, std::vector<Problem>* problems) : root_(root), problems_(problems) {}

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t) override {
    Tree* tree = Add(mark, Kind::kNull, "", "");
    if (tree->key_at.line > 0) tree->at = tree->key_at;  // `mark` is already past the line
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    Refuse(mark, "aliases (*name) are not read here; write the value out");
    Add(mark, Kind::kNull, "", "");
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t,
                const std::string& value) override {
    Add(mark, Kind::kScalar, tag, value);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t,
                       YAML::EmitterStyle::value) override {
    Open(mark, Kind::kList, tag);
  }
  void OnSequenceEnd() override { open_.pop_back(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t,
                  YAML::EmitterStyle::value) override {
    Open(mark, Kind::kMap, tag);
  }
  void OnMapEnd() override { open_.pop_back(); }

 private:
  // A collection being read. `tree` is only reached through the parent's vector, which does not
  // grow while a child is open.
  struct Level {
    Tree* tree;
    std::string path;
    bool has_key = false;  // mappings: the next value belongs to `key`
    std::string key;
    Position key_at;
  };

  void Refuse(const YAML::Mark& mark, std::string message) {
    problems_->push_back({At(mark), PathOfNext(), std::move(message)});
  }

  std::string PathOfNext() const {
    if (open_.empty()) return "";
    const Level& level = open_.back();
    if (level.tree->kind == Kind::kList) {
      return StrCat(level.path, "[", level.tree->items.size(), "]");
    }
    return level.has_key ? JoinPath(level.path, level.key) : level.path;
  }

  // What the parser tells us of next is a key: the last one has its value.
  bool AtKey() const {
    return !open_.empty() && open_.back().tree->kind == Kind::kMap && !open_.back().has_key;
  }

  Tree* Discard() {
    discarded_.push_back(std::make_unique<Tree>());
    return discarded_.back().get();
  }

  // Where the next value goes. A value whose key was there before is read and forgotten.
  Tree* Place() {
    if (open_.empty()) return root_;
    Level& level = open_.back();
    if (level.tree->kind == Kind::kList) return &level.tree->items.emplace_back();
    level.has_key = false;
    Tree* place = nullptr;
    if (const Tree* first = level.tree->Find(level.key)) {
      problems_->push_back({level.key_at, JoinPath(level.path, level.key),
                            StrCat("given twice; the first one is on line ", first->key_at.line)});
      place = Discard();
    } else {
      place = &level.tree->entries.emplace_back(Entry{level.key, {}}).value;
    }
    place->key_at = level.key_at;
    return place;
  }

  Tree* Add(const YAML::Mark& mark, Kind kind, const std::string& tag, const std::string& text) {
    if (!tag.empty() && tag != "?" && tag != "!" && !tag.starts_with("tag:yaml.org,2002:")) {
      Refuse(mark, StrCat("the tag '", tag, "' means nothing here; remove it"));
    }
    Tree* tree = nullptr;
    if (AtKey()) {
      if (kind != Kind::kScalar) Refuse(mark, "a key must be a word");
      Level& level = open_.back();
      level.has_key = true;
      level.key = kind == Kind::kScalar ? text : StrCat("(line ", mark.line + 1, ")");
      level.key_at = At(mark);
      tree = Discard();
    } else {
      tree = Place();
    }
    tree->kind = kind;
    tree->at = At(mark);
    tree->text = text;
    return tree;
  }

  void Open(const YAML::Mark& mark, Kind kind, const std::string& tag) {
    std::string path = PathOfNext();
    Tree* tree = Add(mark, kind, tag, "");
    open_.push_back({tree, std::move(path), false, "", {}});
  }

  Tree* const root_;
  std::vector<Problem>* const problems_;
  std::vector<Level> open_;
  std::vector<std::unique_ptr<Tree>> discarded_;
};

}  // namespace

Tree* Tree::Find(std::string_view key) {
  for (Entry& entry : entries) {
    if (entry.key == key) return &entry.value;
  }
  return nullptr;
}

std::string JoinPath(std::string_view path, std::string_view key) {
  return path.empty() ? std::string(key) : StrCat(path, ".", key);
}

bool ParseTree(const std::string& text, Tree* tree, std::vector<Problem>* problems) {
  *tree = Tree();
  const std::size_t known = problems->size();
  Position failed_at{1, 1, ""};
  std::string failure;
  try {
    std::istringstream in(text);
    YAML::Parser parser(in);
    TreeBuilder builder(tree, problems);
    if (parser.HandleNextDocument(builder)) {
      std::vector<Problem> ignored;
      Tree second;
      TreeBuilder extra(&second, &ignored);
      if (parser.HandleNextDocument(extra)) {
        problems->push_back(
            {second.at, "", "only one document is read; remove what follows '---'"});
      }
    }
  } catch (const YAML::Exception& e) {
    failed_at = At(e.mark);
    failure = StrCat("not valid YAML: ", e.msg);
  } catch (const std::exception& e) {
    failure = StrCat("not valid YAML: ", e.what());
  }
  const bool valid = failure.empty();
  if (!valid) {
    *tree = Tree();
    problems->resize(known);  // what the parser tells before it gives up is guesswork
    problems->push_back({failed_at, "", std::move(failure)});
  }
  if (tree->kind == Kind::kNull) {
    tree->kind = Kind::kMap;
    tree->at = {1, 1, ""};
  }
  return valid;
}

}  // namespace hearth::yaml_internal
