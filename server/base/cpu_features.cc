#include "server/base/cpu_features.h"

#include <sys/utsname.h>

#include <algorithm>
#include <fstream>
#include <sstream>

namespace hearth {

CpuFeatures ParseCpuInfo(std::string_view text) {
  CpuFeatures features;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    const std::size_t colon = line.find(':');
    // x86 says "flags", ARM "Features".
    if (colon == line.npos || (!line.starts_with("flags") && !line.starts_with("Features"))) continue;
    std::istringstream words{std::string(line.substr(colon + 1))};
    for (std::string word; words >> word;) features.insert(std::move(word));
    break;
  }
  return features;
}

absl::StatusOr<CpuFeatures> ReadCpuFeatures() {
  std::ifstream file("/proc/cpuinfo");
  std::stringstream text;
  text << file.rdbuf();
  if (!file) return absl::UnavailableError("/proc/cpuinfo cannot be read, which says what the CPU can do");
  return ParseCpuInfo(text.str());
}

std::string MachineName() {
  utsname name{};
  return uname(&name) == 0 ? name.machine : "";
}

}  // namespace hearth
