#include "client/literal.h"

#include <algorithm>
#include <charconv>
#include <limits>
#include <string>
#include <vector>

#include "client/elements.h"
#include "client/status_macros.h"
#include "client/strings.h"
#include "nlohmann/json.hpp"

namespace hearth::client {
namespace {

constexpr std::size_t kMaxDepth = 32;

struct Token {
  enum class Kind { kInteger, kReal, kBool, kString };
  Kind kind;
  std::string text;  // strings: unescaped
};

// Reads a nested list into a flat row of tokens and the shape that all its branches agree on.
class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  absl::Status Parse() {
    CLIENT_RETURN_IF_ERROR(Value(0));
    SkipSpace();
    if (at_ != text_.size()) return Error("there is more behind the value");
    return absl::OkStatus();
  }

  Shape shape;
  std::vector<Token> tokens;

 private:
  absl::Status Error(std::string_view why) const {
    return absl::InvalidArgumentError(
        Cat("'", text_.substr(0, 60), text_.size() > 60 ? "..." : "", "' is not a value: ", why,
            " (at character ", at_ + 1, ")"));
  }
  void SkipSpace() {
    while (at_ < text_.size() && std::string_view(" \t\r\n").find(text_[at_]) != std::string_view::npos) {
      ++at_;
    }
  }
  bool Take(char c) {
    SkipSpace();
    if (at_ == text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }

  // `depth` lists are open around it.
  absl::Status Value(std::size_t depth) {
    if (Take('[')) return List(depth);
    if (!leaf_depth_) leaf_depth_ = depth;
    if (*leaf_depth_ != depth) return Error("its lists are not nested equally deep");
    if (at_ < text_.size() && text_[at_] == '"') return String();
    return Word();
  }

  absl::Status List(std::size_t depth) {
    if (depth == kMaxDepth) return Error("its lists are nested too deep");
    if (leaf_depth_ && depth >= *leaf_depth_) return Error("its lists are not nested equally deep");
    std::int64_t length = 0;
    if (!Take(']')) {
      do {
        CLIENT_RETURN_IF_ERROR(Value(depth + 1));
        ++length;
      } while (Take(','));
      if (!Take(']')) return Error("a list is not closed, or a comma is missing");
    } else if (!leaf_depth_) {
      leaf_depth_ = depth + 1;
    } else if (*leaf_depth_ != depth + 1) {
      return Error("its lists are not nested equally deep");
    }
    if (shape.size() <= depth) shape.resize(depth + 1, -1);
    if (shape[depth] == -1) shape[depth] = length;
    if (shape[depth] != length) return Error("its lists differ in length");
    return absl::OkStatus();
  }

  absl::Status String() {
    std::size_t end = at_ + 1;
    while (end < text_.size() && text_[end] != '"') end += text_[end] == '\\' ? 2 : 1;
    if (end >= text_.size()) return Error("a string is not closed");
    const auto parsed = nlohmann::json::parse(text_.begin() + static_cast<std::ptrdiff_t>(at_),
                                              text_.begin() + static_cast<std::ptrdiff_t>(end + 1),
                                              nullptr, /*allow_exceptions=*/false);
    if (!parsed.is_string()) return Error("a string has an escape that JSON does not know");
    tokens.push_back({Token::Kind::kString, parsed.get<std::string>()});
    at_ = end + 1;
    return absl::OkStatus();
  }

  absl::Status Word() {
    const std::size_t end = std::min(text_.find_first_of(",] \t\r\n", at_), text_.size());
    const std::string_view word = text_.substr(at_, end - at_);
    if (word.empty()) return Error("a value is missing");
    if (word == "true" || word == "false") {
      tokens.push_back({Token::Kind::kBool, std::string(word)});
    } else if (word.find_first_not_of("0123456789", word[0] == '-' ? 1 : 0) == word.npos && word != "-") {
      tokens.push_back({Token::Kind::kInteger, std::string(word)});
    } else {
      double value = 0;
      const auto [stop, error] = std::from_chars(word.data(), word.data() + word.size(), value);
      // Too small or too large for FP64 is still a number; whether it fits is judged later.
      if (stop != word.data() + word.size() || error == std::errc::invalid_argument) {
        return Error(Cat("'", word, "' is no number, true, false or \"string\""));
      }
      tokens.push_back({Token::Kind::kReal, std::string(word)});
    }
    at_ = end;
    return absl::OkStatus();
  }

  const std::string_view text_;
  std::size_t at_ = 0;
  std::optional<std::size_t> leaf_depth_;
};

absl::StatusOr<DataType> Guess(const std::vector<Token>& tokens) {
  bool seen[4] = {};
  for (const Token& token : tokens) seen[static_cast<std::size_t>(token.kind)] = true;
  const bool numbers = seen[0] || seen[1];
  if (numbers + seen[2] + seen[3] > 1) {
    return absl::InvalidArgumentError("the value mixes numbers, booleans or strings");
  }
  if (seen[3]) return DataType::kBytes;
  if (seen[2]) return DataType::kBool;
  return seen[0] && !seen[1] ? DataType::kInt64 : DataType::kFp32;
}

template <typename T>
std::optional<Number> Exactly(const std::string& text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return Number(value);
}

std::optional<Number> ToNumber(const Token& token) {
  switch (token.kind) {
    case Token::Kind::kBool: return Number(std::uint64_t{token.text == "true"});
    case Token::Kind::kString: return std::nullopt;
    case Token::Kind::kInteger:
      if (auto number = Exactly<std::int64_t>(token.text)) return number;
      if (auto number = Exactly<std::uint64_t>(token.text)) return number;
      [[fallthrough]];
    case Token::Kind::kReal: return Exactly<double>(token.text);
  }
  return std::nullopt;
}

absl::Status AppendToken(const Token& token, DataType type, std::string& bytes) {
  if (type == DataType::kBytes) {
    if (token.kind != Token::Kind::kString) {
      return absl::InvalidArgumentError(Cat("'", token.text, "' is not a string: write \\\"",
                                            token.text, "\\\" (the shell takes bare quotes away)"));
    }
    AppendBytesElement(token.text, bytes);
    return absl::OkStatus();
  }
  const bool boolean = token.kind == Token::Kind::kBool;
  const std::optional<Number> number = ToNumber(token);
  if (number && (!boolean || type == DataType::kBool) && AppendNumber(*number, type, bytes)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(Cat("'", token.text, "' does not fit ", ToString(type)));
}

}  // namespace

absl::StatusOr<Tensor> ParseLiteral(std::string_view text, std::optional<DataType> wanted) {
  const std::size_t first = text.find_first_not_of(" \t\r\n");
  const bool bare = first == text.npos || (text[first] != '[' && text[first] != '"');
  if (wanted == DataType::kBytes && bare) return MakeBytesTensor({}, {std::string(text)});
  Parser parser(text);
  CLIENT_RETURN_IF_ERROR(parser.Parse());
  if (!wanted) {
    CLIENT_ASSIGN_OR_RETURN(wanted, Guess(parser.tokens));
  }
  Tensor tensor{*wanted, std::move(parser.shape), {}};
  for (const Token& token : parser.tokens) {
    CLIENT_RETURN_IF_ERROR(AppendToken(token, *wanted, tensor.bytes));
  }
  return tensor;
}

}  // namespace hearth::client
