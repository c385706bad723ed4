// How much of the machine this process may use: what its control group allows, else what there is.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "server/base/status.h"

namespace hearth {

// "12GiB" or "60%". What the percentage is of is for the owner of the field to say.
struct BytesOrPercent {
  std::uint64_t bytes = 0;
  double percent = 0;  // above 0: counts instead of `bytes`

  static constexpr BytesOrPercent Percent(double percent) { return {0, percent}; }
  static constexpr BytesOrPercent Bytes(std::uint64_t bytes) { return {bytes, 0}; }
  // 0% is written "0"; more than 100% is refused.
  static absl::StatusOr<BytesOrPercent> Parse(std::string_view text);

  std::uint64_t Of(std::uint64_t whole) const;
  std::string ToString() const;  // Parse() reads it back

  friend bool operator==(const BytesOrPercent&, const BytesOrPercent&) = default;
};

// A size for each device, and others for those that are named.
struct DeviceSizes {
  struct Named {
    std::string device;
    BytesOrPercent size;
    std::string where = {};  // it was said: "hearth.yaml:12:9"

    friend bool operator==(const Named& a, const Named& b) { return a.device == b.device && a.size == b.size; }
  };
  BytesOrPercent each;
  std::vector<Named> named = {};

  std::uint64_t Of(std::string_view device, std::uint64_t memory) const;
  std::string ToString() const;  // as YAML

  friend bool operator==(const DeviceSizes&, const DeviceSizes&) = default;
};

struct MemoryLimit {
  std::uint64_t bytes = 0;
  std::string source;  // for the log: "physical memory", or the control group's file
};

// The smallest of physical memory and the limits of our control group and of those around it,
// version 1 or 2. Never looks at what is free at the moment: page cache counts as used there.
// `root` stands for / in tests.
absl::StatusOr<MemoryLimit> FindMemoryLimit(const std::filesystem::path& root = "/");

// CPUs this process may use at once, at least 1: `online` (what the scheduler would give us), or
// less where a control group has a quota. A quota of 1.5 CPUs counts as 2.
int FindCpuLimit(int online, const std::filesystem::path& root = "/");

}  // namespace hearth
