#include "server/serving/response_cache.h"

#include <gtest/gtest.h>

#include <string>

namespace hearth {
namespace {

TensorList Strings(const std::string& name, std::string text) {
  const auto owner = std::make_shared<std::string>(std::move(text));
  return {{name, {DType::kUInt8, {static_cast<std::int64_t>(owner->size())}, std::as_bytes(std::span(*owner)), owner}}};
}

std::string TextOf(const std::optional<TensorList>& tensors) {
  if (!tensors) return "nothing";
  const auto data = tensors->at(0).tensor.data;
  return {reinterpret_cast<const char*>(data.data()), data.size()};
}

class ResponseCacheTest : public testing::Test {
 protected:
  ResponseCacheTest() { cache_.SetCapacity(1 << 20); }
  void Add(std::uint64_t load, const TensorList& inputs, const std::string& answer) {
    cache_.Add(ResponseCache::KeyOf(load, inputs), inputs, Strings("y", answer));
  }
  std::string Find(std::uint64_t load, const TensorList& inputs) {
    return TextOf(cache_.Find(ResponseCache::KeyOf(load, inputs), inputs));
  }
  ResponseCache cache_;
};

TEST_F(ResponseCacheTest, GivesTheSameAnswerToTheSameInputsOfTheSameLoad) {
  Add(1, Strings("x", "in"), "out");
  EXPECT_EQ(Find(1, Strings("x", "in")), "out");
  EXPECT_EQ(Find(1, Strings("x", "on")), "nothing");
  EXPECT_EQ(Find(1, Strings("z", "in")), "nothing");
  EXPECT_EQ(Find(2, Strings("x", "in")), "nothing");
  TensorList other = Strings("x", "in");
  other[0].tensor.shape = {1, 2};
  EXPECT_EQ(Find(1, other), "nothing");
}

TEST_F(ResponseCacheTest, ComparesInputsWhoseHashIsTheSame) {
  const auto key = ResponseCache::KeyOf(1, Strings("x", "in"));
  cache_.Add(key, Strings("x", "in"), Strings("y", "out"));
  EXPECT_FALSE(cache_.Find(key, Strings("x", "other")));
}

TEST_F(ResponseCacheTest, DropsThoseAskedForLongestAgo) {
  cache_.SetCapacity(100'000);
  const std::string large(9'000, 'a');
  for (int i = 0; i < 10; ++i) Add(1, Strings("x", std::to_string(i)), large);
  EXPECT_EQ(Find(1, Strings("x", "0")), large);
  for (int i = 10; i < 15; ++i) Add(1, Strings("x", std::to_string(i)), large);
  EXPECT_EQ(Find(1, Strings("x", "0")), large);
  EXPECT_EQ(Find(1, Strings("x", "1")), "nothing");
  EXPECT_LE(cache_.counts().bytes, 100'000u);
  EXPECT_GT(cache_.counts().evictions, 0u);
  cache_.SetCapacity(0);
  EXPECT_EQ(cache_.counts().entries, 0u);
  EXPECT_FALSE(cache_.enabled());
}

TEST_F(ResponseCacheTest, KeepsNothingThatWouldDriveOutTheOthers) {
  cache_.SetCapacity(10'000);
  Add(1, Strings("x", "small"), "out");
  Add(1, Strings("x", "large"), std::string(5'000, 'a'));
  EXPECT_EQ(Find(1, Strings("x", "large")), "nothing");
  EXPECT_EQ(Find(1, Strings("x", "small")), "out");
  EXPECT_FALSE(ResponseCache::Fits(Strings("x", std::string(ResponseCache::kMaxInputBytes + 1, 'a'))));
}

TEST_F(ResponseCacheTest, TheSecondOfTwoAtOnceReplacesTheFirst) {
  Add(1, Strings("x", "in"), "first");
  const auto bytes = cache_.counts().bytes;
  Add(1, Strings("x", "in"), "later");
  EXPECT_EQ(Find(1, Strings("x", "in")), "later");
  EXPECT_EQ(cache_.counts().entries, 1u);
  EXPECT_EQ(cache_.counts().bytes, bytes);
}

}  // namespace
}  // namespace hearth
