// A pin on a loaded model.
#pragma once

#include <utility>

#include "server/model/model.h"

namespace hearth {

struct CacheEntry;

// While one is held the model stays loaded, whatever else is asked for. Comes from ModelManager.
//
// Move-only, one pointer wide, null when default-constructed or moved from. Dropping one is cheap
// on any thread: the last one of a model that is leaving posts its destruction to a load thread, it
// never destroys. Hold it for a request, not for a session: a pinned model cannot make room for
// others.
//
// Must not outlive the ModelManager it came from. Thread-compatible; move it to hand it over.
class ModelHandle {
 public:
  ModelHandle() = default;
  ModelHandle(ModelHandle&& other) noexcept : entry_(std::exchange(other.entry_, nullptr)) {}
  ModelHandle& operator=(ModelHandle&& other) noexcept {
    if (this != &other) {
      Reset();
      entry_ = std::exchange(other.entry_, nullptr);
    }
    return *this;
  }
  ~ModelHandle() { Reset(); }

  explicit operator bool() const { return entry_ != nullptr; }
  // REQUIRES: not null.
  const Model& operator*() const;
  const Model* operator->() const { return &**this; }
  const ModelId& id() const;

  // Lets go now. Idempotent.
  void Reset() noexcept;

 private:
  friend class ModelCache;
  explicit ModelHandle(CacheEntry* entry) : entry_(entry) {}  // takes over one pin

  CacheEntry* entry_ = nullptr;
};

}  // namespace hearth
