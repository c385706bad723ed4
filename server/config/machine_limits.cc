#include "server/config/machine_limits.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <functional>
#include <optional>
#include <sstream>

#include "absl/strings/numbers.h"
#include "server/base/bytes.h"

namespace hearth {
namespace {

namespace fs = std::filesystem;

// These files are small and made up by the kernel on each read.
std::optional<std::string> ReadSmallFile(const fs::path& path) {
  std::ifstream in(path);
  if (!in) return std::nullopt;
  std::ostringstream text;
  text << in.rdbuf();
  return std::move(text).str();
}

std::optional<std::uint64_t> Number(const std::string& text) {
  std::uint64_t value = 0;
  if (!absl::SimpleAtoi(text, &value)) return std::nullopt;  // also "max": no limit
  return value;
}

// Our own control groups: the path under the version 2 hierarchy and under a controller of
// version 1.
struct Membership {
  std::optional<fs::path> v2;
  std::optional<fs::path> v1_memory;
  std::optional<fs::path> v1_cpu;
};

// Lines of /proc/self/cgroup are "<id>:<controllers>:<path>"; version 2's has no controllers.
Membership ReadMembership(const fs::path& root) {
  Membership membership;
  std::istringstream lines(ReadSmallFile(root / "proc/self/cgroup").value_or(""));
  for (std::string line; std::getline(lines, line);) {
    const std::size_t first = line.find(':');
    const std::size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const fs::path path = fs::path(line.substr(second + 1)).relative_path();
    if (controllers == ",,") membership.v2 = path;
    if (controllers.find(",memory,") != std::string::npos) membership.v1_memory = path;
    if (controllers.find(",cpu,") != std::string::npos) membership.v1_cpu = path;
  }
  return membership;
}

// Calls `visit` for `hierarchy`/`group` and every directory above it, up to and with `hierarchy`: a
// limit holds for everything below. In a container the path may be the host's and exist in part or
// not at all; the hierarchy's root is then the container's own group.
void VisitGroups(const fs::path& hierarchy, const fs::path& group,
                 const std::function<void(const fs::path& directory)>& visit) {
  fs::path relative = group.lexically_normal();
  if (!relative.empty() && *relative.begin() == "..") relative.clear();  // outside our namespace
  while (!relative.empty() && relative != ".") {
    visit(hierarchy / relative);
    relative = relative.parent_path();
  }
  visit(hierarchy);
}

std::optional<std::uint64_t> PhysicalMemory(const fs::path& root) {
  std::istringstream words(ReadSmallFile(root / "proc/meminfo").value_or(""));
  for (std::string word; words >> word;) {
    std::uint64_t kib = 0;
    if (word == "MemTotal:" && words >> kib) return kib * 1024;
  }
  return std::nullopt;
}

// CPUs of version 2's "<quota> <period>" or "max <period>".
std::optional<double> QuotaV2(const fs::path& directory) {
  std::istringstream words(ReadSmallFile(directory / "cpu.max").value_or(""));
  std::string quota;
  double period = 0;
  double value = 0;
  if (!(words >> quota >> period) || period <= 0 || !absl::SimpleAtod(quota, &value)) {
    return std::nullopt;
  }
  return value / period;
}

std::optional<double> QuotaV1(const fs::path& directory) {
  double quota = 0;
  double period = 0;
  if (!absl::SimpleAtod(ReadSmallFile(directory / "cpu.cfs_quota_us").value_or(""), &quota) ||
      !absl::SimpleAtod(ReadSmallFile(directory / "cpu.cfs_period_us").value_or(""), &period) ||
      quota <= 0 || period <= 0) {  // -1: no quota
    return std::nullopt;
  }
  return quota / period;
}

}  // namespace

absl::StatusOr<BytesOrPercent> BytesOrPercent::Parse(std::string_view text) {
  if (text.ends_with('%')) {
    double percent = 0;
    if (absl::SimpleAtod(ToAbsl(text.substr(0, text.size() - 1)), &percent) && percent > 0 &&
        percent <= 100) {
      return Percent(percent);
    }
    return absl::InvalidArgumentError(
        StrCat("'", text, "' is not a percentage between 0% and 100%; write 60%, say"));
  }
  const auto bytes = ParseBytes(text);
  if (!bytes.ok()) {
    return absl::InvalidArgumentError(StrCat(
        "'", text,
        "' is not a size; write a number with a unit or a percentage, such as 12GiB or 60%"));
  }
  return Bytes(*bytes);
}

std::uint64_t BytesOrPercent::Of(std::uint64_t whole) const {
  if (percent <= 0) return bytes;
  return std::min(whole, static_cast<std::uint64_t>(static_cast<double>(whole) * (percent / 100)));
}

std::string BytesOrPercent::ToString() const {
  if (percent <= 0) return FormatBytesExactly(bytes);
  char buffer[40];  // the shortest text that is read back as the same number
  for (int digits = 6; digits <= 17; ++digits) {
    std::snprintf(buffer, sizeof buffer, "%.*g", digits, percent);
    double back = 0;
    if (absl::SimpleAtod(buffer, &back) && back == percent) break;
  }
  return StrCat(buffer, "%");
}

std::uint64_t DeviceSizes::Of(std::string_view device, std::uint64_t memory) const {
  const auto own = std::find_if(named.begin(), named.end(), [&](const Named& size) { return size.device == device; });
  return (own == named.end() ? each : own->size).Of(memory);
}

std::string DeviceSizes::ToString() const {
  if (named.empty()) return each.ToString();
  std::string list;
  for (const Named& own : named) {
    list += StrCat(list.empty() ? "" : ", ", "\"", own.device, "\": ", own.size.ToString());
  }
  return StrCat("{", list, "}");
}

absl::StatusOr<MemoryLimit> FindMemoryLimit(const fs::path& root) {
  const auto physical = PhysicalMemory(root);
  if (!physical) {
    return absl::InternalError(StrCat("cannot find out how much memory there is from ",
                                      (root / "proc/meminfo").string(),
                                      "; give budgets in bytes instead of percentages"));
  }
  MemoryLimit limit{*physical, "physical memory"};
  const auto consider = [&](const fs::path& file) {
    const auto bytes = Number(ReadSmallFile(file).value_or(""));
    // Version 1 writes "no limit" as a number near 2^63, which is above physical memory.
    if (bytes && *bytes > 0 && *bytes < limit.bytes) limit = {*bytes, file.string()};
  };
  const Membership groups = ReadMembership(root);
  const fs::path mounts = root / "sys/fs/cgroup";
  if (groups.v2) {
    VisitGroups(mounts, *groups.v2, [&](const fs::path& at) { consider(at / "memory.max"); });
  }
  if (groups.v1_memory) {
    VisitGroups(mounts / "memory", *groups.v1_memory,
                [&](const fs::path& at) { consider(at / "memory.limit_in_bytes"); });
  }
  return limit;
}

int FindCpuLimit(int online, const fs::path& root) {
  double cpus = std::max(1, online);
  const Membership groups = ReadMembership(root);
  const fs::path mounts = root / "sys/fs/cgroup";
  if (groups.v2) {
    VisitGroups(mounts, *groups.v2,
                [&](const fs::path& at) { cpus = std::min(cpus, QuotaV2(at).value_or(cpus)); });
  }
  if (groups.v1_cpu) {
    VisitGroups(mounts / "cpu", *groups.v1_cpu,
                [&](const fs::path& at) { cpus = std::min(cpus, QuotaV1(at).value_or(cpus)); });
  }
  return std::max(1, static_cast<int>(std::ceil(cpus)));
}

}  // namespace hearth
