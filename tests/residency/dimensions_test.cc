#include "server/residency/dimensions.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace hearth {
namespace {

using testing::ElementsAre;

const DeviceNames kNames = {"fake:0", "fake:1"};

TEST(DeviceBytes, AreEqualHoweverTheyCameAbout) {
  DeviceBytes bytes;
  bytes.Set(3, 5);
  EXPECT_EQ(bytes[3], 5u);
  EXPECT_EQ(bytes[kMaxDevices - 1], 0u);
  EXPECT_NE(bytes, DeviceBytes());
  bytes.Set(1, 2);
  EXPECT_EQ(bytes, (DeviceBytes{0, 2, 0, 5}));
  EXPECT_EQ(bytes.total(), 7u);
  bytes.Set(3, 0);
  bytes.Set(1, 0);
  EXPECT_EQ(bytes, DeviceBytes()) << "those that had something once are like those that never had";
  EXPECT_EQ(bytes.end(), 0u);
}

TEST(DeviceBytesDeathTest, ThereAreNoMoreThanTheLimit) {
  DeviceBytes bytes;
  EXPECT_DEATH(bytes.Set(kMaxDevices, 1), "kMaxDevices");
}

TEST(Bytes, EveryDeviceIsADimensionOfItsOwn) {
  const Bytes a{{10, 20}, 1, 2};
  const Bytes b{{5, 0, 7}, 3, 1};
  EXPECT_EQ(a + b, (Bytes{{15, 20, 7}, 4, 3}));
  EXPECT_EQ(a + b - b, a);
  EXPECT_EQ(AtLeast(a, b), (Bytes{{10, 20, 7}, 3, 2}));
  EXPECT_EQ(AtMost(a, b), (Bytes{{5}, 1, 1}));
  EXPECT_EQ(Beyond(a, b), (Bytes{{5, 20}, 0, 1}));
  EXPECT_FALSE(a <= b);
  EXPECT_FALSE(b <= a) << "though its sum is less: the third device has more";
  EXPECT_TRUE((Bytes{{5, 0, 6}, 3, 1}) <= b);
  EXPECT_FALSE((Bytes{{0, 1}, 0, 0}) <= (Bytes{{1}, 0, 0})) << "another device's room is no help";
}

TEST(Bytes, AFootprintIsChargedToItsDevice) {
  const Bytes sum = SumOf({.device_bytes = 7, .host_bytes = 2, .device = 1});
  EXPECT_EQ(sum, (Bytes{{0, 7}, 2, 0}));
  EXPECT_EQ(Of(sum, {Dimension::kDevice, 1}), 7u);
  EXPECT_EQ(Of(sum, {Dimension::kDevice, 0}), 0u);
  EXPECT_EQ(Of(sum, Dimension::kHost), 2u);
}

TEST(Dimensions, AreTheDevicesThenTheHostsTwo) {
  EXPECT_THAT(Dimensions(2), ElementsAre(Dimension(Dimension::kDevice, 0), Dimension(Dimension::kDevice, 1),
                                         Dimension(Dimension::kHost), Dimension(Dimension::kMapped)));
  EXPECT_EQ(NameOf(Dimension(Dimension::kDevice, 1), kNames), "fake:1");
  EXPECT_EQ(NameOf(Dimension(Dimension::kMapped), kNames), "mapped");
  EXPECT_EQ(NameOf(DeviceNumber{2}, kNames), "device") << "nobody has given it a name";
}

TEST(Describe, NamesTheDevice) {
  EXPECT_EQ(Describe(Bytes{{0, 2048}, 1024, 0}, kNames), "2.00 KiB of fake:1 and 1.00 KiB of host memory");
  EXPECT_EQ(Describe(Bytes{}, kNames), "no memory");
}

TEST(Shortage, NamesTheDeviceThatIsShort) {
  EXPECT_EQ(*Shortage({{0, 4096}, 0, 0}, {{8192, 1024}, 0, 0}, {{0, 2048}, 0, 0}, kNames),
            "4.00 KiB of fake:1 memory, and 1.00 KiB of the 2.00 KiB of cache.budget.device are left");
  EXPECT_EQ(Shortage({{0, 1}, 0, 0}, {{8192}, 0, 0}, {{0, 1}, 0, 0}, kNames), std::nullopt)
      << "too much is held on a device that it does not need";
}

TEST(Shortage, TellsHowMuchOfTheBudgetWasLost) {
  EXPECT_EQ(*Shortage({{0, 4096}, 0, 0}, {}, {{0, 4096}, 0, 0}, kNames, {{0, 1024}, 0, 0}),
            "4.00 KiB of fake:1 memory, and 3.00 KiB of the 4.00 KiB of cache.budget.device are left, of which 1.00 KiB "
            "were lost when the device could not free them, until hearthd is started again");
  EXPECT_EQ(Shortage({{0, 3072}, 0, 0}, {}, {{0, 4096}, 0, 0}, kNames, {{0, 1024}, 0, 0}), std::nullopt);
}

TEST(CapacityFor, LeavesOutWhatIsShortOnOtherDevices) {
  const Bytes capacity{{10, 20, 30}, 5, 6};
  const Bytes held{{11, 21, 1}, 50, 60};
  EXPECT_EQ(CapacityFor({.device_bytes = 1, .device = 0}, held, capacity), (Bytes{{10, 21, 30}, 5, 6}));
  EXPECT_EQ(CapacityFor({.host_bytes = 1}, held, capacity), (Bytes{{11, 21, 30}, 5, 6}));
}

}  // namespace
}  // namespace hearth
