#include "server/metrics/process_stats.h"

#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>
#include <system_error>

namespace hearth {
namespace {

using Sample = Metrics::Sample;

// Fields of /proc/self/stat, counted from the process state, which follows the ")" that ends the
// name: the name itself may hold spaces and brackets.
constexpr std::size_t kUserTicks = 11;
constexpr std::size_t kSystemTicks = 12;
constexpr std::size_t kThreads = 17;
constexpr std::size_t kStartTicks = 19;
constexpr std::size_t kVirtualBytes = 20;
constexpr std::size_t kResidentPages = 21;
constexpr std::size_t kFieldsRead = 22;

std::optional<std::array<double, kFieldsRead>> ReadStat() {
  std::ifstream file("/proc/self/stat");
  std::string line;
  if (!std::getline(file, line)) return std::nullopt;
  const std::size_t name_end = line.rfind(')');
  if (name_end == std::string::npos) return std::nullopt;
  std::istringstream fields(line.substr(name_end + 1));
  std::string state;
  fields >> state;
  std::array<double, kFieldsRead> values{};
  for (std::size_t i = 1; i < kFieldsRead; ++i) fields >> values[i];
  if (!fields) return std::nullopt;
  return values;
}

// Seconds since the epoch at which the machine started.
std::optional<double> ReadBootTime() {
  std::ifstream file("/proc/stat");
  for (std::string word; file >> word;) {
    double seconds = 0;
    if (word == "btime" && file >> seconds) return seconds;
  }
  return std::nullopt;
}

void AddFileDescriptors(std::vector<Sample>& out) {
  std::error_code error;
  double open = -1;  // the listing's own descriptor
  std::filesystem::directory_iterator it("/proc/self/fd", error);
  for (; !error && it != std::filesystem::directory_iterator(); it.increment(error)) ++open;
  if (!error) out.push_back({"process_open_fds", "File descriptors in use.", {}, open, false});
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    out.push_back({"process_max_fds",
                   "File descriptors this process may have open.",
                   {},
                   static_cast<double>(limit.rlim_cur),
                   false});
  }
}

}  // namespace

std::vector<Sample> ReadProcessStats() {
  std::vector<Sample> out;
  AddFileDescriptors(out);
  const auto stat = ReadStat();
  if (!stat) return out;
  const auto ticks = static_cast<double>(::sysconf(_SC_CLK_TCK));
  const auto page = static_cast<double>(::sysconf(_SC_PAGESIZE));
  const auto& field = *stat;
  out.push_back({"process_cpu_seconds_total",
                 "User and system CPU time spent.",
                 {},
                 (field[kUserTicks] + field[kSystemTicks]) / ticks,
                 true});
  out.push_back({"process_resident_memory_bytes",
                 "Resident memory, page cache mapped here included.",
                 {},
                 field[kResidentPages] * page,
                 false});
  out.push_back(
      {"process_virtual_memory_bytes", "Address space in use.", {}, field[kVirtualBytes], false});
  out.push_back({"process_threads", "Threads of this process.", {}, field[kThreads], false});
  static const std::optional<double> boot = ReadBootTime();  // does not change; /proc/stat is slow
  if (boot) {
    out.push_back({"process_start_time_seconds",
                   "When this process started, since the epoch.",
                   {},
                   *boot + field[kStartTicks] / ticks,
                   false});
  }
  return out;
}

}  // namespace hearth
