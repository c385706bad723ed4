#include "server/serving/shared_mapping.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <string>

#include "server/base/unique_fd.h"
#include "tests/serving/shared_object.h"

namespace hearth {
namespace {

class SharedMappingTest : public testing::Test {
 protected:
  SharedMappingTest() : descriptor_(::shm_open(object_.key().c_str(), O_RDWR, 0)) {}

  const off_t page_ = ::sysconf(_SC_PAGESIZE);
  SharedObject object_{3 * page_};
  const UniqueFd descriptor_;
};

TEST_F(SharedMappingTest, MayBeginAnywhereInTheObject) {
  object_.Set(std::string(static_cast<std::size_t>(page_) + 5, '.') + "here");
  const auto mapping = SharedMapping::Make(descriptor_.get(), static_cast<std::uint64_t>(page_) + 5, 4);
  ASSERT_TRUE(mapping.ok());
  EXPECT_EQ(std::string(reinterpret_cast<const char*>((*mapping)->data()), 4), "here");
  (*mapping)->data()[0] = std::byte{'H'};
  EXPECT_EQ(object_.Get().substr(static_cast<std::size_t>(page_) + 4, 6), std::string(".Here\0", 6));
  EXPECT_FALSE((*mapping)->poisoned());
}

TEST_F(SharedMappingTest, AnObjectThatIsCutShortIsNotedAndNobodyCrashes) {
  const auto mapping = SharedMapping::Make(descriptor_.get(), 0, static_cast<std::uint64_t>(3 * page_));
  ASSERT_TRUE(mapping.ok());
  object_.Resize(page_);
  volatile std::byte* const data = (*mapping)->data();
  data[page_ - 1] = std::byte{7};
  EXPECT_FALSE((*mapping)->poisoned());
  EXPECT_TRUE(data[page_] == std::byte{});
  EXPECT_TRUE((*mapping)->poisoned());
  data[2 * page_] = std::byte{7};  // into a page that nobody else sees
  EXPECT_EQ(object_.Get().size(), static_cast<std::size_t>(page_));
}

TEST_F(SharedMappingTest, MoreThanThereAreAddressesForIsRefused) {
  EXPECT_FALSE(SharedMapping::Make(descriptor_.get(), 0, std::uint64_t{1} << 60).ok());
}

}  // namespace
}  // namespace hearth
