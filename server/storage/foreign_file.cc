#include "server/storage/foreign_file.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/string_view.h"
#include "server/base/strings.h"

namespace hearth {
namespace {

// Protocols 2 to 5, which say so; torch.save takes any of them.
bool IsPickle(std::span<const std::byte> file) {
  return file.size() >= 2 && file[0] == std::byte{0x80} && file[1] >= std::byte{2} && file[1] <= std::byte{5};
}

bool IsMarkup(std::span<const std::byte> file) {
  const absl::string_view text(reinterpret_cast<const char*>(file.data()), std::min<std::size_t>(file.size(), 64));
  const absl::string_view begin = absl::StripLeadingAsciiWhitespace(text);
  for (const char* tag : {"<!doctype", "<html", "<head", "<?xml"}) {
    if (absl::StartsWithIgnoreCase(begin, tag)) return true;
  }
  return false;
}

}  // namespace

std::optional<std::string_view> ForeignFile(std::span<const std::byte> file) {
  if (IsPickle(file)) {
    return "is a pickle, as torch.save wrote modules and weights before PyTorch 1.6, which only running its code "
           "could read; where PyTorch runs, turn it into a model with `hearth pack`";
  }
  if (StartsWith(file, "ustar", 257)) {
    return "is a tar file: either torch.save wrote it in its first versions, and only running its code could read "
           "it; where PyTorch runs, turn it into a model with `hearth pack`; or it is an archive to be unpacked";
  }
  if (StartsWith(file, "\x1f\x8b") || StartsWith(file, "\x28\xb5\x2f\xfd")) {
    return "is a compressed file; unpack it first";
  }
  if (StartsWith(file, "version https://git-lfs")) {
    return "is a Git LFS pointer, not the file itself; run `git lfs pull` where it comes from";
  }
  if (IsMarkup(file)) return "is a web page or XML; was the download refused?";
  return std::nullopt;
}

}  // namespace hearth
