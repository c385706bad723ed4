#include "server/serving/shared_memory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <utility>

#include "tests/serving/shared_object.h"

namespace hearth {
namespace {

using testing::HasSubstr;

constexpr std::uint64_t kHuge = std::numeric_limits<std::uint64_t>::max();

class SharedMemoryTest : public testing::Test {
 protected:
  SharedMemoryTest() { object_.Set("0123456789abcdef"); }

  static std::string Read(const SharedRegion& region, std::uint64_t offset, std::size_t size) {
    std::string text(size, '?');
    const absl::Status status = region.Read(offset, std::as_writable_bytes(std::span(text)));
    return status.ok() ? text : status.ToString();
  }
  static absl::Status Write(const SharedRegion& region, std::uint64_t offset, const std::string& text) {
    return region.Write(offset, std::as_bytes(std::span(text)));
  }

  SharedObject object_{16};
  SharedMemory memory_{/*allowed=*/true};
};

TEST_F(SharedMemoryTest, ARegionIsAPartOfItsObjectAndNothingBesides) {
  ASSERT_TRUE(memory_.Register({"r", object_.key(), 4, 8}).ok());
  const auto region = *memory_.Find("r");
  EXPECT_EQ(Read(*region, 0, 8), "456789ab");
  EXPECT_EQ(Read(*region, 7, 1), "b");
  EXPECT_TRUE(Write(*region, 6, "XY").ok());
  EXPECT_EQ(object_.Get(), "0123456789XYcdef");
  EXPECT_TRUE(region->Check(8, 0).ok());
  const std::pair<std::uint64_t, std::uint64_t> beyond[] = {{0, 9}, {8, 1}, {9, 0}, {kHuge, 1}, {1, kHuge}, {kHuge, kHuge}};
  for (const auto& [offset, size] : beyond) {
    EXPECT_THAT(region->Check(offset, size).ToString(), HasSubstr("Invalid offset + byte size"));
  }
  EXPECT_FALSE(Write(*region, 7, "XY").ok());
  EXPECT_EQ(object_.Get(), "0123456789XYcdef");
}

TEST_F(SharedMemoryTest, WhatIsNotWithinTheObjectIsNotRegistered) {
  const std::pair<std::uint64_t, std::uint64_t> wrong[] = {{0, 0}, {0, 17}, {16, 1}, {17, 1}, {kHuge, 2}, {2, kHuge}};
  for (const auto& [offset, size] : wrong) {
    const absl::Status refused = memory_.Register({"r", object_.key(), offset, size});
    EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument) << offset << " " << size;
    EXPECT_THAT(refused.ToString(), HasSubstr("failed to register shared memory region 'r': invalid args"));
  }
  EXPECT_TRUE(memory_.Register({"r", object_.key(), 15, 1}).ok());
}

TEST_F(SharedMemoryTest, AKeyIsTheNameOfAnObjectAndNoPath) {
  const std::string long_key(300, 'x');
  for (const std::string& key : {std::string(), std::string("/"), std::string("/.."), std::string("."), std::string("//x"),
                                 std::string("/a/b"), std::string("../etc/passwd"), std::string("/a\0b", 4), long_key}) {
    const absl::Status refused = memory_.Register({"r", key, 0, 1});
    EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument) << key;
    EXPECT_THAT(refused.ToString(), HasSubstr("is not the name of a shared memory object"));
  }
  const absl::Status absent = memory_.Register({"r", object_.key() + "-absent", 0, 1});
  EXPECT_EQ(absent.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(absent.ToString(), HasSubstr("Unable to open shared memory region: '" + object_.key()));
  EXPECT_TRUE(memory_.Register({"r", object_.key().substr(1), 0, 1}).ok()) << "without its '/'";
}

TEST_F(SharedMemoryTest, AKeyOfSomethingElseIsRefused) {
  const std::string pipe = object_.key() + "-pipe";
  ASSERT_EQ(::mkfifo(("/dev/shm" + pipe).c_str(), 0600), 0);
  EXPECT_THAT(memory_.Register({"r", pipe, 0, 1}).ToString(), HasSubstr("is not a shared memory object"));
  ::shm_unlink(pipe.c_str());
}

TEST_F(SharedMemoryTest, NamesAreChecked) {
  for (const std::string& name : {std::string(), std::string("a\nb"), std::string(257, 'x')}) {
    EXPECT_THAT(memory_.Register({name, object_.key(), 0, 1}).ToString(), HasSubstr("needs a name"));
  }
  ASSERT_TRUE(memory_.Register({"r", object_.key(), 0, 1}).ok());
  const absl::Status twice = memory_.Register({"r", object_.key(), 0, 2});
  EXPECT_EQ(twice.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(twice.ToString(), HasSubstr("shared memory region 'r' already in manager"));
  EXPECT_EQ(memory_.List().at(0).byte_size, 1u);
}

TEST_F(SharedMemoryTest, ARegionIsThereForWhoHoldsItAndForNobodyElse) {
  ASSERT_TRUE(memory_.Register({"a", object_.key(), 0, 4}).ok());
  ASSERT_TRUE(memory_.Register({"b", object_.key(), 4, 4}).ok());
  const auto held = *memory_.Find("a");
  memory_.Unregister("a");
  memory_.Unregister("a");
  EXPECT_EQ(memory_.Find("a").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Read(*held, 0, 4), "0123");
  ASSERT_EQ(memory_.List().size(), 1u);
  EXPECT_EQ(memory_.List()[0].name, "b");
  memory_.Unregister("");
  EXPECT_TRUE(memory_.List().empty());
}

TEST_F(SharedMemoryTest, AnObjectThatIsCutShortFailsWhoUsesItAndNotTheProcess) {
  ASSERT_TRUE(memory_.Register({"r", object_.key(), 0, 16}).ok());
  const auto region = *memory_.Find("r");
  object_.Resize(8);
  EXPECT_EQ(Read(*region, 0, 8), "01234567");
  EXPECT_THAT(Read(*region, 4, 8), HasSubstr("is longer than its object"));
  EXPECT_THAT(Write(*region, 4, "written.").ToString(), HasSubstr("is longer than its object"));
  EXPECT_EQ(object_.Get(), "01234567") << "it is no longer again, either";
  object_.Resize(0);
  EXPECT_THAT(Read(*region, 0, 1), HasSubstr("is longer than its object"));
}

// Holes that are filled one by one would each be a mapping, of which a process may have so many.
TEST_F(SharedMemoryTest, TheFirstHoleInAMappingMakesAllOfItZeros) {
  const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  object_.Resize(static_cast<off_t>(4 * page));
  const UniqueFd object(::shm_open(object_.key().c_str(), O_RDWR, 0));
  const auto mapping = SharedMapping::Make(object.get(), 0, 4 * page);
  ASSERT_TRUE(mapping.ok());
  const auto byte = [&](std::uint64_t at) { return static_cast<const volatile std::byte*>((*mapping)->data())[at]; };
  EXPECT_EQ(byte(0), std::byte{'0'});
  object_.Resize(static_cast<off_t>(3 * page));
  EXPECT_EQ(byte(0), std::byte{'0'});
  EXPECT_FALSE((*mapping)->poisoned());
  EXPECT_EQ(byte(3 * page), std::byte{0});
  EXPECT_TRUE((*mapping)->poisoned());
  EXPECT_EQ(byte(0), std::byte{0});
}

TEST_F(SharedMemoryTest, ThereAreSoManyAtMost) {
  for (std::size_t i = 0; i < SharedMemory::kMaxRegions; ++i) {
    ASSERT_TRUE(memory_.Register({std::to_string(i), object_.key(), 0, 1}).ok());
  }
  EXPECT_EQ(memory_.Register({"more", object_.key(), 0, 1}).code(), absl::StatusCode::kResourceExhausted);
  memory_.Unregister("7");
  EXPECT_TRUE(memory_.Register({"more", object_.key(), 0, 1}).ok());
}

TEST(SharedMemoryOffTest, NothingIsRegisteredAndThereIsNothingToForget) {
  const SharedObject object(1);
  SharedMemory memory(/*allowed=*/false);
  const absl::Status refused = memory.Register({"r", object.key(), 0, 1});
  EXPECT_EQ(refused.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(refused.ToString(), HasSubstr("Client shared memory is disabled. Start the server with"));
  EXPECT_EQ(memory.Find("r").status().code(), absl::StatusCode::kUnimplemented);
  memory.Unregister("");
  EXPECT_TRUE(memory.List().empty());
}

}  // namespace
}  // namespace hearth
