// Chunks in parts, against a naive copy. What h5py wrote is in hdf5_test.cc.
#include "server/storage/hdf5_chunks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <numeric>
#include <string>
#include <vector>

namespace hearth {
namespace {

constexpr float kFill = -1.5F;

// A matrix of ascending numbers in chunks that lie one after the other; those with `written` false are not there.
struct Matrix {
  std::int64_t rows, columns, chunk_rows, chunk_columns;
  std::vector<float> file, expected;
  std::optional<ChunkedDataSet> set;

  template <typename Written>
  Matrix(Shape sizes, Shape chunk, Written written)
      : rows(sizes[0]), columns(sizes[1]), chunk_rows(chunk[0]), chunk_columns(chunk[1]) {
    std::vector<std::byte> fill(sizeof kFill);
    std::memcpy(fill.data(), &kFill, sizeof kFill);
    set = *ChunkedDataSet::Make(sizes, chunk, sizeof(float), {}, fill);
    expected.assign(static_cast<std::size_t>(rows * columns), kFill);
    for (std::int64_t r = 0; r < rows; r += chunk_rows) {
      for (std::int64_t c = 0; c < columns; c += chunk_columns) {
        if (written(r / chunk_rows, c / chunk_columns)) places.push_back({r, c});
      }
    }
    const auto chunk_bytes = static_cast<std::uint32_t>(chunk_rows * chunk_columns * 4);
    const std::uint64_t file_size = places.size() * chunk_bytes;
    for (const auto& [r, c] : places) {
      const std::uint64_t at[] = {static_cast<std::uint64_t>(r), static_cast<std::uint64_t>(c)};
      EXPECT_EQ(set->Add(at, {.offset = file.size() * sizeof(float), .size = chunk_bytes}, file_size), absl::OkStatus());
      Write(r, c);
    }
    EXPECT_EQ(set->Finish(), absl::OkStatus());
  }

  void Write(std::int64_t r, std::int64_t c) {
    for (std::int64_t i = 0; i < chunk_rows; ++i) {
      for (std::int64_t j = 0; j < chunk_columns; ++j) {
        const auto value = static_cast<float>((r + i) * columns + c + j);
        file.push_back(value);
        if (r + i < rows && c + j < columns) expected[static_cast<std::size_t>((r + i) * columns + c + j)] = value;
      }
    }
  }

  // In the reverse order of parts: none may count on another.
  std::vector<float> Unpacked() const {
    std::vector<float> out(expected.size(), 1e9F);
    for (std::size_t part = set->parts(); part-- > 0;) {
      EXPECT_EQ(set->Unpack(std::as_bytes(std::span(file)), std::as_writable_bytes(std::span(out)), part),
                absl::OkStatus());
    }
    return out;
  }

  std::vector<std::pair<std::int64_t, std::int64_t>> places;
};

TEST(ChunkedDataSet, ALargeOneComesInPartsThatMakeTheWhole) {
  const Matrix matrix({1001, 1003}, {64, 96}, [](auto, auto) { return true; });
  EXPECT_GE(matrix.set->parts(), 3u);
  EXPECT_LE(matrix.set->parts(), 16u * 11u);
  EXPECT_TRUE(matrix.Unpacked() == matrix.expected);
}

TEST(ChunkedDataSet, ChunksThatWereNeverWrittenAreFilledInWhicheverPartTheyAre) {
  const Matrix sparse({1001, 1003}, {64, 96}, [](auto row, auto column) { return (row + column) % 3 == 0; });
  EXPECT_GE(sparse.set->parts(), 3u);
  EXPECT_TRUE(sparse.Unpacked() == sparse.expected);
  const Matrix one({1001, 1003}, {64, 96}, [](auto row, auto column) { return row == 15 && column == 10; });
  EXPECT_TRUE(one.Unpacked() == one.expected);
  const Matrix none({1001, 1003}, {64, 96}, [](auto, auto) { return false; });
  EXPECT_TRUE(none.Unpacked() == none.expected);
}

TEST(ChunkedDataSet, OneRowOfChunksIsPartedOnlyWhenItIsWhole) {
  const Matrix whole({1000, 1000}, {1000, 10}, [](auto, auto) { return true; });
  EXPECT_GE(whole.set->parts(), 3u);
  EXPECT_TRUE(whole.Unpacked() == whole.expected);
  const Matrix gaps({1000, 1000}, {1000, 10}, [](auto, auto column) { return column % 2 == 0; });
  EXPECT_EQ(gaps.set->parts(), 1u);
  EXPECT_TRUE(gaps.Unpacked() == gaps.expected);
}

TEST(ChunkedDataSet, ASmallOneIsOnePartAndNoneHasMorePartsThanChunks) {
  EXPECT_EQ(Matrix({100, 100}, {3, 3}, [](auto, auto) { return true; }).set->parts(), 1u);
  EXPECT_EQ(Matrix({2000, 1000}, {1000, 1000}, [](auto, auto) { return true; }).set->parts(), 2u);
}

}  // namespace
}  // namespace hearth
