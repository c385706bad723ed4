#include "server/residency/ledger.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <random>
#include <vector>

namespace hearth {
namespace {

using enum HoldPhase;

const FileId kFile{.device = 1, .inode = 7, .mtime_ns = 0, .size = 1000};
const FileId kOther{.device = 1, .inode = 8, .mtime_ns = 0, .size = 1000};

Footprint Mapped(std::vector<Extent> extents) { return {0, 0, std::move(extents)}; }

TEST(Ledger, ChargesBytesOfAFileOnceHoweverManyHoldThem) {
  Ledger ledger;
  const Footprint weights = Mapped({{kFile, 0, 100}});
  ledger.Add(weights, kResident);
  ledger.Add(weights, kResident);
  EXPECT_EQ(ledger.used().mapped_bytes, 100u);
  ledger.Remove(weights, kResident);
  EXPECT_EQ(ledger.used().mapped_bytes, 100u) << "the other one still holds them";
  ledger.Remove(weights, kResident);
  EXPECT_EQ(ledger.used(), Bytes{});
}

TEST(Ledger, ChargesTheUnionOfExtentsThatOverlap) {
  Ledger ledger;
  ledger.Add(Mapped({{kFile, 0, 100}}), kResident);
  ledger.Add(Mapped({{kFile, 50, 100}, {kFile, 60, 10}}), kResident);
  ledger.Add(Mapped({{kOther, 0, 5}}), kResident);
  EXPECT_EQ(ledger.used().mapped_bytes, 155u);
  ledger.Remove(Mapped({{kFile, 0, 100}}), kResident);
  EXPECT_EQ(ledger.used().mapped_bytes, 105u);
}

TEST(Ledger, TellsAReplacedFileFromTheOldOne) {
  FileId newer = kFile;
  newer.mtime_ns = 1;
  Ledger ledger;
  ledger.Add(Mapped({{kFile, 0, 100}}), kResident);
  ledger.Add(Mapped({{newer, 0, 100}}), kLoading);
  EXPECT_EQ(ledger.used().mapped_bytes, 200u);
}

TEST(Ledger, AttributesSharedBytesToWhoStaysLongest) {
  Ledger ledger;
  const Footprint weights = Mapped({{kFile, 0, 100}});
  ledger.Add(weights, kUnloading);
  EXPECT_EQ(ledger.held(kUnloading).mapped_bytes, 100u);
  ledger.Add(weights, kLoading);
  EXPECT_EQ(ledger.held(kUnloading).mapped_bytes, 0u);
  EXPECT_EQ(ledger.held(kLoading).mapped_bytes, 100u);
  ledger.Add(weights, kResident);
  EXPECT_EQ(ledger.held(kResident).mapped_bytes, 100u);
  EXPECT_EQ(ledger.used().mapped_bytes, 100u);
}

TEST(Ledger, ChargesAWindowInPlaceOfTheExtentsAndToEveryoneAnew) {
  const Footprint weights = Windowed(Mapped({{kFile, 0, 100}, {kOther, 0, 50}}), 30);
  EXPECT_EQ(weights.mapped_bytes(), 30u);
  Ledger ledger;
  ledger.Add(Mapped({{kFile, 0, 100}}), kResident);
  ledger.Add(weights, kResident);
  ledger.Add(weights, kLoading);
  EXPECT_EQ(ledger.held(kResident).mapped_bytes, 130u);
  EXPECT_EQ(ledger.held(kLoading).mapped_bytes, 30u);
  ledger.Remove(weights, kResident);
  ledger.Add(weights, kUnloading);
  EXPECT_EQ(ledger.used().mapped_bytes, 160u);
  ledger.DropUnloading();
  EXPECT_EQ(ledger.used().mapped_bytes, 130u);
  ledger.Remove(Mapped({{kFile, 0, 100}}), kResident);
  ledger.Remove(weights, kLoading);
  EXPECT_EQ(ledger.used(), Bytes{});
}

TEST(Ledger, AWindowOnNothingIsNothing) {
  EXPECT_EQ(Windowed({0, 7, {}}, 30).mapped_bytes(), 0u) << "all of it has been copied to a device";
  EXPECT_EQ(Windowed({0, 7, {}}, 30).host_bytes, 7u);
}

TEST(Ledger, NamesTheDimensionThatIsShort) {
  EXPECT_EQ(Shortage({1, 2, 3}, {}, {1, 2, 3}, {}), std::nullopt);
  EXPECT_THAT(*Shortage({0, 0, 4096}, {0, 0, 1024}, {0, 0, 2048}, {}),
              testing::HasSubstr("4.00 KiB of mapped memory, and 1.00 KiB of the 2.00 KiB of "
                                 "cache.budget.mapped"));
  EXPECT_THAT(*Shortage({1, 0, 0}, {}, {}, {}), testing::HasSubstr("cache.budget.device"));
  EXPECT_THAT(*Shortage({0, 1, 0}, {}, {}, {}), testing::HasSubstr("cache.budget.host"));
}

// Counts holders byte by byte.
struct Naive {
  std::array<std::array<int, 64>, 3> holders{};
  void Change(const Footprint& f, HoldPhase phase, int by) {
    for (const Extent& e : f.extents) {
      for (std::uint64_t i = e.offset; i < e.offset + e.length; ++i) {
        holders[static_cast<std::size_t>(phase)][i] += by;
      }
    }
  }
  std::uint64_t held(HoldPhase phase) const {
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < 64; ++i) {
      const HoldPhase owner = holders[1][i] > 0   ? kResident
                              : holders[0][i] > 0 ? kLoading
                                                  : kUnloading;
      const bool any = holders[0][i] + holders[1][i] + holders[2][i] > 0;
      sum += any && owner == phase ? 1 : 0;
    }
    return sum;
  }
};

TEST(Ledger, AgreesWithCountingEveryByte) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  const auto pick = [&](std::uint64_t n) { return random() % n; };
  Ledger ledger;
  Naive naive;
  std::vector<std::pair<Footprint, HoldPhase>> live;
  for (int step = 0; step < 5000; ++step) {
    if (live.empty() || pick(100) < 52) {
      Footprint f;
      for (std::uint64_t n = pick(4); n > 0; --n) {
        const std::uint64_t offset = pick(64);
        f.extents.push_back({kFile, offset, pick(64 - offset)});
      }
      const auto phase = static_cast<HoldPhase>(pick(3));
      ledger.Add(f, phase);
      naive.Change(f, phase, 1);
      live.emplace_back(f, phase);
    } else {
      const std::size_t i = pick(live.size());
      ledger.Remove(live[i].first, live[i].second);
      naive.Change(live[i].first, live[i].second, -1);
      live.erase(live.begin() + static_cast<std::ptrdiff_t>(i));
    }
    for (const HoldPhase phase : {kLoading, kResident, kUnloading}) {
      ASSERT_EQ(ledger.held(phase).mapped_bytes, naive.held(phase)) << "step " << step;
    }
    if (pick(10) == 0) {
      Ledger later = ledger;
      Naive naive_later = naive;
      later.DropUnloading();
      naive_later.holders[2] = {};
      ASSERT_EQ(later.used().mapped_bytes,
                naive_later.held(kResident) + naive_later.held(kLoading));
    }
  }
}

}  // namespace
}  // namespace hearth
