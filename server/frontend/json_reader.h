// A JSON text, read from its beginning to its end by whoever knows what should be there.
//
// Numbers and strings go where they are wanted as they are read: a tensor's values are never a tree in memory, which
// would be ten times their size.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/functional/function_ref.h"
#include "server/base/status.h"

namespace hearth {

// RFC 8259, and NaN, Infinity and -Infinity as numbers, as Python writes them. Every error is INVALID_ARGUMENT and says
// at which byte. After an error nothing more may be read. Thread-compatible. Outlived by its text.
class JsonReader {
 public:
  enum class Kind { kNull, kBool, kNumber, kString, kArray, kObject, kNone };

  static constexpr int kMaxDepth = 64;  // of arrays and objects

  explicit JsonReader(std::string_view text, std::size_t at = 0) : text_(text), at_(at) {}

  // What comes next; kNone: nothing that JSON has.
  Kind Peek();

  // `member` reads the value of the key that it is called with, each once. A key that comes twice is refused where
  // `member` refuses it.
  absl::Status Object(absl::FunctionRef<absl::Status(const std::string& key)> member);
  // `element` reads one.
  absl::Status Array(absl::FunctionRef<absl::Status()> element);
  absl::StatusOr<std::string> String();  // valid UTF-8
  absl::StatusOr<std::string_view> Number();  // as written
  absl::StatusOr<bool> Bool();
  absl::Status Null();
  absl::Status Skip();  // whatever it is

  // A whole number in the type's range.
  absl::StatusOr<std::int64_t> Int64();
  absl::StatusOr<std::uint64_t> UInt64();

  // Refuses anything but blanks up to the end.
  absl::Status End();

  // Where the next value begins; another reader of the same text may start there.
  std::size_t position();

  // INVALID_ARGUMENT "<what> at byte N".
  absl::Status Error(std::string_view what) const;

 private:
  void SkipBlanks();
  bool Take(char c);
  absl::Status TakeWord(std::string_view word);
  absl::Status TakeEscape(std::string& out);
  absl::StatusOr<unsigned> TakeHex4();
  absl::Status WrongKind(std::string_view wanted);

  std::string_view text_;
  std::size_t at_;
  int depth_ = 0;
};

}  // namespace hearth
