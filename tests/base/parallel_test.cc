#include "server/base/parallel.h"

#include <gtest/gtest.h>

#include <atomic>
#include <latch>
#include <vector>

namespace hearth {
namespace {

TEST(ParallelFor, CallsEachItemOnce) {
  std::vector<std::atomic<int>> calls(1000);
  const absl::Status status = ParallelFor(calls.size(), 4, [&](std::size_t i) {
    ++calls[i];
    return absl::OkStatus();
  });
  EXPECT_TRUE(status.ok());
  for (const auto& count : calls) EXPECT_EQ(count, 1);
}

TEST(ParallelFor, RunsAsManyItemsAtOnceAsItMayUseThreads) {
  std::latch all_inside(3);  // opens only when three items run at the same time
  EXPECT_TRUE(ParallelFor(3, 3, [&](std::size_t) {
                all_inside.arrive_and_wait();
                return absl::OkStatus();
              }).ok());
}

TEST(ParallelFor, OnOneThreadKeepsTheOrder) {
  std::vector<std::size_t> order;
  EXPECT_TRUE(ParallelFor(4, 1, [&](std::size_t i) {
                order.push_back(i);
                return absl::OkStatus();
              }).ok());
  EXPECT_EQ(order, (std::vector<std::size_t>{0, 1, 2, 3}));
}

TEST(ParallelFor, BeginsNothingAfterAFailureAndReturnsIt) {
  std::vector<std::size_t> begun;
  const absl::Status status = ParallelFor(10, 1, [&](std::size_t i) {
    begun.push_back(i);
    return i == 2 ? absl::DataLossError("the third") : absl::OkStatus();
  });
  EXPECT_EQ(status, absl::DataLossError("the third"));
  EXPECT_EQ(begun.size(), 3u);
}

TEST(ParallelFor, OfNothingIsDone) {
  EXPECT_TRUE(ParallelFor(0, 8, [](std::size_t) { return absl::InternalError("called"); }).ok());
}

}  // namespace
}  // namespace hearth
