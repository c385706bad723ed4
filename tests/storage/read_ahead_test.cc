#include "server/storage/read_ahead.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <utility>

namespace hearth {
namespace {

using ::testing::IsEmpty;
using ::testing::SizeIs;

struct Asked {
  std::vector<std::pair<int, ByteRange>> windows;

  ReadAhead::Ask Note() {
    return [this](const ReadAhead::Part& window) { windows.emplace_back(window.fd, window.range); };
  }
  std::uint64_t bytes() const {
    std::uint64_t sum = 0;
    for (const auto& [fd, window] : windows) sum += window.size();
    return sum;
  }
};

TEST(ReadAhead, EachByteOfAPartIsAskedForOnceAndInOrder) {
  Asked asked;
  const ByteRange part{1000, 1000 + 3 * ReadAhead::kAhead + 5};
  ReadAhead ahead({{7, part}}, asked.Note());
  ahead.Advance(0);
  for (std::uint64_t at = 0; at < part.size(); at += ReadAhead::kWindow / 2) ahead.Advance(ReadAhead::kWindow / 2);
  std::uint64_t next = part.begin;
  for (const auto& [fd, window] : asked.windows) {
    EXPECT_EQ(fd, 7);
    EXPECT_EQ(window.begin, next);
    EXPECT_LE(window.size(), ReadAhead::kWindow);
    next = window.end;
  }
  EXPECT_EQ(next, part.end);
}

TEST(ReadAhead, TheDiskHasAlwaysTheSameDistanceToWorkOnAndNeverMore) {
  Asked asked;
  ReadAhead ahead({{7, {0, 4 * ReadAhead::kAhead}}}, asked.Note());
  ahead.Advance(0);
  EXPECT_EQ(asked.bytes(), ReadAhead::kAhead);
  ahead.Advance(1);
  EXPECT_EQ(asked.bytes(), ReadAhead::kAhead + ReadAhead::kWindow);
  ahead.Advance(ReadAhead::kWindow - 1);
  EXPECT_EQ(asked.bytes(), ReadAhead::kAhead + ReadAhead::kWindow) << "as far as was asked already";
}

TEST(ReadAhead, ItGoesOnFromOnePartIntoTheNextAndPassesEmptyOnes) {
  Asked asked;
  ReadAhead ahead({{1, {0, 10}}, {1, {50, 50}}, {2, {5, 25}}}, asked.Note());
  ahead.Advance(0);
  EXPECT_EQ(asked.windows, (std::vector<std::pair<int, ByteRange>>{{1, {0, 10}}, {2, {5, 25}}}));
  ahead.Advance(30);
  EXPECT_THAT(asked.windows, SizeIs(2));
}

TEST(ReadAhead, ThereMayBeNothingToRead) {
  Asked asked;
  ReadAhead ahead(std::vector<ReadAhead::Part>{}, asked.Note());
  ahead.Advance(0);
  ahead.Advance(10);
  EXPECT_THAT(asked.windows, IsEmpty());
}

}  // namespace
}  // namespace hearth
