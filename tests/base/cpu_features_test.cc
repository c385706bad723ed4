#include "server/base/cpu_features.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace hearth {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(CpuFeatures, AreThoseOfTheFirstProcessor) {
  EXPECT_THAT(ParseCpuInfo("processor\t: 0\nflags\t\t: fpu sse avx2\n\nprocessor\t: 1\nflags\t\t: fpu\n"),
              ElementsAre("avx2", "fpu", "sse"));
  EXPECT_THAT(ParseCpuInfo("processor\t: 0\nFeatures\t: fp asimd\n"), ElementsAre("asimd", "fp"));
  EXPECT_THAT(ParseCpuInfo("vmx flags\t: invvpid\nmodel name: flags"), IsEmpty());
}

TEST(CpuFeatures, OfThisMachineCanBeRead) {
  const auto features = ReadCpuFeatures();
  ASSERT_TRUE(features.ok()) << features.status();
  EXPECT_FALSE(features->empty());
  EXPECT_FALSE(MachineName().empty());
}

}  // namespace
}  // namespace hearth
