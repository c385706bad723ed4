#include "client/table.h"

#include <algorithm>
#include <utility>

#include "client/strings.h"
#include "client/utf8.h"

namespace hearth::client {
namespace {

std::string_view Code(Tone tone) {
  switch (tone) {
    case Tone::kPlain: return "";
    case Tone::kGood: return "\x1b[32m";
    case Tone::kBusy: return "\x1b[33m";
    case Tone::kBad: return "\x1b[31m";
    case Tone::kQuiet: return "\x1b[2m";
    case Tone::kHeading: return "\x1b[1m";
  }
  return "";
}

std::vector<std::string> Lines(std::string_view text) {
  std::vector<std::string> lines;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    lines.emplace_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

// A row and what follows below it, the lines of cells that have several.
std::vector<std::vector<Cell>> Unfold(const std::vector<Cell>& row) {
  std::vector<std::vector<Cell>> rows = {row};
  for (std::size_t c = 1; c < row.size(); ++c) {
    const std::vector<std::string> lines = Lines(row[c].text);
    while (rows.size() < lines.size()) rows.emplace_back(row.size(), Cell(""));
    for (std::size_t i = 0; i < lines.size(); ++i) rows[i][c] = Cell(lines[i], row[c].tone);
  }
  return rows;
}

}  // namespace

std::string Paint(std::string_view text, Tone tone, bool colors) {
  const std::string printable = Printable(text);
  if (!colors || tone == Tone::kPlain || printable.empty()) return printable;
  return Cat(Code(tone), printable, "\x1b[0m");
}

Table::Table(std::vector<std::string> headings) {
  for (std::string& heading : headings) {
    right_.push_back(heading.starts_with('>'));
    if (right_.back()) heading.erase(0, 1);
    headings_.emplace_back(std::move(heading), Tone::kHeading);
  }
}

void Table::Add(std::vector<Cell> row) { rows_.push_back(std::move(row)); }

std::string Table::Format(bool colors) const {
  std::vector<std::size_t> width(headings_.size(), 0);
  std::vector<std::vector<Cell>> rows;
  for (const auto& row : rows_) {
    for (auto& line : Unfold(row)) rows.push_back(std::move(line));
  }
  const auto measure = [&](const std::vector<Cell>& row) {
    for (std::size_t c = 0; c < width.size(); ++c) {
      width[c] = std::max(width[c], DisplayWidth(Printable(row[c].text)));
    }
  };
  measure(headings_);
  for (const auto& row : rows) measure(row);

  std::string out;
  const auto print = [&](const std::vector<Cell>& row) {
    std::string line;
    std::size_t owed = 0;  // spaces that are only written when something follows
    for (std::size_t c = 0; c < width.size(); ++c) {
      const std::size_t padding = width[c] - DisplayWidth(Printable(row[c].text));
      if (right_[c]) owed += padding;
      if (!row[c].text.empty()) {
        line.append(owed, ' ');
        line += Paint(row[c].text, row[c].tone, colors);
        owed = 0;
      }
      if (!right_[c]) owed += padding;
      owed += 2;
    }
    out += line + "\n";
  };
  print(headings_);
  for (const auto& row : rows) print(row);
  return out;
}

}  // namespace hearth::client
