#include "server/storage/class_names.h"

#include <cstddef>
#include <string_view>

#include "server/storage/mapped_file.h"

namespace hearth {
namespace {

constexpr std::size_t kMaxFile = 4 << 20;

}  // namespace

absl::StatusOr<std::shared_ptr<const std::vector<std::string>>> ReadClassNames(const std::filesystem::path& file) {
  HEARTH_ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(file, kMaxFile));
  auto names = std::make_shared<std::vector<std::string>>();
  for (std::string_view rest = text; !rest.empty();) {
    const std::size_t end = rest.find('\n');
    std::string_view line = rest.substr(0, end);
    rest = end == rest.npos ? std::string_view() : rest.substr(end + 1);
    if (line.ends_with('\r')) line.remove_suffix(1);
    names->emplace_back(line);
  }
  while (!names->empty() && names->back().empty()) names->pop_back();
  return names;
}

}  // namespace hearth
