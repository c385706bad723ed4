#include "server/torch_backend/uploader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <numeric>
#include <string>
#include <vector>

#include "server/torch_backend/fake_device.h"

namespace hearth {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr std::size_t kPiece = Device::kStagingBytes;
constexpr std::uint64_t kRoomy = 64 * kPiece;

// Different at every place, in pieces of one length as well.
std::vector<std::byte> Bytes(std::size_t size) {
  std::vector<std::byte> bytes(size);
  for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(i * 2654435761U >> 13);
  return bytes;
}

bool Holds(const at::DataPtr& memory, const std::vector<std::byte>& bytes) {
  return bytes.empty() || std::memcmp(memory.get(), bytes.data(), bytes.size()) == 0;
}

TEST(Uploader, BringsEveryByteToItsPlace) {
  FakeDevice device("fake:0", {.memory_bytes = kRoomy});
  Uploader uploader(device, {});
  std::vector<std::vector<std::byte>> sources;
  std::vector<std::shared_ptr<const at::DataPtr>> uploaded;
  std::uint64_t sum = 0;
  for (const std::size_t size : {std::size_t{0}, std::size_t{1}, kPiece - 1, kPiece, kPiece + 1, 7 * kPiece + 3}) {
    uploaded.push_back(*uploader.Upload(sources.emplace_back(Bytes(size))));
    sum += size;
  }
  uploader.Finish();
  for (std::size_t i = 0; i < sources.size(); ++i) EXPECT_TRUE(Holds(*uploaded[i], sources[i])) << "upload " << i;
  EXPECT_EQ(uploader.bytes(), sum);
  EXPECT_EQ(device.used_bytes(), sum);
}

TEST(Uploader, NeedsItsSourceNoLongerThanUploadTakes) {
  FakeDevice device("fake:0", {.memory_bytes = kRoomy});
  Uploader uploader(device, {});
  const std::vector<std::byte> expected = Bytes(2 * kPiece);
  std::vector<std::byte> source = expected;
  const auto uploaded = *uploader.Upload(source);
  std::fill(source.begin(), source.end(), std::byte{0});
  uploader.Finish();
  EXPECT_TRUE(Holds(*uploaded, expected));
}

// Notes what it is asked for, and copies at once.
class NotingDevice final : public Device {
 public:
  NotingDevice() : Device("noting", at::kCPU, /*is_host=*/false, 0) {}
  absl::StatusOr<at::DataPtr> Allocate(std::size_t bytes) override {
    return c10::GetAllocator(c10::DeviceType::CPU)->allocate(bytes);
  }
  std::unique_ptr<CopyStream> OpenStream() override { return std::make_unique<Stream>(*this); }

  std::vector<std::string> notes;
  int staging = 0;

 private:
  class Stream final : public CopyStream {
   public:
    explicit Stream(NotingDevice& device) : device_(device) {}
    std::uint64_t Begin(std::span<const std::byte>, void*) override {
      device_.notes.push_back(StrCat("begin ", ++begun_));
      return begun_;
    }
    void Wait(std::uint64_t copy) override { device_.notes.push_back(StrCat("wait ", copy)); }

   private:
    NotingDevice& device_;
    std::uint64_t begun_ = 0;
  };
  at::DataPtr AllocateStaging(std::size_t bytes) override {
    ++staging;
    return c10::GetAllocator(c10::DeviceType::CPU)->allocate(bytes);
  }
};

TEST(Uploader, FillsThePieceAfterNextWhileTwoAreOnTheirWay) {
  NotingDevice device;
  const auto source = Bytes(5 * kPiece);
  {
    Uploader uploader(device, {});
    ASSERT_TRUE(uploader.Upload(source).ok());
    uploader.Finish();
    EXPECT_THAT(device.notes,
                ElementsAre("begin 1", "begin 2", "begin 3", "wait 1", "begin 4", "wait 2", "begin 5", "wait 5"));
  }
  EXPECT_EQ(device.staging, 3);
  {
    Uploader again(device, {});
    ASSERT_TRUE(again.Upload(source).ok());
  }
  EXPECT_EQ(device.staging, 3) << "staging memory is kept for the next load";
}

TEST(Uploader, SmallTensorsTakeNoMoreStagingThanTheyNeed) {
  NotingDevice device;
  Uploader uploader(device, {});
  ASSERT_TRUE(uploader.Upload(Bytes(10)).ok());
  EXPECT_EQ(device.staging, 1);
}

TEST(Uploader, RefusesWhatTheDeviceHasNoMemoryFor) {
  FakeDevice device("fake:3", {.memory_bytes = 1000});
  Uploader uploader(device, {});
  const auto first = uploader.Upload(Bytes(600));
  ASSERT_TRUE(first.ok());
  const auto refused = uploader.Upload(Bytes(600)).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("'fake:3' has no more memory"));
  EXPECT_EQ(device.used_bytes(), 600u);
  EXPECT_TRUE(uploader.Upload(Bytes(400)).ok());
}

TEST(Uploader, StopsBetweenPieces) {
  FakeDevice device("fake:0", {.memory_bytes = kRoomy});
  std::stop_source stop;
  stop.request_stop();
  Uploader uploader(device, stop.get_token());
  EXPECT_EQ(uploader.Upload(Bytes(1)).status().code(), absl::StatusCode::kCancelled);
}

TEST(Uploader, WhatIsAbandonedOnItsWayGoesBackToTheDevice) {
  FakeDevice device("fake:0", {.memory_bytes = kRoomy});
  {
    Uploader uploader(device, {});
    ASSERT_TRUE(uploader.Upload(Bytes(3 * kPiece)).ok());  // dropped while three copies have still to happen
    EXPECT_EQ(device.used_bytes(), 3 * kPiece);
  }
  EXPECT_EQ(device.used_bytes(), 0u);
}

TEST(Uploader, SharedMemoryIsFreedWithTheLastThatUsesIt) {
  FakeDevice device("fake:0", {.memory_bytes = kRoomy});
  at::DataPtr first, second;
  {
    Uploader uploader(device, {});
    const auto memory = *uploader.Upload(Bytes(100));
    uploader.Finish();
    first = ShareMemory(memory);
    second = ShareMemory(memory);
  }
  EXPECT_EQ(first.get(), second.get());
  first.clear();
  EXPECT_EQ(device.used_bytes(), 100u);
  second.clear();
  EXPECT_EQ(device.used_bytes(), 0u);
}

}  // namespace
}  // namespace hearth
