// Text in columns, aligned, for people.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace hearth::client {

enum class Tone { kPlain, kGood, kBusy, kBad, kQuiet, kHeading };

// `text` in a colour, or as it is. Everything printed goes through Printable() first.
std::string Paint(std::string_view text, Tone tone, bool colors);

struct Cell {
  Cell(std::string cell_text, Tone cell_tone = Tone::kPlain)  // NOLINT: reads as the text it is
      : text(std::move(cell_text)), tone(cell_tone) {}
  std::string text;
  Tone tone;
};

// Thread-compatible.
class Table {
 public:
  // A heading that begins with '>' (not printed) aligns its column to the right.
  explicit Table(std::vector<std::string> headings);
  // A text of several lines takes as many rows, except in the first column: what begins a row there is
  // always a row of its own. REQUIRES: as many cells as headings.
  void Add(std::vector<Cell> row);
  bool empty() const { return rows_.empty(); }

  // One line per row, headings first, two spaces between columns, none at the ends of lines.
  std::string Format(bool colors) const;

 private:
  std::vector<Cell> headings_;
  std::vector<bool> right_;
  std::vector<std::vector<Cell>> rows_;
};

}  // namespace hearth::client
