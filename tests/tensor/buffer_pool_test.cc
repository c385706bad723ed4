#include "server/tensor/buffer_pool.h"

#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <new>
#include <optional>
#include <thread>

namespace hearth {
namespace {

TEST(BufferPool, GivesAlignedMemoryOfTheSizeAskedFor) {
  BufferPool pool(1 << 20);
  for (const std::size_t size : {0u, 1u, 63u, 256u, 257u, 5000u, 1u << 20}) {
    const BufferPool::Buffer buffer = pool.Allocate(size);
    EXPECT_EQ(buffer.bytes.size(), size);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(buffer.bytes.data()) % 64, 0u) << size;
    ASSERT_NE(buffer.owner, nullptr);
    if (size > 0) std::memset(buffer.bytes.data(), 0xab, size);  // all of it is ours
  }
}

TEST(BufferPool, ReusesWhatCameBack) {
  BufferPool pool(1 << 20);
  EXPECT_EQ(pool.kept_bytes(), 0u);
  std::optional<BufferPool::Buffer> first = pool.Allocate(1000);
  const std::byte* const memory = first->bytes.data();
  auto second_owner = first->owner;
  first.reset();
  EXPECT_EQ(pool.kept_bytes(), 0u);  // somebody still has it
  second_owner.reset();
  EXPECT_EQ(pool.kept_bytes(), 1024u);
  const BufferPool::Buffer again = pool.Allocate(900);
  EXPECT_EQ(again.bytes.data(), memory);
  EXPECT_EQ(again.bytes.size(), 900u);
  EXPECT_EQ(pool.kept_bytes(), 0u);
}

TEST(BufferPool, NeverGivesOneBufferTwice) {
  BufferPool pool(1 << 20);
  const BufferPool::Buffer a = pool.Allocate(100);
  const BufferPool::Buffer b = pool.Allocate(100);
  EXPECT_NE(a.bytes.data(), b.bytes.data());
}

TEST(BufferPool, KeepsNoMoreThanItsLimit) {
  BufferPool pool(4096);
  {
    std::vector<BufferPool::Buffer> buffers;
    for (int i = 0; i < 10; ++i) buffers.push_back(pool.Allocate(1024));
    buffers.push_back(pool.Allocate(8192));
  }
  EXPECT_EQ(pool.kept_bytes(), 4096u);
  BufferPool none(0);
  { const BufferPool::Buffer buffer = none.Allocate(10); }
  EXPECT_EQ(none.kept_bytes(), 0u);
}

TEST(BufferPool, MayGoBeforeItsBuffers) {
  std::optional<BufferPool> pool(std::in_place, 1 << 20);
  BufferPool::Buffer buffer = pool->Allocate(100);
  { const BufferPool::Buffer kept = pool->Allocate(5000); }
  pool.reset();
  std::memset(buffer.bytes.data(), 1, buffer.bytes.size());
  buffer.owner.reset();  // freed here; AddressSanitizer watches
}

TEST(BufferPool, ThrowsWhereNoMemoryCouldBe) {
  BufferPool pool(1 << 20);
  EXPECT_THROW(pool.Allocate(std::numeric_limits<std::size_t>::max()), std::bad_alloc);
  EXPECT_THROW(pool.Allocate(std::numeric_limits<std::size_t>::max() / 2), std::bad_alloc);
}

TEST(BufferPool, ServesSeveralThreads) {
  BufferPool pool(1 << 16);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&pool, t] {
      for (std::size_t i = 0; i < 500; ++i) {
        const BufferPool::Buffer buffer = pool.Allocate(64 + i % 7 * 300);
        std::memset(buffer.bytes.data(), t, buffer.bytes.size());
        for (const std::byte byte : buffer.bytes) ASSERT_EQ(byte, std::byte(t));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_LE(pool.kept_bytes(), std::size_t{1} << 16);
}

TEST(BufferPool, CountsWhatIsOutAgainstAnAllowanceAndSharesTheMemory) {
  BufferPool pool(1 << 20);
  const auto allowance = std::make_shared<ByteAllowance>(4096);
  const std::byte* memory = nullptr;
  {
    BufferPool counted(pool, allowance);
    const BufferPool::Buffer buffer = counted.Allocate(1025);
    memory = buffer.bytes.data();
    EXPECT_EQ(allowance->held(), 2048u);  // all that is behind it
    EXPECT_THROW(counted.Allocate(4096), BufferPool::Full);
    const BufferPool::Buffer more = counted.Allocate(2048);
    try {
      counted.Allocate(1);
      ADD_FAILURE() << "there was no room";
    } catch (const std::bad_alloc& e) {
      const auto* full = dynamic_cast<const BufferPool::Full*>(&e);
      ASSERT_NE(full, nullptr);
      EXPECT_EQ(full->wanted(), 256u);
      EXPECT_EQ(full->most(), 4096u);
    }
    EXPECT_EQ(pool.Allocate(8192).bytes.size(), 8192u) << "the pool itself counts nothing";
  }
  EXPECT_EQ(allowance->held(), 0u);
  EXPECT_EQ(pool.Allocate(2000).bytes.data(), memory) << "what the counted one gave back is there for all";
}

}  // namespace
}  // namespace hearth
