// What a YAML text says, as plain data that remembers where each thing stood. Behind yaml_reader.h;
// nobody else needs it.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace hearth::yaml_internal {

struct Position {
  int line = 0;  // from 1; 0: from outside the file, see `origin`
  int column = 0;
  std::string origin;
};

// A null (`key:` with nothing behind it) is kept apart from an empty string.
enum class Kind { kNull, kScalar, kList, kMap };

struct Entry;

struct Tree {
  Kind kind = Kind::kNull;
  Position at;                 // of the value
  Position key_at;             // of its key, in a mapping
  std::string text;            // kScalar
  std::vector<Tree> items;     // kList
  std::vector<Entry> entries;  // kMap, in the order of the text; no key twice
  std::vector<Tree> replaced;  // the mapping that a value from outside took the place of; one at most

  Tree* Find(std::string_view key);
  const Tree* Find(std::string_view key) const { return const_cast<Tree*>(this)->Find(key); }
};

struct Entry {
  std::string key;
  Tree value;
};

struct Problem {
  Position at;
  std::string path;  // empty: about the text as a whole
  std::string message;
};

// The one document of `text`; an empty one is an empty mapping. Whatever is wrong is added to
// `problems`. False: the text is not YAML and `*tree` is an empty mapping.
bool ParseTree(const std::string& text, Tree* tree, std::vector<Problem>* problems);

// "a" and "b" -> "a.b"; "" and "b" -> "b".
std::string JoinPath(std::string_view path, std::string_view key);

}  // namespace hearth::yaml_internal
