#include "server/serving/response_cache.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/hash/hash.h"

namespace hearth {
namespace {

constexpr std::uint64_t kOverhead = 512;  // of an entry, about

std::uint64_t BytesOf(const TensorList& tensors) {
  std::uint64_t bytes = 0;
  for (const NamedTensor& one : tensors) bytes += one.tensor.data.size();
  return bytes;
}

std::string_view Text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

bool Same(const TensorList& a, const TensorList& b) {
  return std::ranges::equal(a, b, [](const NamedTensor& x, const NamedTensor& y) {
    return x.name == y.name && x.tensor.dtype == y.tensor.dtype && x.tensor.shape == y.tensor.shape &&
           Text(x.tensor.data) == Text(y.tensor.data);
  });
}

TensorList Copy(const TensorList& tensors) {
  TensorList copies;
  copies.reserve(tensors.size());
  for (const auto& [name, tensor] : tensors) {
    const auto bytes = std::make_shared<std::vector<std::byte>>(tensor.data.begin(), tensor.data.end());
    copies.push_back({name, {tensor.dtype, tensor.shape, *bytes, bytes}});
  }
  return copies;
}

}  // namespace

bool ResponseCache::Fits(const TensorList& inputs) { return BytesOf(inputs) <= kMaxInputBytes; }

ResponseCache::Key ResponseCache::KeyOf(std::uint64_t load, const TensorList& inputs) {
  std::uint64_t hash = 0;
  for (const auto& [name, tensor] : inputs) {
    hash = absl::HashOf(hash, name, tensor.dtype, tensor.shape, Text(tensor.data));
  }
  return {load, hash};
}

void ResponseCache::SetCapacity(std::uint64_t bytes) {
  Entries dropped;  // destroyed after the lock is gone
  MutexLock lock(mu_);
  capacity_ = bytes;
  Shrink(dropped);
}

// As far as it has to.
void ResponseCache::Shrink(Entries& dropped) {
  while (bytes_ > capacity_) {
    const auto last = std::prev(entries_.end());
    bytes_ -= last->answer->bytes;
    by_key_.erase(last->key);
    dropped.splice(dropped.begin(), entries_, last);
    ++evictions_;
  }
}

std::optional<TensorList> ResponseCache::Find(const Key& key, const TensorList& inputs) {
  std::shared_ptr<const Answer> answer;
  {
    MutexLock lock(mu_);
    const auto found = by_key_.find(key);
    if (found == by_key_.end()) return std::nullopt;
    entries_.splice(entries_.begin(), entries_, found->second);
    answer = found->second->answer;
  }
  if (!Same(answer->inputs, inputs)) return std::nullopt;  // another one of the same hash
  TensorList outputs = answer->outputs;
  return outputs;
}

void ResponseCache::Add(const Key& key, const TensorList& inputs, const TensorList& outputs) {
  const std::uint64_t bytes = BytesOf(inputs) + BytesOf(outputs) + kOverhead;
  if (bytes > capacity_.load(std::memory_order_relaxed) / 8) return;  // one must not drive out all others
  auto answer = std::make_shared<const Answer>(Answer{Copy(inputs), Copy(outputs), bytes});
  Entries dropped;
  MutexLock lock(mu_);
  if (const auto found = by_key_.find(key); found != by_key_.end()) {  // somebody was quicker
    bytes_ += bytes - found->second->answer->bytes;
    found->second->answer.swap(answer);
  } else {
    entries_.push_front({key, std::move(answer)});
    by_key_.emplace(key, entries_.begin());
    bytes_ += bytes;
  }
  Shrink(dropped);
}

ResponseCache::Counts ResponseCache::counts() const {
  MutexLock lock(mu_);
  return {entries_.size(), bytes_, evictions_};
}

}  // namespace hearth
