#include "server/config/machine_limits.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <fstream>

namespace hearth {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;

// A made-up / with 16 GiB of memory.
class MachineLimits : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "/hearth-machine-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    root_ = pattern;
    Write("proc/meminfo", "MemTotal:       16777216 kB\nMemFree:          100 kB\n");
  }
  void TearDown() override { fs::remove_all(root_); }

  void Write(const std::string& path, const std::string& text) {
    fs::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text;
  }

  fs::path root_;
};

TEST_F(MachineLimits, ArePhysicalMemoryAndOnlineCpusWithoutControlGroups) {
  const auto limit = FindMemoryLimit(root_);
  ASSERT_TRUE(limit.ok()) << limit.status();
  EXPECT_EQ(limit->bytes, 16 * kGiB);
  EXPECT_EQ(limit->source, "physical memory");
  EXPECT_EQ(FindCpuLimit(8, root_), 8);
}

TEST_F(MachineLimits, AreTheSmallestAboveUsInVersionTwo) {
  Write("proc/self/cgroup", "0::/system.slice/hearth.service\n");
  Write("sys/fs/cgroup/system.slice/hearth.service/memory.max", "max\n");
  Write("sys/fs/cgroup/system.slice/hearth.service/cpu.max", "max 100000\n");
  EXPECT_EQ(FindMemoryLimit(root_)->bytes, 16 * kGiB);
  EXPECT_EQ(FindCpuLimit(8, root_), 8);

  Write("sys/fs/cgroup/system.slice/memory.max", "4294967296\n");
  Write("sys/fs/cgroup/system.slice/cpu.max", "150000 100000\n");
  auto limit = FindMemoryLimit(root_);
  EXPECT_EQ(limit->bytes, 4 * kGiB);
  EXPECT_EQ(limit->source, (root_ / "sys/fs/cgroup/system.slice/memory.max").string());
  EXPECT_EQ(FindCpuLimit(8, root_), 2);
  EXPECT_EQ(FindCpuLimit(1, root_), 1);

  Write("sys/fs/cgroup/system.slice/hearth.service/memory.max", "1073741824\n");
  EXPECT_EQ(FindMemoryLimit(root_)->bytes, kGiB);
}

TEST_F(MachineLimits, AreTheContainersOwnAtTheRootOfItsHierarchy) {
  for (const char* path : {"/", "/docker/0123abcd", "/../../elsewhere"}) {
    Write("proc/self/cgroup", StrCat("0::", path, "\n"));
    Write("sys/fs/cgroup/memory.max", "2147483648\n");
    Write("sys/fs/cgroup/cpu.max", "50000 100000\n");
    EXPECT_EQ(FindMemoryLimit(root_)->bytes, 2 * kGiB) << path;
    EXPECT_EQ(FindCpuLimit(8, root_), 1) << path;
  }
}

TEST_F(MachineLimits, AreReadFromVersionOneToo) {
  Write("proc/self/cgroup",
        "12:cpuset:/a\n5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/x\n0::/\n");
  Write("sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", "9223372036854771712\n");
  Write("sys/fs/cgroup/cpu/docker/abc/cpu.cfs_quota_us", "-1\n");
  Write("sys/fs/cgroup/cpu/docker/abc/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(FindMemoryLimit(root_)->bytes, 16 * kGiB);
  EXPECT_EQ(FindCpuLimit(8, root_), 8);

  Write("sys/fs/cgroup/memory/docker/memory.limit_in_bytes", "3221225472\n");
  Write("sys/fs/cgroup/cpu/docker/abc/cpu.cfs_quota_us", "300000\n");
  EXPECT_EQ(FindMemoryLimit(root_)->bytes, 3 * kGiB);
  EXPECT_EQ(FindCpuLimit(8, root_), 3);
}

TEST_F(MachineLimits, AboveWhatThereIsDoNotCount) {
  Write("proc/self/cgroup", "0::/\n");
  Write("sys/fs/cgroup/memory.max", "1099511627776\n");
  Write("sys/fs/cgroup/cpu.max", "6400000 100000\n");
  EXPECT_EQ(FindMemoryLimit(root_)->source, "physical memory");
  EXPECT_EQ(FindCpuLimit(4, root_), 4);
}

TEST_F(MachineLimits, ThatCannotBeFoundAreAnError) {
  fs::remove_all(root_ / "proc");
  const auto limit = FindMemoryLimit(root_);
  EXPECT_FALSE(limit.ok());
  EXPECT_THAT(std::string(limit.status().message()),
              ::testing::HasSubstr("give budgets in bytes instead of percentages"));
}

TEST(MachineLimitsOfThisMachine, CanBeRead) {
  const auto limit = FindMemoryLimit();
  ASSERT_TRUE(limit.ok()) << limit.status();
  EXPECT_GT(limit->bytes, 1u << 20);
  EXPECT_GE(FindCpuLimit(4), 1);
  EXPECT_LE(FindCpuLimit(4), 4);
}

TEST(BytesOrPercent, IsPrintedAsItIsRead) {
  for (const char* text :
       {"0", "12GiB", "1000", "60%", "33.3%", "0.125%", "100%", "12.3456789012%"}) {
    const auto parsed = BytesOrPercent::Parse(text);
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_EQ(parsed->ToString(), text);
  }
  for (const char* text : {"", "%", "0%", "101%", "-5%", "60 %%", "many", "12Gigs", "nan%"}) {
    EXPECT_FALSE(BytesOrPercent::Parse(text).ok()) << text;
  }
}

TEST(BytesOrPercent, IsTakenOfTheWhole) {
  EXPECT_EQ(BytesOrPercent::Percent(50).Of(16 * kGiB), 8 * kGiB);
  EXPECT_EQ(BytesOrPercent::Percent(100).Of(~std::uint64_t{0} >> 1), ~std::uint64_t{0} >> 1);
  EXPECT_EQ(BytesOrPercent::Percent(100).Of(kGiB + 1), kGiB + 1);
  EXPECT_EQ(BytesOrPercent::Bytes(5).Of(16 * kGiB), 5u);
  EXPECT_EQ(BytesOrPercent::Bytes(0).Of(16 * kGiB), 0u);
}

}  // namespace
}  // namespace hearth
