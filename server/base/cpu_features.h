// What this machine's processor can do.
#pragma once

#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "server/base/status.h"

namespace hearth {

// By the kernel's names, lower case: "avx2", "avx512f", "asimd".
using CpuFeatures = std::set<std::string, std::less<>>;

// Of the first processor that a text in the form of /proc/cpuinfo lists.
CpuFeatures ParseCpuInfo(std::string_view text);

// Of this machine. UNAVAILABLE where /proc/cpuinfo cannot be read.
absl::StatusOr<CpuFeatures> ReadCpuFeatures();

// "x86_64", "aarch64": as the kernel calls this machine.
std::string MachineName();

}  // namespace hearth
