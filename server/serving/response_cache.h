// Answers that are given again to the same inputs.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <optional>

#include "absl/container/flat_hash_map.h"
#include "server/base/mutex.h"
#include "server/tensor/tensor.h"

namespace hearth {

// For models that say of themselves that they answer the same to the same (ModelOptions::response_cache). Inputs are kept
// beside their answer and compared byte by byte, so an answer is never somebody else's. Those asked for longest ago go
// when there is no room. Answers of a load that is gone are found by nobody, and go that way.
//
// Thread-safe. Its lock is held over a look and over moving pointers, and not over comparing or copying tensors.
class ResponseCache {
 public:
  // What an answer is to.
  struct Key {
    std::uint64_t load = 0;  // Model::load()
    std::uint64_t hash = 0;  // of the inputs
  };
  static Key KeyOf(std::uint64_t load, const TensorList& inputs);

  // More than that is neither looked for nor kept: it would be read on a thread that has better to do.
  static constexpr std::size_t kMaxInputBytes = std::size_t{1} << 20;
  static bool Fits(const TensorList& inputs);

  // Bytes of inputs and answers together; 0: nothing is kept, and what is kept goes.
  void SetCapacity(std::uint64_t bytes) ABSL_LOCKS_EXCLUDED(mu_);
  bool enabled() const { return capacity_.load(std::memory_order_relaxed) > 0; }

  // Shares memory with the cache.
  std::optional<TensorList> Find(const Key& key, const TensorList& inputs) ABSL_LOCKS_EXCLUDED(mu_);
  // Copies both, for what they belong to may be much larger.
  void Add(const Key& key, const TensorList& inputs, const TensorList& outputs) ABSL_LOCKS_EXCLUDED(mu_);

  struct Counts {
    std::uint64_t entries = 0;
    std::uint64_t bytes = 0;
    std::uint64_t evictions = 0;
  };
  Counts counts() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  struct Answer {
    TensorList inputs;
    TensorList outputs;
    std::uint64_t bytes = 0;
  };
  struct Entry {
    Key key;
    std::shared_ptr<const Answer> answer;
  };
  using Entries = std::list<Entry>;
  struct HashKey {
    std::size_t operator()(const Key& key) const { return key.load * 0x9e3779b97f4a7c15ULL ^ key.hash; }
  };
  struct SameKey {
    bool operator()(const Key& a, const Key& b) const { return a.load == b.load && a.hash == b.hash; }
  };
  void Shrink(Entries& dropped) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  std::atomic<std::uint64_t> capacity_{0};  // written under mu_
  mutable Mutex mu_;
  Entries entries_ ABSL_GUARDED_BY(mu_);  // the one asked for last comes first
  absl::flat_hash_map<Key, Entries::iterator, HashKey, SameKey> by_key_ ABSL_GUARDED_BY(mu_);
  std::uint64_t bytes_ ABSL_GUARDED_BY(mu_) = 0;
  std::uint64_t evictions_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace hearth
